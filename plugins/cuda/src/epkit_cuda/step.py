"""A step of a program: a chain of formulas, or a kernel call."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from epkit.backend import Kernel, MemoryStep

from .fuse import Chain
from .kernels.portable import FUNCTIONS as PORTABLE

CACHING = ("Attention", "MultiHeadAttention")


@dataclass(frozen=True)
class Step:
    """A chain, or one node (a product: with what follows it).

    Attributes:
        nodes: what it computes; the last one names it.
        reads: values that it needs.
        chain: None for a kernel call.
        kernel: of the first node, if it is no chain; the others are then a product's bias and activation.
        activation: of a product.
    """

    nodes: tuple[ir.Node, ...]
    reads: tuple[ir.Value, ...]
    chain: Chain | None
    kernel: Kernel | None
    activation: str = ""

    @property
    def outputs(self) -> tuple[ir.Value, ...]:
        """What it makes."""
        return (self.chain.output,) if self.chain is not None else tuple(self.nodes[-1].outputs)

    def memory(self) -> MemoryStep:
        """The step as the memory planner sees it."""
        named = tuple(value for value in self.outputs if value.name)
        views = () if self.kernel is None else tuple(filter(self._may_be_view, named))
        return MemoryStep(self.nodes[-1], self.reads, named, views)

    def _may_be_view(self, value: ir.Value) -> bool:
        """Of what the step reads: results of portable operators; keys and values of an attention without a past."""
        assert self.kernel is not None
        cache = self.kernel.op_type in CACHING and value is not self.outputs[0]
        return cache or self.kernel.function in PORTABLE
