"""Add, Sub and Mul; functions of one tensor by table (8 bits) or by polynomial (16 bits)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from epkit.kernels import table as portable

from .. import isa
from ..machine import Machine
from ..quant import Array, QTensor, dequantise, multiplier, pair, quantise
from ..schedule import Stream
from ..tile import Finish, Ints, Tail, View, boxes, span
from ..unit import Family, Unit, Views, bring, bytes_only, one_scale, require

TILE = 16384
"""Elements of a tile at most: small enough for engines to overlap, large enough to hide the DMA's latency."""

FUNCTIONS = (
    *(
        "Relu",
        "LeakyRelu",
        "Clip",
        "Elu",
        "Selu",
        "Celu",
        "Gelu",
        "Mish",
        "Sigmoid",
        "HardSigmoid",
        "HardSwish",
    ),
    *("Softplus", "Softsign", "Tanh", "Erf", "Exp", "Sqrt", "Abs", "Neg", "Ceil", "Floor", "Round"),
)
"""Functions of one real number; the table is made from the portable kernels."""

SMOOTH = ("Sigmoid", "Tanh", "Gelu", "Erf", "Softplus", "Mish")
"""Those that parabolas follow closely everywhere."""


def tile_elements(stream: Stream, shape: Ints, bytes_each: int) -> int:
    """How many elements a tile may have if each takes so many bytes, double buffered, in half the scratchpad."""
    fitting = (stream.machine.scratchpad // 2 - 4096) // (2 * bytes_each)
    return max(1, min(TILE, fitting, max(1, int(np.prod(shape)))))


# ---- two tensors ----


def check_binary(unit: Unit, machine: Machine) -> Unit:
    """Scales by tensor; shapes broadcast."""
    a, b, y = unit.quantised(0), unit.quantised(1), unit.output
    one_scale(a, b, y)
    name = unit.operator[1].removeprefix("QLinear")
    if name == "Mul":
        factors: dict[str, int] = dict(
            zip(("ma", "shift"), multiplier(float(a.s * b.s) / float(y.s)), strict=True)
        )
    else:
        ma, mb, shift = pair(float(a.s) / float(y.s), float(b.s) / float(y.s))
        factors = {"ma": ma, "mb": -mb if name == "Sub" else mb, "shift": shift}
    return replace(unit, attributes={**unit.attributes, "factors": factors})


def stretched(view: View, shape: Ints) -> View:
    """A view that repeats itself to a shape, as broadcasting does."""
    missing = len(shape) - len(view.shape)
    strides = (0,) * missing + tuple(
        0 if own == 1 else s for own, s in zip(view.shape, view.strides, strict=True)
    )
    return replace(view, shape=shape, strides=strides)


def bring_stretched(
    stream: Stream, view: Views, q: QTensor, whole: Ints, start: Ints, shape: Ints, spad: int
) -> None:
    """Load a box of an operand that broadcasts."""
    if q.constant is not None:
        q = replace(q, constant=np.broadcast_to(q.constant, whole))
        bring(stream, view, q, start, shape, spad)
    else:
        stretched(view(q), whole).box(start, shape).load(stream, spad)


def emit_binary(unit: Unit, stream: Stream, a_at: int, b_at: int, y_at: int, count: int) -> None:
    """Emit Add or Mul on dense tiles."""
    a, b, y = unit.quantised(0), unit.quantised(1), unit.output
    factors: dict[str, int] = unit.attributes["factors"]
    operands = {"a": a_at, "b": b_at, "n": count, "za": a.z, "zb": b.z, "a_type": a.kind, "b_type": b.kind}
    kind = isa.Add if "mb" in factors else isa.Mul
    op = kind(y=y_at, **unit.out, **operands, **factors)
    stream.emit(op, [span(a_at, count * a.size), span(b_at, count * b.size)], [span(y_at, count * y.size)])


def lower_binary(unit: Unit, stream: Stream, view: Views, finish: Finish, extra: int) -> None:
    """Emit it tile by tile."""
    a, b, y = unit.quantised(0), unit.quantised(1), unit.output
    limit = tile_elements(stream, y.shape, a.size + b.size + y.size + extra)
    slots = [stream.slots(limit * q.size) for q in (a, b, y)]
    finish = finish.sized(limit)
    for start, shape in boxes(y.shape, limit):
        a_at, b_at, y_at = (slot.get(object())[0] for slot in slots)
        bring_stretched(stream, view, a, y.shape, start, shape, a_at)
        bring_stretched(stream, view, b, y.shape, start, shape, b_at)
        emit_binary(unit, stream, a_at, b_at, y_at, int(np.prod(shape)))
        finish(stream, start, shape, y_at)


def tail_binary(unit: Unit, stream: Stream, view: Views, via: QTensor, elements: int) -> Tail:
    """Fused: one operand is in the scratchpad, the other is loaded."""
    a, b, y = unit.quantised(0), unit.quantised(1), unit.output
    other = b if a.value is via.value else a
    others, results = stream.slots(elements * other.size), stream.slots(elements * y.size)

    def tail(stream: Stream, start: Ints, shape: Ints, address: int) -> int:
        start, shape = start[: len(y.shape)], shape[: len(y.shape)]
        (other_at, _), (y_at, _) = others.get(object()), results.get(object())
        bring_stretched(stream, view, other, y.shape, start, shape, other_at)
        first, second = (address, other_at) if other is b else (other_at, address)
        emit_binary(unit, stream, first, second, y_at, int(np.prod(shape)))
        return y_at

    return tail


# ---- one tensor ----


def check_function(unit: Unit, machine: Machine) -> Unit:
    """8 bits to 8 or 16 bits by table, 16 bits to 16 bits by polynomial."""
    x, y = unit.quantised(0), unit.output
    one_scale(x, y)
    smooth = x.size == 1 or (unit.kind in SMOOTH and x.dtype == y.dtype == "int16")
    told = f"{unit.kind} from {x.dtype} to {y.dtype}; in 16 bits, from int16 to int16, there are {', '.join(SMOOTH)}"
    require(smooth, "dtype", told, "8 bits", x.dtype)
    if x.size == 1:
        derived: dict[str, Any] = {"table": byte_table(unit, lambda reals: function_of(unit, reals))}
    else:
        derived = {"coefficients": coefficients(unit)}
    return replace(unit, attributes={**unit.attributes, **derived})


def function_of(unit: Unit, reals: Array) -> Array:
    """What the operator makes of real numbers, in the type that it is given them in."""
    domain, name = unit.operator
    name = name.removeprefix("QLinear")
    if name in ("QuantizeLinear", "DequantizeLinear"):
        return reals
    operator = portable().find("", name, max(unit.opset, 20) if domain else unit.opset)
    require(operator is not None, "opset", f"{name} has no meaning in opset {unit.opset}")
    rest = [
        None if item is None else np.asarray(constant_reals(item), reals.dtype) for item in unit.inputs[1:]
    ]
    attributes = {
        key: unit.attributes[key] for key in unit.attributes if key not in ("table", "coefficients")
    }
    with np.errstate(all="ignore"):
        (result,) = operator(np, [reals, *rest], attributes, n_outputs=1, opset=unit.opset)  # type: ignore[misc]
    return np.asarray(result)


def constant_reals(item: Any) -> Any:
    """The numbers of a constant operand, such as the limits of Clip."""
    if isinstance(item, QTensor):
        require(item.constant is not None, "constant", f"{item.value.name} must be known at compile time")
        return dequantise(item.constant, item)
    return item


def byte_table(unit: Unit, function: Callable[[Array], Array]) -> Array:
    """The result for each of the 256 bytes, as the standard has it: float32 between the two roundings."""
    x, y = unit.quantised(0), unit.output
    numbers = np.arange(256, dtype=np.uint8).view(x.dtype)
    values = np.clip(quantise(function(dequantise(numbers, x)), y), *unit.limits)
    return np.asarray(values).astype(y.dtype)


def coefficients(unit: Unit) -> Array:
    """int32[256, 3]: for each high byte the parabola through both ends and the middle of the segment.

    In units of 2^-8 of the result's steps, t from 0 to 256.
    """
    x, y = unit.quantised(0), unit.output
    starts = np.arange(-128, 128) * 256
    points = [starts, starts + 128, starts + 256]
    reals = [(p.astype(np.float64) - x.z) * float(x.s) for p in points]
    f0, f1, f2 = (function_of(unit, r) / float(y.s) for r in reals)
    bend = f0 - 2 * f1 + f2
    # f(u) = f0 + (-3 f0 + 4 f1 - f2) u + 2 bend u^2 with u = t / 256; the instruction divides by 2^24 in all
    found = np.stack([f0 * 2**8, (-3 * f0 + 4 * f1 - f2) * 2**8, 2 * bend * 2**8], axis=1)
    require(np.all(np.abs(found) < 2**31), "attribute", "the function is too steep for the polynomial unit")
    return np.rint(found).astype(np.int32)


def _table_slot(unit: Unit, stream: Stream) -> int:
    data = unit.attributes["table" if "table" in unit.attributes else "coefficients"]
    address = stream.take(data.nbytes)
    stream.constant(data, address)
    return address


def emit_function(unit: Unit, stream: Stream, table_at: int, x_at: int, y_at: int, count: int) -> None:
    """Emit Table or Polynomial on a dense tile."""
    x, y = unit.quantised(0), unit.output
    if "table" in unit.attributes:
        data = unit.attributes["table"]
        op: isa.Operands = isa.Table(x_at, y_at, count, table_at, data.itemsize)
        size = data.itemsize
    else:
        data, size = unit.attributes["coefficients"], y.size
        op = isa.Polynomial(y=y_at, **unit.out, x=x_at, n=count, table=table_at)
    reads = [span(x_at, count * x.size), span(table_at, data.nbytes)]
    stream.emit(op, reads, [span(y_at, count * size)])


def lower_function(unit: Unit, stream: Stream, view: Views, finish: Finish, extra: int) -> None:
    """Emit it tile by tile."""
    x, y = unit.quantised(0), unit.output
    table_at = _table_slot(unit, stream)
    size = y.size
    limit = tile_elements(stream, x.shape, x.size + size + extra)
    xs, ys = stream.slots(limit * x.size), stream.slots(limit * size)
    finish = finish.sized(limit)
    for start, shape in boxes(y.shape, limit):
        (x_at, _), (y_at, _) = xs.get(object()), ys.get(object())
        bring(stream, view, x, start, shape, x_at)
        emit_function(unit, stream, table_at, x_at, y_at, int(np.prod(shape)))
        finish(stream, start, shape, y_at)


def tail_function(unit: Unit, stream: Stream, view: Views, via: QTensor, elements: int) -> Tail:
    """Fused."""
    table_at = _table_slot(unit, stream)
    results = stream.slots(elements * unit.output.size)

    def tail(stream: Stream, start: Ints, shape: Ints, address: int) -> int:
        y_at, _ = results.get(object())
        emit_function(unit, stream, table_at, address, y_at, int(np.prod(shape)))
        return y_at

    return tail


def check_dequantise(unit: Unit, machine: Machine) -> Unit:
    """A table of 256 real numbers: the integer machine copies their bits."""
    x = unit.quantised(0)
    one_scale(x)
    bytes_only(x)
    numbers = np.arange(256, dtype=np.uint8).view(x.dtype)
    return replace(unit, attributes={"table": dequantise(numbers, x)})


BINARY = Family(check_binary, lower_binary, tail=tail_binary)
FUNCTION = Family(check_function, lower_function, tail=tail_function)
FAMILIES = {
    **dict.fromkeys(("Add", "Sub", "Mul"), BINARY),
    **dict.fromkeys((*FUNCTIONS, "QuantizeLinear"), FUNCTION),
    "DequantizeLinear": Family(check_dequantise, lower_function),
}
