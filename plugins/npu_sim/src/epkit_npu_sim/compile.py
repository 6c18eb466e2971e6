"""From layers to a program: its stream, its image, and what runs them."""

from __future__ import annotations

import json
import time
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from epkit.backend import Program, RunContext, Subgraph
from epkit.errors import CompileError, RunError, Where

from . import isa
from .device import DeviceError, NpuDevice, NpuStream
from .engines.array import Result
from .kernels import FAMILIES
from .layers import Layer, nbytes
from .machine import ChecksumError, Core, Machine
from .memory import DeviceTensor
from .quant import QTensor, Unsupported
from .schedule import ScratchpadError, Stream
from .tile import Finish, View, dense
from .timing import LayerTime, Timeline, events, simulate

if TYPE_CHECKING:
    import onnx_ir as ir

MAGIC = b"NPUSIM01"


@dataclass(frozen=True, eq=False)
class Binary:
    """A compiled stream.

    Attributes:
        machine: what it was compiled for.
        commands: the stream; the tag of a command is the number of its layer.
        image: constants; base 0.
    """

    machine: Machine
    commands: tuple[isa.Command, ...]
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
        return cls(Machine(**header["machine"]), tuple(isa.decode(code)), image)


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

    def view(self, stream: Stream, q: QTensor) -> View:
        """The whole tensor; constants lie in the image."""
        if q.constant is None:
            return dense(self.index[q.value], q.shape, q.size)
        return replace(dense(0, q.shape, q.size), offset=stream.image.add(q.constant.tobytes()))


def assemble_layers(layers: Sequence[Layer], bases: Bases, machine: Machine, compress: bool) -> Binary:
    """Emit all layers.

    Raises:
        CompileError: naming the node whose tiles do not fit.
    """
    stream = Stream(machine, bases.sizes, compress)
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
    return Binary(machine, tuple(stream.commands), b"".join(stream.image.parts))


def _emit(layer: Layer, stream: Stream, bases: Bases) -> None:
    pending = []
    view = partial(bases.view, stream)
    for before, unit in pairwise(layer.units):
        tail = FAMILIES[unit.kind].tail
        assert tail is not None
        pending.append(partial(tail, unit, stream, view, before.output))
    head, output = layer.units[0], view(layer.outputs[0])
    FAMILIES[head.kind].lower(head, stream, view, Finish(output, tuple(pending)), layer.extra)


class NpuProgram(Program):
    """A stream on a device, and what it reads and writes in each run."""

    def __init__(
        self, subgraph: Subgraph, layers: Sequence[Layer], binary: Binary, device: NpuDevice, mode: str
    ) -> None:
        self.name = subgraph.name
        self.inputs, self.outputs = subgraph.inputs, subgraph.outputs
        self.binary = binary
        self.device = device
        self.layers = tuple(layers)
        self.mode = mode
        self.bases = Bases(layers, subgraph.inputs)
        self._image = device.dram.allocate(len(binary.image))
        self.upload()
        device.programs.add(self)

    @property
    def image_address(self) -> int:
        """Where the image lies in DRAM."""
        return self._image.address

    def upload(self) -> None:
        """Write the image to the device's memory."""
        at = self.image_address
        self.device.dram.bytes[at : at + len(self.binary.image)] = np.frombuffer(self.binary.image, np.uint8)

    def close(self) -> None:
        self.device.programs.discard(self)
        self.device.dram.free(self._image)

    def run(self, context: RunContext, inputs: Sequence[Any]) -> Sequence[Any]:
        run = _Run(self, context, inputs)
        if context.observed:
            self._draw(context)
        for number, layer in enumerate(self.layers):
            context.begin(layer.node)
            run.bind(layer)
            if context.observed:
                context.measure(**self.counters[number])
            context.end(layer.node)
        return run.submitted()

    def capture(self, context: RunContext, inputs: Sequence[Any]) -> Program | None:
        return NpuReplay(self)

    @cached_property
    def counters(self) -> list[dict[str, float]]:
        """What each layer counts: its share of the time, and what was done in it."""
        timeline = self.binary.timeline
        layers, shares = timeline.layers(), timeline.shares()
        found = []
        for number in range(len(self.layers)):
            layer, cycles = layers.get(number, LayerTime(0)), shares.get(number, 0)
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
    """The same stream; the core is not told of its layers one by one."""

    def __init__(self, program: NpuProgram) -> None:
        self._program = program

    def run(self, context: RunContext, inputs: Sequence[Any]) -> Sequence[Any]:
        run = _Run(self._program, context, inputs)
        for layer in self._program.layers:
            run.bind(layer)
        return run.submitted()


class _Run:
    """The tensors of one run, and its scratchpad."""

    def __init__(self, program: NpuProgram, context: RunContext, inputs: Sequence[Any]) -> None:
        self.program = program
        self.context = context
        self.tensors: dict[ir.Value, DeviceTensor] = {}
        self.bases = [program.image_address] * len(program.bases.sizes)
        self.core = Core(program.binary.machine, program.device.dram)
        for value, tensor in zip(program.inputs, inputs, strict=True):
            self._bind(value, tensor)

    def _bind(self, value: ir.Value, tensor: DeviceTensor) -> None:
        self.tensors[value] = tensor
        if number := self.program.bases.index[value]:
            self.bases[number] = tensor.address

    def bind(self, layer: Layer) -> None:
        """Ask the core for the memory of what a layer writes."""
        for q in layer.outputs:
            if layer.alias:
                source = self.tensors[layer.inputs[0].value]
                tensor = DeviceTensor(source.buffer, source.address, q.shape, source.dtype)
            else:
                tensor = self.context.empty(q.value, q.shape, np.dtype(q.dtype))
            self._bind(q.value, tensor)

    def submitted(self) -> list[DeviceTensor]:
        """Let the stream's thread execute the commands once its turn comes; the outputs to be."""
        stream = self.context.stream
        assert isinstance(stream, NpuStream)
        stream.submit(self._in_order if self.program.mode == "functional" else self._by_clock)
        return [self.tensors[value] for value in self.program.outputs]

    def _in_order(self) -> None:
        """Each command is over before the next one of the stream begins."""
        for command in self.program.binary.commands:
            place, numbers = self._result(command)
            place[...] = numbers

    def _by_clock(self) -> None:
        """Commands begin and end as the timing model says: they read when they begin and write when they end."""
        commands = self.program.binary.commands
        under_way: dict[int, Result] = {}
        for event in events(self.core.machine, commands):
            if event.ends:
                place, numbers = under_way.pop(event.index)
                place[...] = numbers
            else:
                under_way[event.index] = self._result(commands[event.index])

    def _result(self, command: isa.Command) -> Result:
        device = self.program.device
        try:
            device.before_command()
            if isinstance(command.op, isa.Load) and device.faults.due("bit-flip"):
                self.core.flip = 5
            return self.core.result(command.op, self.bases)
        except (DeviceError, ChecksumError, IndexError) as error:
            raise self.program.failed(error, command) from error
