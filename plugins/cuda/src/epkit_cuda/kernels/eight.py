"""Products of float8 codes: by the library with their scales, else dequantised first.

A MatMul whose operands both come from DequantizeLinear, one scale each or one for each column of the second, becomes
one step (see ``fuse_products``). The library takes one scale: those of columns are factors of its sums.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from epkit.backend import Kernel, RunContext, Subgraph, element_type, kernel

from ..launch import launch, stream_of
from ..memory import Tensor
from ..source import FLOAT8, PRELUDE, stored
from .gemv import ACTIVATIONS
from .products import finish, multiply, product_shape

if TYPE_CHECKING:
    from ..step import Step

BLOCK, GRID = 256, 1 << 16


def widened_source(code: str, result: str) -> str:
    """q[i] = p[i] scale[i % columns]."""
    return f"""{PRELUDE}
extern "C" __global__ void widened(long long n, int columns, const {code}* __restrict__ p,
    const float* __restrict__ scale, {result}* __restrict__ q) {{
  for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += (long long)gridDim.x * blockDim.x)
    narrow(widen(p[i]) * scale[i % columns], q[i]);
}}
"""


def widened(context: RunContext, codes: Any, scale: Any, dtype: np.dtype[Any]) -> Any:
    """Dense codes as the numbers that they stand for."""
    out = stream_of(context).machine.xp.empty(codes.shape, dtype)
    arguments = [np.int64(out.size), np.int32(max(1, scale.size)), codes, scale, out]
    source = widened_source(stored(codes.dtype), stored(dtype))
    launch(context, source, "widened", min(GRID, -(-out.size // BLOCK)), BLOCK, arguments)
    return out


def scaled_source(result: str, *, bias: bool, activation: str) -> str:
    """q[i] = activation(p[i] scale[i % columns] + bias[i % columns])."""
    summand = " + widen(bias[i % columns])" if bias else ""
    return f"""{PRELUDE}
extern "C" __global__ void scaled(long long n, int columns, const float* __restrict__ p,
    const float* __restrict__ scale, const {result}* __restrict__ bias, {result}* __restrict__ q) {{
  for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += (long long)gridDim.x * blockDim.x) {{
    const float x = p[i] * scale[i % columns]{summand};
    narrow({ACTIVATIONS[activation].format("x")}, q[i]);
  }}
}}
"""


def by_scales(
    context: RunContext,
    operands: tuple[Any, Any],
    out: Any,
    scales: tuple[Any, Any, Any],
    bias: Any,
    activation: str,
) -> bool:
    """out = activation((a scale_a)(b scales of its columns) + bias); False where the library has no such product.

    Args:
        scales: of a, 1 for the library, and those of the columns.
    """
    machine = stream_of(context).machine
    sums = machine.xp.empty(out.shape, np.float32)
    if not machine.multiply_eight(*operands, sums, scales[:2]):
        return False
    source = scaled_source(stored(out.dtype), bias=bias is not None, activation=activation)
    sizes = [np.int64(out.size), np.int32(out.shape[-1])]
    arguments = [*sizes, sums, scales[2], out if bias is None else bias, out]
    launch(context, source, "scaled", min(GRID, -(-out.size // BLOCK)), BLOCK, arguments)
    return True


def one(context: RunContext, scale: Tensor) -> Any:
    """The factor 1 on the device; kept beside a constant scale."""
    if scale.packed is not None and "one" in scale.packed:
        return scale.packed["one"]
    made = stream_of(context).machine.xp.ones(1, np.float32)
    if scale.packed is not None and not stream_of(context).capturing:
        scale.packed["one"] = made
    return made


def single(context: RunContext, scale: Tensor) -> Any:
    """A scale, or several, as float32."""
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
            operands = flat, by_columns(context, b)
            if b_scale.size > 1:
                factors = scales[0], one(context, b_scale), scales[1]
                if by_scales(context, operands, target, factors, summand, activation):
                    return out
            elif stream.machine.multiply_eight(*operands, target, scales):
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
    """True for a DequantizeLinear of float8 alone, of known scales and no zero point but zero's."""
    node = step.nodes[0]
    if step.chain is None or len(step.nodes) != 1 or node.op_type != "DequantizeLinear":
        return False
    scale = node.inputs[1]
    return scale is not None and scale.shape is not None and element_type(node.inputs[0]) in FLOAT8


def _scales(node: ir.Node) -> int:
    """How many there are."""
    scale = node.inputs[1]
    assert scale is not None and scale.shape is not None
    return math.prod(size if isinstance(size, int) else 2 for size in scale.shape)


def _fits(pair: list[Step | None]) -> bool:
    """Both there, of one element type each way, the second a matrix; a chain's several scales are of its columns."""
    if any(maker is None for maker in pair):
        return False
    nodes = [maker.nodes[0] for maker in pair if maker is not None]
    shapes = [None if value is None else value.shape for value in (node.inputs[0] for node in nodes)]
    ranks = [0 if shape is None else len(shape) for shape in shapes]
    alike = len({element_type(node.outputs[0]) for node in nodes}) == 1
    return _scales(nodes[0]) == 1 and ranks[0] >= 2 and ranks[1] == 2 and alike


def sources() -> list[str]:
    """Every source that these kernels launch."""
    kinds = ("float", "f16", "bf16")
    found = [widened_source(stored(code), t) for code in sorted(FLOAT8) for t in kinds]
    each = [(t, bias, activation) for t in kinds for bias in (False, True) for activation in ACTIVATIONS]
    return [*found, *(scaled_source(t, bias=bias, activation=activation) for t, bias, activation in each)]
