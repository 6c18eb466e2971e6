"""float16 on any device: numbers are stored in 16 bits and computed in 32, as every OpenCL device can.

Chains of formulas read and write halves themselves (see ``fuse``), and what only moves elements needs no arithmetic.
Any other kernel is given float32 copies of its inputs, and its float32 results are rounded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnx_ir as ir

from epkit.backend import Kernel, RunContext, element_type

from ..launch import empty, launch
from ..memory import Tensor
from .formulas import formula_of
from .gemm import finish, temporary
from .indexing import rows

HALF, FLOAT = np.dtype(np.float16), np.dtype(np.float32)

CONVERT = """
__kernel void widen(const int n, __global const half* p, const long op, __global float* q, const long oq) {
  const int i = get_global_id(0);
  if (i < n) q[oq + i] = vload_half(op + i, p);
}
__kernel void narrow(const int n, __global const float* p, const long op, __global half* q, const long oq) {
  const int i = get_global_id(0);
  if (i < n) vstore_half_rte(p[op + i], oq + i, q);
}
"""


def with_halves(kernels: Sequence[Kernel]) -> list[Kernel]:
    """The kernels, and what they do for float16."""
    found = [_told(item) if formula_of(item) is not None else item for item in kernels]
    return found + [widened(item) for item in found if _only_wide(item)]


def _told(item: Kernel) -> Kernel:
    types = {name: allowed | ({"float16"} & _also(allowed)) for name, allowed in (item.types or {}).items()}
    return replace(item, types=types)


def _also(allowed: frozenset[str]) -> set[str]:
    return {"float16"} if "float32" in allowed else set()


def _only_wide(item: Kernel) -> bool:
    return any("float32" in allowed and "float16" not in allowed for allowed in (item.types or {}).values())


def widened(item: Kernel) -> Kernel:
    """The kernel for nodes of float16, by way of float32."""

    def run(*tensors: Tensor | None, context: RunContext, node: Any, **attributes: Any) -> Any:
        inner = Wide(context)
        given = [None if t is None else wide(context, t, index) for index, t in enumerate(tensors)]
        if "node" in item.wants:
            attributes["node"] = node
        result = item.function(*given, context=inner, **attributes)
        results = result if isinstance(result, tuple) else (result,)
        ended = tuple(
            narrow(context, tensor, value) for tensor, value in zip(results, node.outputs, strict=False)
        )
        return ended if isinstance(result, tuple) else ended[0]

    allowed = {
        name: (found - {"float32", "float64"}) | {"float16"} if "float32" in found else found
        for name, found in (item.types or {}).items()
    }
    return replace(item, function=run, types=allowed, wants=item.wants | {"context", "node"})


class Wide(RunContext):
    """The run as a kernel sees it that computes results of float16 in float32."""

    def __init__(self, context: RunContext) -> None:
        self.context, self.stream, self.device = context, context.stream, context.device
        self.observed = context.observed
        self._made = 0

    def empty(self, value: ir.Value, shape: Sequence[int], dtype: np.dtype[Any]) -> Tensor:
        if element_type(value) != "float16":
            found: Tensor = self.context.empty(value, shape, dtype)
            return found
        self._made += 1
        like = Tensor(None, 0, (), FLOAT)
        return temporary(self.context, f"wide result {self._made}", tuple(shape), like, keep=False)

    def begin(self, node: ir.Node) -> None:
        self.context.begin(node)

    def end(self, node: ir.Node) -> None:
        self.context.end(node)


def wide(context: RunContext, tensor: Tensor, index: int) -> Tensor:
    """A float32 copy of a tensor of float16, another tensor itself. A weight's copy is kept."""
    if tensor.dtype != HALF:
        return tensor
    kept = tensor.packed
    if kept is not None and "wide" in kept:
        return kept["wide"]
    like = Tensor(None, 0, (), FLOAT)
    out = temporary(context, f"wide input {index}", tensor.shape, like, keep=kept is not None)
    extent, group = rows(tensor.size)
    launch(context, CONVERT, "widen", extent if tensor.size else [0], [tensor.size, tensor, out], group=group)
    if tensor.host is not None:
        out.host = tensor.host.astype(FLOAT)
    if kept is not None:
        finish(context)
        out.packed = {}
        kept["wide"] = out
    return out


def narrow(context: RunContext, tensor: Tensor | None, value: ir.Value) -> Tensor | None:
    """A result as the node declares it."""
    if tensor is None or tensor.dtype != FLOAT or element_type(value) != "float16":
        return tensor
    out = empty(context, value, tensor.shape, HALF)
    extent, group = rows(tensor.size)
    launch(
        context, CONVERT, "narrow", extent if tensor.size else [0], [tensor.size, tensor, out], group=group
    )
    return out
