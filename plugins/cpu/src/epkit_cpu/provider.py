"""The provider: kernels in order of preference."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from epkit.backend import (
    Claim,
    CustomOperator,
    Device,
    Devices,
    Kernel,
    KernelProvider,
    KernelTable,
    MemoryStep,
    Program,
    Refusal,
    Subgraph,
    custom_kernels,
    portable_kernels,
)

from .device import find_devices
from .image import FORMAT, program_of
from .native import WINOGRAD, bf16_form, chosen_isa, cpus, engine_digest
from .prepared import Prepared

if TYPE_CHECKING:
    import onnx_ir as ir

PRECISIONS = ("fp32", "bf16")
MOST_THREADS = 256
"""More, the pool does not make."""


@dataclass(frozen=True)
class CpuOptions:
    """Options of the provider.

    Attributes:
        threads: how many a run may use; 0: as many CPUs as the process may use.
        precision: "fp32", or "bf16": products and convolutions with constant weights round both factors to bfloat16,
            which keeps about three digits, where the CPU is faster with them: Zen 4 and later by dot products, CPUs
            with AVX512-FP16 by products of float16 whose sums of 32 go to float32. Others, and small products,
            compute in float32.
    """

    threads: int = 0
    precision: str = "fp32"

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision is {self.precision!r}, expected one of {', '.join(PRECISIONS)}")
        if not 0 <= self.threads <= 1024:
            raise ValueError(f"threads is {self.threads}, expected 0 to 1024")


class CpuProvider(KernelProvider):
    """Runs every operator that has a portable meaning; the others through their function bodies.

    With the native library, what it has kernels for runs in one native loop. The lowerings are imported when a model is
    compiled; a saved program needs none.
    """

    name = "cpu"
    version = "0.1.0"
    Options = CpuOptions
    maps_saved = True

    def __init__(self, options: object = None) -> None:
        super().__init__(options)
        self._custom: tuple[CustomOperator, ...] = ()

    def devices(self) -> Devices:
        return find_devices()

    def add_operators(self, operators: Sequence[CustomOperator]) -> None:
        self._custom = tuple(operators)

    def knows(self, domain: str, op_type: str) -> bool:
        """Beside the engine, a portable function is no gain: what it would fuse, the engine runs faster in parts."""
        from .lower import is_native

        return super().knows(domain, op_type) and (not chosen_isa() or is_native(domain, op_type))

    def claim(self, graph: Subgraph) -> Iterable[Claim | Refusal]:
        """The engine runs control flow whole, of whose bodies it takes every node."""
        from .control import is_control_flow, refusal

        whole, table = bool(chosen_isa()), self.table
        for node in graph.nodes:
            if whole and is_control_flow(node):
                yield refusal(node, graph, table) or Claim((node,))
            elif whole and _gives_weights(node):
                yield Refusal(
                    node, "fused", "the engine has no Attention that gives its weights, but the parts"
                )
            else:
                yield table.refusal(node, graph) or Claim((node,))

    def memory_steps(self, subgraph: Subgraph) -> Sequence[MemoryStep]:
        if chosen_isa():  # the native program manages its memory itself
            return (MemoryStep(None, subgraph.inputs, (), subgraph.outputs),)
        return super().memory_steps(subgraph)

    def fingerprint(self, device: Device) -> str:
        isa = chosen_isa()
        form = bf16_form(isa) if isa and self.options.precision == "bf16" else ""
        return f"{isa} {engine_digest()} {form} {WINOGRAD.get()} {FORMAT}"

    def compile(self, subgraph: Subgraph) -> Program:
        return self._compiled(subgraph, Prepared())

    def save(self, program: Program) -> Sequence[bytes | memoryview]:
        """The weights as the kernels read them, and the steps."""
        from .compile import NativeProgram

        return program.pieces() if isinstance(program, NativeProgram) else (b"",)

    def restore(self, saved: memoryview, subgraph: Subgraph) -> Program:
        return self._compiled(subgraph, Prepared(saved))

    def revive(self, saved: memoryview, weights: Mapping[str, Any]) -> Program | None:
        prepared, isa = Prepared(saved), chosen_isa()
        if prepared.image is None or not isa:
            return None
        return program_of(prepared.image, prepared, weights, isa, self._threads())

    def _threads(self) -> int:
        return min(self.options.threads or cpus(), MOST_THREADS)

    def _compiled(self, subgraph: Subgraph, prepared: Prepared) -> Program:
        if not (isa := chosen_isa()):
            return super().compile(subgraph)
        from .compile import NativeProgram

        return NativeProgram(
            subgraph,
            lambda node: self.kernel_for(node, subgraph),
            isa,
            self._threads(),
            self.options.precision,
            prepared,
        )

    @cached_property
    def table(self) -> KernelTable:
        return _table(self._custom)


def _gives_weights(node: ir.Node) -> bool:
    """True for a fused Attention whose weights are a result: as a portable function it is slower than its parts."""
    named = len(node.outputs) > 3 and bool(node.outputs[3].name)
    return named and bool(node.overload) and (node.domain, node.op_type) == ("", "Attention")


@lru_cache(maxsize=8)
def _table(custom: tuple[CustomOperator, ...]) -> KernelTable:
    """The kernels of the standard's operators and of custom ones, the same for every session that has these."""
    return KernelTable((*custom_kernels(np, custom), *standard_kernels()))


@cache
def standard_kernels() -> tuple[Kernel, ...]:
    """The kernels of the standard's operators; made once for the process."""
    from .kernels import KERNELS

    return (*KERNELS, *portable_kernels(np))
