"""From layers to a program: its stream, its image, and what runs them."""

from __future__ import annotations

import json
import time
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import numpy as np

from epkit.backend import Program, RunContext, Subgraph
from epkit.errors import CompileError, RunError, Where

from . import isa
from .device import DeviceError, NpuDevice, NpuStream
from .kernels import FAMILIES
from .layers import Layer, nbytes
from .machine import ChecksumError, Core, Machine
from .memory import DeviceTensor
from .quant import QTensor, Unsupported
from .schedule import ScratchpadError, Stream
from .tile import Finish, View, dense
from .timing import LayerTime, Timeline, simulate
from .unit import Unit

if TYPE_CHECKING:
    import onnx_ir as ir

MAGIC = b"NPUSIM01"


@dataclass(frozen=True, eq=False)
class Binary:
    """A compiled stream.

    Attributes:
        machine: what it was compiled for.
        commands: the stream; the tag of a command is the number of its layer.
        ends: for each layer, how many commands there are up to its end.
        image: constants; base 0.
    """

    machine: Machine
    commands: tuple[isa.Command, ...]
    ends: tuple[int, ...]
    image: bytes

    @cached_property
    def timeline(self) -> Timeline:
        """When the machine does what."""
        return simulate(self.machine, self.commands)

    def to_bytes(self) -> bytes:
        """A file: magic, length of the header, header (JSON), commands, image."""
        code = isa.encode(self.commands)
        header = {
            "isa": isa.VERSION,
            "machine": asdict(self.machine),
            "ends": self.ends,
            "code": len(code),
            "crc": zlib.crc32(self.image, zlib.crc32(code)),
        }
        text = json.dumps(header).encode("utf-8")
        return MAGIC + len(text).to_bytes(4, "little") + text + code + self.image

    @classmethod
    def from_bytes(cls, data: bytes) -> Binary:
        """What ``to_bytes`` gave.

        Raises:
            ValueError: if it is something else, damaged, or of another version of the instruction set.
        """
        size = int.from_bytes(data[8:12], "little")
        if data[:8] != MAGIC:
            raise ValueError("these are not the bytes of a stream")
        header = json.loads(data[12 : 12 + size])
        if header["isa"] != isa.VERSION:
            raise ValueError(f"the stream is of version {header['isa']}, the machine has {isa.VERSION}")
        code, image = data[12 + size : 12 + size + header["code"]], data[12 + size + header["code"] :]
        if zlib.crc32(image, zlib.crc32(code)) != header["crc"]:
            raise ValueError("the stream is damaged")
        return cls(Machine(**header["machine"]), tuple(isa.decode(code)), tuple(header["ends"]), image)


class Bases:
    """The table of tensors that a stream refers to by number. Aliases are one entry."""

    def __init__(self, layers: Sequence[Layer], inputs: Sequence[ir.Value]) -> None:
        self.index: dict[ir.Value, int] = {}
        self.sizes: list[int] = [0]
        for layer in layers:
            for q in layer.inputs:
                self._add(q)
            if layer.alias:
                self.index[layer.outputs[0].value] = self.index[layer.inputs[0].value]
            else:
                for q in layer.outputs:
                    self._add(q)
        for value in inputs:
            self.index.setdefault(value, 0)

    def _add(self, q: QTensor) -> None:
        if q.value not in self.index:
            self.index[q.value] = len(self.sizes)
            self.sizes.append(nbytes(q))

    def view(self, q: QTensor) -> View:
        """The whole tensor."""
        return dense(self.index[q.value], q.shape, np.dtype(q.dtype).itemsize)


def assemble_layers(layers: Sequence[Layer], bases: Bases, machine: Machine, compress: bool) -> Binary:
    """Emit all layers.

    Raises:
        CompileError: naming the node whose tiles do not fit.
    """
    stream = Stream(machine, bases.sizes, compress)
    ends = []
    for number, layer in enumerate(layers):
        if not layer.alias:
            stream.begin_layer(number)
            try:
                _emit(layer, stream, bases)
            except (ScratchpadError, Unsupported) as error:
                raise CompileError(
                    f"{layer.operators} does not fit into the scratchpad: {error}",
                    where=Where(node=str(layer.node.name)),
                    remedy="raise the option scratchpad_kib, or name another provider for this node",
                ) from error
        ends.append(len(stream.commands))
    return Binary(machine, tuple(stream.commands), tuple(ends), b"".join(stream.image.parts))


def _emit(layer: Layer, stream: Stream, bases: Bases) -> None:
    head, *rest = layer.units
    pending = []
    for unit, before in zip(rest, layer.units, strict=False):
        tail = FAMILIES[unit.kind].tail
        assert tail is not None
        pending.append(partial(_sized, tail, unit, stream, bases.view, before.output))
    output = bases.view(layer.outputs[0])
    FAMILIES[head.kind].lower(head, stream, bases.view, Finish(output, tuple(pending)), layer.extra)


def _sized(tail: Any, unit: Unit, stream: Stream, view: Any, via: QTensor, elements: int) -> Any:
    return tail(unit, stream, view, elements, via)


class NpuProgram(Program):
    """A stream on a device, and what it reads and writes in each run."""

    def __init__(
        self, subgraph: Subgraph, layers: Sequence[Layer], binary: Binary, device: NpuDevice, mode: str
    ) -> None:
        self.name = subgraph.name
        self.binary = binary
        self.device = device
        self.layers = tuple(layers)
        self.mode = mode
        self._inputs, self._outputs = subgraph.inputs, subgraph.outputs
        self._bases = Bases(layers, subgraph.inputs)
        self._image = device.dram.allocate(len(binary.image))
        self.upload()
        device.programs.add(self)

    def upload(self) -> None:
        """Write the image to the device's memory."""
        at = self._image.address
        self.device.dram.bytes[at : at + len(self.binary.image)] = np.frombuffer(self.binary.image, np.uint8)

    def close(self) -> None:
        self.device.programs.discard(self)
        self.device.dram.free(self._image)

    # ---- a run ----

    def run(self, context: RunContext, inputs: Sequence[Any]) -> Sequence[Any]:
        run = _Run(self, context, inputs)
        begin, observed = 0, context.observed
        if observed:
            self._draw(context)
        for number, (layer, end) in enumerate(zip(self.layers, self.binary.ends, strict=True)):
            context.begin(layer.node)
            run.bind(layer)
            if self.mode == "functional" and end > begin:
                run.submit(self.binary.commands[begin:end])
            begin = end
            if observed:
                context.measure(**self.counters[number])
            context.end(layer.node)
        if self.mode == "cycles":
            run.submit(self.binary.timeline.order())
        return [run.tensors[value] for value in self._outputs]

    def capture(self, context: RunContext, inputs: Sequence[Any]) -> Program | None:
        return NpuReplay(self)

    @cached_property
    def counters(self) -> list[dict[str, float]]:
        """What each layer counts: its share of the time, and what was done in it."""
        timeline = self.binary.timeline
        layers, shares = timeline.layers(), timeline.shares()
        found = []
        for number in range(len(self.layers)):
            layer, cycles = layers.get(number, LayerTime()), shares.get(number, 0)
            moved, peak = layer.loaded + layer.stored, cycles * self.binary.machine.array**2
            found.append({"cycles": float(cycles), "bytes": moved, "macs": layer.macs, "peak_macs": peak})
        return found

    def _draw(self, context: RunContext) -> None:
        """The simulated timeline, one row an engine, from now on."""
        timeline, now = self.binary.timeline, time.perf_counter_ns()
        tick = 1e3 / self.binary.machine.clock_mhz
        for command, start, end in zip(timeline.commands, timeline.starts, timeline.ends, strict=True):
            name, row = type(command.op).__name__, f"npu_sim {isa.ENGINES[command.op.ENGINE]}"
            node = str(self.layers[command.tag].node.name)
            begin, clocks = now + round(start * tick), end - start
            context.event(name, row, begin, round(clocks * tick), node=node, cycles=clocks)

    def failed(self, error: Exception, command: isa.Command) -> RunError:
        """An error of the device with its place."""
        node = self.layers[command.tag].node
        name = type(command.op).__name__.lower()
        return RunError(
            f"the device failed at {name} of {node.op_type}: {error}",
            where=Where(stage="run", provider="npu_sim", partition=self.name, node=str(node.name)),
            remedy="call session.reset() and run anew, or load with on_failure='fallback'",
        )


class NpuReplay(Program):
    """The whole stream as one piece of work: nothing is enqueued layer by layer."""

    def __init__(self, program: NpuProgram) -> None:
        self._program = program

    def run(self, context: RunContext, inputs: Sequence[Any]) -> Sequence[Any]:
        program = self._program
        run = _Run(program, context, inputs)
        for layer in program.layers:
            run.bind(layer)
        in_order = program.mode == "functional"
        run.submit(program.binary.commands if in_order else program.binary.timeline.order())
        return [run.tensors[value] for value in program._outputs]


class _Run:
    """The tensors of one run, and its scratchpad."""

    def __init__(self, program: NpuProgram, context: RunContext, inputs: Sequence[Any]) -> None:
        self.program = program
        self.context = context
        self.tensors: dict[ir.Value, DeviceTensor] = dict(zip(program._inputs, inputs, strict=True))
        self.bases = [0] * len(program._bases.sizes)
        self.bases[0] = program._image.address
        for value, tensor in self.tensors.items():
            self.bases[program._bases.index[value]] = (
                tensor.address if program._bases.index[value] else self.bases[0]
            )
        self.core = Core(program.binary.machine, program.device.dram)

    def bind(self, layer: Layer) -> None:
        """Ask the core for the memory of what a layer writes."""
        index: Mapping[ir.Value, int] = self.program._bases.index
        for q in layer.outputs:
            if layer.alias:
                source = self.tensors[layer.inputs[0].value]
                self.tensors[q.value] = DeviceTensor(source.buffer, source.address, q.shape, source.dtype)
            else:
                tensor = self.context.empty(q.value, q.shape, np.dtype(q.dtype))
                self.tensors[q.value] = tensor
                self.bases[index[q.value]] = tensor.address

    def submit(self, commands: Sequence[isa.Command]) -> None:
        """Let the stream's thread execute commands once its turn comes."""
        stream = self.context.stream
        assert isinstance(stream, NpuStream)
        stream.submit(partial(self._execute, commands, tuple(self.bases)))

    def _execute(self, commands: Sequence[isa.Command], bases: Sequence[int]) -> None:
        device = self.program.device
        for command in commands:
            try:
                device.before_command()
                if isinstance(command.op, isa.Load) and device.faults.due("bit-flip"):
                    self.core.flip = 5
                self.core.step(command.op, bases)
            except (DeviceError, ChecksumError, IndexError) as error:
                raise self.program.failed(error, command) from error
