"""Pools over windows, and reductions over whole axes: sums and maxima on the vector unit."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from typing import Any

import numpy as np

from .. import isa
from ..machine import Machine
from ..quant import Array, Unsupported, multiplier
from ..schedule import Span, Stream
from ..tile import Finish, fields, requantise, span
from ..tiles import halves
from ..unit import Family, Unit, Views, bytes_only, one_scale, require
from .rows import Rows, check_rows, lower_rows
from .window import Window, window_of


def check_pool(unit: Unit, machine: Machine) -> Unit:
    """Windows over one or two spatial axes; a maximum keeps its numbers."""
    x, y, attributes = unit.quantised(0), unit.output, unit.attributes
    _check_numbers(unit)
    require(attributes.get("storage_order", 0) == 0, "attribute", "storage_order")
    window = window_of(unit, attributes["kernel_shape"])
    found = _result_shape(window, bool(attributes.get("ceil_mode", 0)))
    told = f"its result was inferred as {list(window.y[2:])}, and its windows give {found}"
    require(found == list(window.y[2:]), "shape", told)
    derived: dict[str, Any] = {"window": window}
    if "Average" in unit.kind:
        counts = _counts(window, bool(attributes.get("count_include_pad", 0)))
        factors = {int(n): multiplier(float(x.s) / float(y.s) / int(n)) for n in np.unique(counts)}
        derived["params"] = np.array([(0, *factors[int(n)]) for n in counts.reshape(-1)], np.int32).T
    _rows(window, machine, 0)
    return replace(unit, attributes={**attributes, **derived})


def _check_numbers(unit: Unit) -> None:
    x, y = unit.quantised(0), unit.output
    one_scale(x, y)
    bytes_only(x, y)
    if "Max" in unit.kind:
        require(x.same_numbers(y), "attribute", "a maximum that changes the scale or the zero point")
        require(unit.limits == y.limits(), "attribute", "a maximum with an activation merged into it")


def _result_shape(window: Window, ceiling: bool) -> list[int]:
    """Windows by the standard's rule: with ceil_mode, one that begins behind the last element does not count."""
    found = []
    for axis in range(2):
        size, begin, step = window.x[2 + axis], window.begin[axis], window.strides[axis]
        room = size + begin + window.end[axis] - (window.kernel[axis] - 1) * window.dilations[axis] - 1
        count = (-(-room // step) if ceiling else room // step) + 1
        found.append(count - (ceiling and (count - 1) * step >= size + begin))
    return found


def _counts(window: Window, with_pads: bool) -> Array:
    """How many elements each window [ho, wo] averages over."""
    per_axis = []
    for axis in range(2):
        size, begin = window.x[2 + axis], window.begin[axis]
        low, high = (-begin, size + window.end[axis]) if with_pads else (0, size)
        starts = np.arange(window.y[2 + axis]) * window.strides[axis] - begin
        places = starts[:, None] + np.arange(window.kernel[axis]) * window.dilations[axis]
        per_axis.append(((places >= low) & (places < high)).sum(axis=1))
    return np.asarray(np.maximum(1, per_axis[0][:, None] * per_axis[1][None, :]))


def _rows(window: Window, machine: Machine, extra: int) -> tuple[int, int]:
    """Channels and output rows of a tile: whole planes if they fit, else single channels in rows."""
    (_, channels, height, width), (_, _, ho, wo) = window.x, window.y

    def needs(count: int, rows: int) -> int:
        parts = min(height, window.reach(rows)) * width + rows * wo * (5 + extra)
        return int(2 * (count * parts + 12 * rows * wo) + 1024)

    for part in (2, 1):
        for count, rows in itertools.product(halves(min(channels, 64)), halves(ho)):
            if needs(count, rows) <= machine.scratchpad // part and (count == 1 or rows == ho):
                return count, rows
    told = f"a row of a channel needs {needs(1, 1):,} bytes of scratchpad, the machine has {machine.scratchpad:,}"
    raise Unsupported("shape", told, f"<= {machine.scratchpad}", str(needs(1, 1)))


def lower_pool(unit: Unit, stream: Stream, view: Views, finish: Finish, extra: int) -> None:
    """Emit it, channel block by channel block."""
    x, window = unit.quantised(0), unit.attributes["window"]
    (images, channels, height, width), (_, _, ho, wo) = window.x, window.y
    count, rows = _rows(window, stream.machine, extra)
    xs = stream.slots(count * min(height, window.reach(rows)) * width)
    accs, ys = stream.slots(count * rows * wo * 4), stream.slots(count * rows * wo)
    params = stream.slots(12 * rows * wo)
    source = view(x).padded(window.x)
    finish = replace(finish, output=finish.output.padded(window.y))
    for image, c, r in itertools.product(range(images), range(0, channels, count), range(0, ho, rows)):
        n, tall = min(count, channels - c), min(rows, ho - r)
        first, high, top = window.under(r, tall)
        (x_at, _), (y_at, _) = xs.get(object()), ys.get(object())
        source.box((image, c, first, 0), (1, n, high, width)).load(stream, x_at)
        at = fields(x=x_at, channels=n, height=high, top=top, ho=tall, zx=x.z, x_type=x.kind)
        reads = [span(x_at, n * high * width)]
        if "params" not in unit.attributes:
            stream.emit(isa.PoolMax(y=y_at, **at, **window.operands), reads, [span(y_at, n * tall * wo)])
        else:
            acc, _ = accs.get(object())
            stream.emit(isa.PoolSum(y=acc, **at, **window.operands), reads, [span(acc, 4 * n * tall * wo)])
            block, there = params.get(r)
            if not there:
                stream.constant(unit.attributes["params"][:, r * wo : (r + tall) * wo], block)
            requantise(stream, acc, block, n, tall * wo, 1, {"y": y_at, **unit.out})
        finish(stream, (image, c, r, 0), (1, n, tall, wo), y_at)


# ---- whole axes ----


def check_reduction(unit: Unit, machine: Machine) -> Unit:
    """Any axes, known at compile time."""
    x, y = unit.quantised(0), unit.output
    _check_numbers(unit)
    rank = len(x.shape)
    if unit.kind.startswith("Global"):
        axes: Any = range(2, rank)
    else:
        given = unit.inputs[1] if len(unit.inputs) > 1 else unit.attributes.get("axes")
        none = given is None and not unit.attributes.get("noop_with_empty_axes", 0)
        require(given is not None or none, "attribute", "noop_with_empty_axes")
        axes = range(rank) if given is None else [int(a) % rank for a in np.asarray(given).reshape(-1)]
    if "Max" in unit.kind:
        return check_rows(unit, Rows(sorted(axes), False, emit_reduction), machine)
    divisor = 1 if unit.kind == "ReduceSum" else math.prod(x.shape[axis] for axis in axes)
    params = np.array([0, *multiplier(float(x.s) / float(y.s) / divisor)], np.int32)
    return check_rows(unit, Rows(sorted(axes), False, emit_reduction, params), machine)


def emit_reduction(unit: Unit, stream: Stream, x: Span, y: Span, params: Span, sums: int, rows: int) -> None:
    """A row is one window, as wide as it is."""
    q, cols = unit.quantised(0), unit.attributes["cols"]
    window = fields(
        x=x[0],
        channels=rows,
        height=1,
        width=cols,
        kh=1,
        kw=cols,
        sh=1,
        sw=1,
        dh=1,
        dw=1,
        top=0,
        left=0,
        ho=1,
    ) | fields(wo=1, zx=q.z, x_type=q.kind)
    if "Max" in unit.kind:
        stream.emit(isa.PoolMax(y=y[0], **window), [x], [y])
    else:
        stream.emit(isa.PoolSum(y=sums, **window), [x], [span(sums, 4 * rows)])
        requantise(stream, sums, params[0], rows, 1, 2, {"y": y[0], **unit.out})


POOL = Family(check_pool, lower_pool)
REDUCTION = Family(check_reduction, lower_rows)
FAMILIES = {
    **dict.fromkeys(("MaxPool", "AveragePool"), POOL),
    **dict.fromkeys(
        ("GlobalAveragePool", "GlobalMaxPool", "ReduceMean", "ReduceSum", "ReduceMax"), REDUCTION
    ),
}
