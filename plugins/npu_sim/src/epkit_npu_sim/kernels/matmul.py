"""MatMul and Gemm on the array; the second operand is stationary."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace
from typing import Any

from .. import isa
from ..machine import Machine
from ..quant import Array, QTensor
from ..schedule import Slots, Stream
from ..tile import Finish, Ints, fields, requantise, span
from ..tiles import Buffers, Product, plan
from ..unit import Family, Unit, Views, require
from .product import bring_parameters, check_operands, parameters


@dataclass(frozen=True, eq=False)
class Shape:
    """a[m, k] times b[k, n], in batches; an operand that is transposed lies as it is."""

    m: int
    k: int
    n: int
    trans_a: bool
    trans_b: bool
    params: Array
    result_bytes: int

    @property
    def product(self) -> Product:
        """For the search of tiles."""

        def sizes(o: int, r: int, d: int) -> tuple[int, int, int]:
            return d * o, r * d, r

        return Product(self.n, self.m, self.k, sizes, result_bytes=self.result_bytes)


def check_matmul(unit: Unit, machine: Machine) -> Unit:
    """Two matrices, or batches of such; scales of the second by column."""
    a, b = unit.quantised(0), unit.quantised(1)
    check_operands(unit, a, b)
    plain = unit.attributes.get("alpha", 1.0) == unit.attributes.get("beta", 1.0) == 1.0
    require(plain, "attribute", "Gemm with factors alpha or beta", "1.0")
    require(len(a.shape) > 1 and len(b.shape) > 1, "shape", "a product with a vector", "rank >= 2")
    ta, tb = bool(unit.attributes.get("transA", 0)), bool(unit.attributes.get("transB", 0))
    m, n, k = a.shape[-1 if ta else -2], b.shape[-2 if tb else -1], a.shape[-2 if ta else -1]
    by_column = b.scale.size == 1 or b.axis % len(b.shape) == len(b.shape) - (2 if tb else 1)
    require(by_column, "attribute", f"scales of the weights along axis {b.axis}", "by column")
    bias = unit.inputs[2] if len(unit.inputs) > 2 else None
    if bias is not None:
        size = tuple(bias.shape)
        row = math.prod(size) in (1, n) and math.prod(size[:-1]) <= 1
        require(row, "shape", "a bias that is no row", f"[{n}]", list(size))
    shape = Shape(m, k, n, ta, tb, parameters(unit, a, b, n), unit.output.size)
    plan(shape.product, machine, 0)
    return replace(unit, attributes={**unit.attributes, "shape": shape})


def lower_matmul(unit: Unit, stream: Stream, view: Views, finish: Finish, extra: int) -> None:
    """Emit a product, matrix by matrix."""
    shape: Shape = unit.attributes["shape"]
    product = shape.product
    tiles = plan(product, stream.machine, extra)
    buffers = Buffers(product, stream, tiles)
    finish = finish.sized(tiles.out * tiles.points)
    a, b = unit.quantised(0), unit.quantised(1)
    for batch in itertools.product(*map(range, unit.output.shape[:-2])):
        here, there = _broadcast(batch, a.shape[:-2]), _broadcast(batch, b.shape[:-2])
        for o, r in tiles.starts(product):
            outs, rows = min(tiles.out, shape.n - o), min(tiles.rows, shape.m - r)
            params, zeros = bring_parameters(stream, buffers, shape.params, o, outs)
            acc, _ = buffers.acc.get(object())
            for d in range(0, shape.k, tiles.depth):
                depth = min(tiles.depth, shape.k - d)
                a_at = _bring(stream, view, a, buffers.x, shape.trans_a, (*here, r, d), (rows, depth))
                b_at = _bring(stream, view, b, buffers.w, shape.trans_b, (*there, d, o), (depth, outs))
                numbers = fields(m=rows, k=depth, n=outs, zeros=zeros, add=int(d > 0))
                _emit(unit, stream, fields(a=a_at, b=b_at, c=acc) | numbers)
            y, _ = buffers.y.get(object())
            requantise(stream, acc, params, rows, outs, 1, {"y": y, **unit.out})
            finish(stream, (*batch, r, o), (*(1 for _ in batch), rows, outs), y)


def _broadcast(index: Ints, shape: Ints) -> Ints:
    """The index into an operand whose leading axes may be 1 or missing."""
    own = index[len(index) - len(shape) :]
    return tuple(0 if count == 1 else i for i, count in zip(own, shape, strict=True))


def _bring(
    stream: Stream, view: Views, q: QTensor, slots: Slots, trans: bool, start: Any, shape: Ints
) -> int:
    """The address of a block of a matrix, loaded if it is not there."""
    address, there = slots.get(start)
    if not there:
        *batch, r, c = start
        start, shape = ((*batch, c, r), shape[::-1]) if trans else (start, shape)
        whole = (*(1 for _ in batch), *shape)
        if q.constant is None:
            view(q).box(start, whole).load(stream, address)
        else:
            stream.constant(
                q.constant[tuple(slice(a, a + n) for a, n in zip(start, whole, strict=True))], address
            )
    return address


def _emit(unit: Unit, stream: Stream, at: dict[str, int]) -> None:
    a, b, shape = unit.quantised(0), unit.quantised(1), unit.attributes["shape"]
    m, k, n = at["m"], at["k"], at["n"]
    steps = fields(a_row=1, a_col=m) if shape.trans_a else fields(a_row=k, a_col=1)
    steps |= fields(b_row=1, b_col=k) if shape.trans_b else fields(b_row=n, b_col=1)
    types = fields(za=a.z, zb=int(b.zero.reshape(-1)[0]), a_type=a.kind, b_type=b.kind)
    reads = [span(at["a"], m * k), span(at["b"], k * n)]
    if at["zeros"] >= 0:
        reads.append(span(at["zeros"], 4 * n))
    stream.emit(isa.MatMul(**at, **steps, **types), reads, [span(at["c"], 4 * m * n)])


MATMUL = Family(check_matmul, lower_matmul, lambda unit: unit.attributes["shape"].product)
FAMILIES = {"MatMul": MATMUL, "Gemm": MATMUL}
