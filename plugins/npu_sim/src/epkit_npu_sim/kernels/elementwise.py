"""Add, Sub, Mul and Where; functions of one tensor by table (8 bits) or by polynomial (16 bits)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from epkit.kernels import table as portable

from .. import isa
from ..machine import Machine
from ..quant import Array, QTensor, dequantise, multiplier, pair, quantise
from ..schedule import Span, Stream
from ..tile import Finish, Ints, Tail, boxes, span
from ..unit import Family, Unit, Views, bytes_only, one_scale, require

TILE = 16384
"""Elements of a tile at most: small enough for engines to overlap, large enough to hide the DMA's latency."""

FUNCTIONS = (
    "Relu", "LeakyRelu", "Clip", "Elu", "Selu", "Celu", "Gelu", "Mish", "Sigmoid", "HardSigmoid", "HardSwish",
    "Softplus", "Softsign", "Tanh", "Erf", "Exp", "Sqrt", "Abs", "Neg", "Ceil", "Floor", "Round",
)  # fmt: skip
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


def check_where(unit: Unit, machine: Machine) -> Unit:
    """A condition of bytes; both choices have the numbers of the result."""
    require(unit.quantised(0).dtype == "bool", "dtype", "a condition that is not bool", "bool")
    for q in (unit.quantised(1), unit.quantised(2)):
        one_scale(q, unit.output)
        told = f"{q.value.name} has another scale or zero point than the result"
        require(q.same_numbers(unit.output), "attribute", told, "one scale for all")
    return unit


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


def check_dequantise(unit: Unit, machine: Machine) -> Unit:
    """A table of 256 real numbers: the integer machine copies their bits."""
    x = unit.quantised(0)
    one_scale(x)
    bytes_only(x)
    numbers = np.arange(256, dtype=np.uint8).view(x.dtype)
    return replace(unit, attributes={"table": dequantise(numbers, x)})


# ---- commands ----


def tensors(unit: Unit) -> tuple[QTensor, ...]:
    """The operands that are read element by element."""
    count = 2 if "factors" in unit.attributes else 3 if unit.kind == "Where" else 1
    return tuple(unit.quantised(index) for index in range(count))


def constants(unit: Unit, stream: Stream) -> Span:
    """Bring the unit's table into the scratchpad, if it has one."""
    data = unit.attributes.get("table", unit.attributes.get("coefficients", np.empty(0)))
    address = stream.take(data.nbytes)
    stream.constant(data, address)
    return span(address, data.nbytes)


def emit(unit: Unit, stream: Stream, table: Span, at: Sequence[int], y_at: int, count: int) -> None:
    """Emit the command for dense tiles."""
    operands, y = tensors(unit), unit.output
    a, b = operands[0], operands[-1]
    op: isa.Operands
    if factors := unit.attributes.get("factors"):
        kind: Any = isa.Add if "mb" in factors else isa.Mul
        types = {"za": a.z, "zb": b.z, "a_type": a.kind, "b_type": b.kind}
        op = kind(y=y_at, **unit.out, a=at[0], b=at[1], n=count, **types, **factors)
    elif unit.kind == "Where":
        op = isa.Select(y_at, at[0], at[1], at[2], count, y.size)
    elif "table" in unit.attributes:
        op = isa.Table(at[0], y_at, count, table[0], y.size)
    else:
        op = isa.Polynomial(y=y_at, **unit.out, x=at[0], n=count, table=table[0])
    reads = [span(address, count * q.size) for address, q in zip(at, operands, strict=True)]
    stream.emit(op, [*reads, table], [span(y_at, count * y.size)])


def lower(unit: Unit, stream: Stream, view: Views, finish: Finish, extra: int) -> None:
    """Emit it tile by tile."""
    operands, y = tensors(unit), unit.output
    table = constants(unit, stream)
    limit = tile_elements(stream, y.shape, sum(q.size for q in operands) + y.size + extra)
    slots = [stream.slots(limit * q.size) for q in (*operands, y)]
    finish = finish.sized(limit)
    for start, shape in boxes(y.shape, limit):
        *at, y_at = (slot.get(object())[0] for slot in slots)
        for q, address in zip(operands, at, strict=True):
            view(q).stretched(y.shape).box(start, shape).load(stream, address)
        emit(unit, stream, table, at, y_at, math.prod(shape))
        finish(stream, start, shape, y_at)


def tail(unit: Unit, stream: Stream, view: Views, via: QTensor, elements: int) -> Tail:
    """Fused: one operand is in the scratchpad, others are loaded."""
    operands, y = tensors(unit), unit.output
    table = constants(unit, stream)
    others = [None if q.value is via.value else stream.slots(elements * q.size) for q in operands]
    results = stream.slots(elements * y.size)

    def fused(stream: Stream, start: Ints, shape: Ints, address: int) -> int:
        start, shape = start[: len(y.shape)], shape[: len(y.shape)]
        at = [address if slots is None else slots.get(object())[0] for slots in others]
        for q, slots, other in zip(operands, others, at, strict=True):
            if slots is not None:
                view(q).stretched(y.shape).box(start, shape).load(stream, other)
        y_at, _ = results.get(object())
        emit(unit, stream, table, at, y_at, math.prod(shape))
        return y_at

    return fused


FAMILIES = {
    **dict.fromkeys(("Add", "Sub", "Mul"), Family(check_binary, lower, tail=tail)),
    **dict.fromkeys((*FUNCTIONS, "QuantizeLinear"), Family(check_function, lower, tail=tail)),
    "DequantizeLinear": Family(check_dequantise, lower),
    "Where": Family(check_where, lower, tail=tail),
}
