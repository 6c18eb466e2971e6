"""Products of float8 codes: by the library with their scales, else dequantised first.

A MatMul whose operands both come from DequantizeLinear, one scale each, becomes one step (see ``fuse_products``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from epkit.backend import Kernel, RunContext, Subgraph, element_type, kernel

from ..launch import launch, stream_of
from ..memory import Tensor
from ..source import FLOAT8, PRELUDE, stored
from .products import finish, multiply, product_shape

if TYPE_CHECKING:
    from ..compile import Step

BLOCK, GRID = 256, 1 << 16


def widened_source(code: str, result: str) -> str:
    """q[i] = p[i] scale."""
    return f"""{PRELUDE}
extern "C" __global__ void widened(long long n, const {code}* __restrict__ p, const float* __restrict__ scale,
    {result}* __restrict__ q) {{
  for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += (long long)gridDim.x * blockDim.x)
    narrow(widen(p[i]) * scale[0], q[i]);
}}
"""


def widened(context: RunContext, codes: Any, scale: Any, dtype: np.dtype[Any]) -> Any:
    """Dense codes as the numbers that they stand for."""
    out = stream_of(context).machine.xp.empty(codes.shape, dtype)
    arguments = [np.int64(out.size), codes, scale, out]
    source = widened_source(stored(codes.dtype), stored(dtype))
    launch(context, source, "widened", min(GRID, -(-out.size // BLOCK)), BLOCK, arguments)
    return out


def single(context: RunContext, scale: Tensor) -> Any:
    """A scale as one float32."""
    if scale.dtype == np.float32:
        return scale.array
    if scale.packed is not None and "single" in scale.packed:
        return scale.packed["single"]
    made = stream_of(context).machine.xp.astype(scale.array, np.float32)
    if scale.packed is not None and not stream_of(context).capturing:
        scale.packed["single"] = made
    return made


def by_columns(context: RunContext, codes: Tensor) -> Any:
    """A matrix of codes with dense columns; of a weight made once."""
    if codes.packed is not None and "columns" in codes.packed:
        return codes.packed["columns"]
    xp = stream_of(context).machine.xp
    made = xp.ascontiguousarray(codes.array.view(np.uint8).T).view(codes.dtype).T
    if codes.packed is not None and not stream_of(context).capturing:
        codes.packed["columns"] = made
    return made


def product_of(precision: str) -> Kernel:
    """The step's kernel; ``precision`` is that of products the library does not have in eight bits."""

    @kernel("MatMul")
    def matmul(
        a: Tensor,
        a_scale: Tensor,
        b: Tensor,
        b_scale: Tensor,
        bias: Tensor | None = None,
        *,
        activation: str = "",
        context: RunContext,
        node: Any,
    ) -> Tensor:
        dtype = a_scale.dtype
        out: Tensor = context.empty(node.outputs[0], product_shape(a.shape, b.shape), dtype)
        if not out.size:
            return out
        stream, summand = stream_of(context), None if bias is None else bias.array
        scales = single(context, a_scale), single(context, b_scale)
        if a.size and a.array.flags.c_contiguous:
            flat, columns = a.array.reshape(-1, a.shape[-1]), b.shape[1]
            target = out.array.reshape(-1, columns)
            if stream.machine.multiply_eight(flat, by_columns(context, b), target, scales):
                finish(context, out.array, columns, summand, activation)
                return out
        left, right = (
            widened(context, item.array, scale, dtype) for item, scale in zip((a, b), scales, strict=True)
        )
        multiply(context, left, right, out.array, precision, summand, activation)
        return out

    return matmul


def before_product(node: ir.Node, readers: Mapping[ir.Value, set[ir.Node]]) -> bool:
    """True for a DequantizeLinear of float8 that a MatMul reads: it does not join what made the codes."""
    if node.op_type != "DequantizeLinear" or element_type(node.inputs[0]) not in FLOAT8:
        return False
    return any(reader.op_type == "MatMul" for reader in readers.get(node.outputs[0], ()))


def fuse_products(
    steps: list[Step], readers: Mapping[ir.Value, set[ir.Node]], subgraph: Subgraph, precision: str
) -> list[Step]:
    """The steps, products of dequantised float8 with a matrix each one step with their dequantisation."""
    makers = {step.outputs[0]: step for step in steps if _dequantises(step)}
    gone: set[int] = set()
    found: list[Step] = []
    for step in steps:
        first = step.nodes[0]
        pair = [makers.get(value) for value in first.inputs if value is not None]
        inner = all(
            value is not None and readers.get(value) == {first} and value not in subgraph.outputs
            for value in first.inputs
        )
        plain = step.kernel is not None and first.op_type == "MatMul" and not first.domain and inner
        if not plain or len(pair) != 2 or not _fits(pair):
            found.append(step)
            continue
        sources = [maker for maker in pair if maker is not None]
        gone.update(map(id, sources))
        reads = tuple(value for maker in sources for value in maker.nodes[0].inputs[:2] if value is not None)
        nodes = (*(maker.nodes[0] for maker in sources), *step.nodes)
        found.append(
            replace(step, nodes=nodes, reads=(*reads, *step.reads[2:]), kernel=product_of(precision))
        )
    return [step for step in found if id(step) not in gone]


def _dequantises(step: Step) -> bool:
    """True for a DequantizeLinear of float8 alone, with one scale and no zero point but zero's."""
    node = step.nodes[0]
    if step.chain is None or len(step.nodes) != 1 or node.op_type != "DequantizeLinear":
        return False
    scale = node.inputs[1]
    one = scale is not None and scale.shape is not None and all(size == 1 for size in scale.shape)
    return one and element_type(node.inputs[0]) in FLOAT8


def _fits(pair: list[Step | None]) -> bool:
    """Both there, of one element type each way, the second a matrix."""
    if any(maker is None for maker in pair):
        return False
    nodes = [maker.nodes[0] for maker in pair if maker is not None]
    shapes = [None if value is None else value.shape for value in (node.inputs[0] for node in nodes)]
    ranks = [0 if shape is None else len(shape) for shape in shapes]
    return ranks[0] >= 2 and ranks[1] == 2 and len({element_type(node.outputs[0]) for node in nodes}) == 1


def sources() -> list[str]:
    """Every source that these kernels launch."""
    return [widened_source(stored(code), t) for code in sorted(FLOAT8) for t in ("float", "f16", "bf16")]
