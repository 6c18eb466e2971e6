"""The provider: options, claims, programs, artifacts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from epkit.backend import (
    Allocator,
    Claim,
    Device,
    Devices,
    MemoryStep,
    Program,
    Provider,
    Refusal,
    Stream,
    Subgraph,
)
from epkit.errors import ArtifactError

from .compile import Bases, Binary, NpuProgram, assemble_layers
from .device import FAULT, Faults, NpuDevice, NpuStream
from .groups import groups
from .layers import Layer, analyse, memory_steps
from .machine import Machine
from .match import QOPERATORS, match
from .memory import NpuAllocator

if TYPE_CHECKING:
    import onnx_ir as ir


FAULTY_SCRATCHPAD = 2048
"""What the fault ``out-of-scratchpad`` leaves, in bytes."""


@dataclass(frozen=True)
class NpuSimOptions:
    """array, lanes, scratchpad_kib, dram_mib, dma_bytes, dma_latency, clock_mhz: the chip (docs/npu_sim).

    mode: "functional" executes in the order of the stream, "cycles" in that of the simulated clock.
    compress_weights: keep weights zero-masked in DRAM where that is shorter.
    fault: a fault to order, such as "bit-flip@20" (else EPKIT_NPU_SIM_FAULT); timeout_ms: of the watchdog.
    driver: the version of the driver; saved programs of another one are refused.
    """

    array: int = 32
    lanes: int = 64
    scratchpad_kib: int = 1024
    dram_mib: int = 256
    dma_bytes: int = 16
    dma_latency: int = 64
    clock_mhz: float = 1000.0
    mode: Literal["functional", "cycles"] = "functional"
    compress_weights: bool = False
    fault: str = ""
    timeout_ms: float = 50.0
    driver: str = "1.0"

    def __post_init__(self) -> None:
        for name in ("array", "lanes", "scratchpad_kib", "dram_mib", "dma_bytes", "clock_mhz"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be positive")
        Faults(self.fault)

    @property
    def machine(self) -> Machine:
        """The chip that the options describe."""
        return Machine(
            self.array, self.lanes, self.scratchpad_kib << 10, self.dram_mib << 20,
            self.dma_bytes, self.dma_latency, self.clock_mhz,
        )  # fmt: skip


class NpuSimProvider(Provider):
    """A simulated NPU: ahead-of-time compilation, fixed shapes, integers only."""

    name = "npu_sim"
    version = "0.1.0"
    Options = NpuSimOptions

    def __init__(self, options: Any = None) -> None:
        super().__init__(options)
        self.machine: Machine = self.options.machine
        faults = Faults(self.options.fault or FAULT.get())
        self.chip = NpuDevice(self.machine, faults, self.options.timeout_ms / 1e3)
        self._analysed: dict[tuple[ir.Node, ...], tuple[Layer, ...]] = {}

    def devices(self) -> Devices:
        found = Device("npu_sim:0", "npu", f"simulated, {self.machine}", self.machine.dram, host_memory=False)
        return Devices((found,))

    def claim(self, graph: Subgraph) -> Iterable[Claim | Refusal]:
        found = match(graph, self.machine)
        for nodes in groups(found.units, graph.nodes):
            yield Claim(nodes)
        for node, why in found.refusals.items():
            yield Refusal(node, why.code, why.reason, why.constraint, why.actual)

    def layers(self, subgraph: Subgraph) -> tuple[Layer, ...]:
        """The layers of a subgraph; the same objects each time."""
        if subgraph.nodes not in self._analysed:
            self._analysed[subgraph.nodes] = analyse(subgraph, self.machine)
        return self._analysed[subgraph.nodes]

    def memory_steps(self, subgraph: Subgraph) -> Sequence[MemoryStep]:
        return memory_steps(self.layers(subgraph))

    def compile(self, subgraph: Subgraph) -> NpuProgram:
        layers = self.layers(subgraph)
        bases = Bases(layers, subgraph.inputs)
        machine = self.machine
        if self.chip.faults.due("out-of-scratchpad"):
            machine = replace(machine, scratchpad=FAULTY_SCRATCHPAD)
        binary = assemble_layers(layers, bases, machine, self.options.compress_weights)
        return NpuProgram(subgraph, layers, binary, self.chip, self.options.mode)

    def allocator(self, device: Device) -> Allocator:
        return NpuAllocator(self.chip.dram, lambda: self.chip.faults.lasting("out-of-dram"))

    def stream(self, device: Device) -> Stream:
        return NpuStream()

    def fingerprint(self, device: Device) -> str:
        return f"driver {self.options.driver}, {self.machine}"

    def save(self, program: Program) -> bytes | None:
        assert isinstance(program, NpuProgram)
        return program.binary.to_bytes()

    def restore(self, saved: bytes, subgraph: Subgraph) -> Program:
        if self.chip.faults.due("artifact-refused"):
            raise ArtifactError(
                f"driver {self.options.driver} refuses this program, which an older one has saved",
                remedy="delete it; it is compiled again",
            )
        layers, binary = self.layers(subgraph), Binary.from_bytes(saved)
        return NpuProgram(subgraph, layers, binary, self.chip, self.options.mode)

    def reset(self) -> None:
        self.chip.reset()

    def knows(self, domain: str, op_type: str) -> bool:
        return (domain, op_type) in QOPERATORS
