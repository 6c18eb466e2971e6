"""Softmax by a table of exponentials, LayerNormalization in integers: both along rows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from .. import isa
from ..machine import Machine
from ..quant import multiplier
from ..schedule import Stream
from ..tile import Finish, View, boxes, span
from ..unit import Family, Unit, Views, bytes_only, one_scale, require
from .elementwise import constant_reals, tile_elements

ONE = 1 << 23
"""exp(0) in the table of exponentials."""


def check_softmax(unit: Unit, machine: Machine) -> Unit:
    """8-bit in, along one axis."""
    x, y = unit.quantised(0), unit.output
    one_scale(x, y)
    bytes_only(x)
    rank = len(x.shape)
    axis = int(unit.attributes.get("axis", -1 if unit.opset >= 13 or unit.operator[0] else 1)) % max(rank, 1)
    require(unit.opset >= 13 or axis == rank - 1, "opset", "a softmax over several axes (before opset 13)")
    cols = x.shape[axis]
    _check_row(cols, x.size + y.size, 0, machine)
    mult, shift = multiplier(1.0 / float(y.s))
    steps = np.arange(256, dtype=np.float64)
    table = np.rint(ONE * np.exp(-steps * float(x.s))).astype(np.uint32)
    derived = {"along": axis, "table": table, "mult": mult, "shift": shift}
    return replace(unit, attributes={**unit.attributes, **derived})


def _check_row(cols: int, size: int, params: int, machine: Machine) -> None:
    needed = 2 * cols * size + params + 8192
    require(needed <= machine.scratchpad // 2, "shape", f"a row of {cols} needs {needed:,} bytes of scratchpad",
            f"<= {machine.scratchpad // 2}", needed)  # fmt: skip


def last(view: View, axis: int) -> View:
    """The view with an axis moved to the end."""
    return view.permuted([*(a for a in range(len(view.shape)) if a != axis), axis])


def _by_rows(unit: Unit, stream: Stream, source: View, target: View, extra_bytes: int, emit: Any) -> None:
    """Load rows, do something to them, store them."""
    cols, size = source.shape[-1], source.size + target.size
    room = (stream.machine.scratchpad // 2 - extra_bytes - 4096) // (2 * size)
    limit = max(cols, min(tile_elements(stream, source.shape, size), room))
    xs, ys = stream.slots(limit * source.size), stream.slots(limit * target.size)
    for start, shape in boxes(source.shape, limit):
        (x_at, _), (y_at, _) = xs.get(object()), ys.get(object())
        source.box(start, shape).load(stream, x_at)
        count = int(np.prod(shape))
        reads, writes = [span(x_at, count * source.size)], [span(y_at, count * target.size)]
        emit(x_at, y_at, count // cols, reads, writes)
        target.box(start, shape).store(stream, y_at)


def lower_softmax(unit: Unit, stream: Stream, view: Views, finish: Finish, extra: int) -> None:
    """Emit it row block by row block; the DMA engine brings another axis to the end."""
    x, axis = unit.quantised(0), unit.attributes["along"]
    table_at = stream.take(1024)
    stream.constant(unit.attributes["table"], table_at)

    def emit(x_at: int, y_at: int, rows: int, reads: Any, writes: Any) -> None:
        cols = x.shape[axis]
        row = {"x": x_at, "rows": rows, "cols": cols, "table": table_at, "x_type": x.kind}
        op = isa.Softmax(
            y=y_at, **unit.out, **row, mult=unit.attributes["mult"], shift=unit.attributes["shift"]
        )
        stream.emit(op, [*reads, span(table_at, 1024)], writes)

    _by_rows(unit, stream, last(view(x), axis), last(finish.output, axis), 1024, emit)


def check_layer_norm(unit: Unit, machine: Machine) -> Unit:
    """Over the last axes, with constant scale and bias."""
    x, y = unit.quantised(0), unit.output
    one_scale(x, y)
    axis = int(unit.attributes.get("axis", -1)) % len(x.shape)
    cols = int(np.prod(x.shape[axis:]))
    require(cols <= 1 << 14, "shape", f"rows of {cols} elements", "<= 16384", cols)
    _check_row(cols, x.size + y.size, 8 * cols, machine)
    gamma, beta = (_row(unit, index, cols) / float(y.s) for index in (1, 2))
    largest = max(float(np.abs(gamma).max()), float(np.abs(beta).max()), 2.0**-20)
    shift = min(20, 30 - int(np.ceil(np.log2(largest))))
    require(shift >= 0, "attribute", "scale or bias are too large for the result", "< 2^30 steps", largest)
    params = np.rint(np.stack([gamma, beta]) * 2.0**shift).astype(np.int32)
    eps = round(cols * cols * float(unit.attributes.get("epsilon", 1e-5)) / float(x.s) ** 2)
    require(eps < 1 << 60, "attribute", "epsilon is too large for the scale of the input")
    derived = {"cols": cols, "params": params, "shift": shift, "eps": eps, "rows_axis": axis}
    return replace(unit, attributes={**unit.attributes, **derived})


def _row(unit: Unit, index: int, cols: int) -> Any:
    item = unit.inputs[index] if index < len(unit.inputs) else None
    if item is None:
        return np.zeros(cols) if index == 2 else np.ones(cols)
    reals = np.asarray(constant_reals(item), np.float64).reshape(-1)
    return np.broadcast_to(reals, (cols,))


def lower_layer_norm(unit: Unit, stream: Stream, view: Views, finish: Finish, extra: int) -> None:
    """Emit it row block by row block."""
    x, cols, axis = unit.quantised(0), unit.attributes["cols"], unit.attributes["rows_axis"]
    params_at = stream.take(8 * cols)
    stream.constant(unit.attributes["params"], params_at)
    eps = unit.attributes["eps"]

    def emit(x_at: int, y_at: int, rows: int, reads: Any, writes: Any) -> None:
        numbers = {
            "params": params_at,
            "eps_hi": eps >> 31,
            "eps_lo": eps & 0x7FFFFFFF,
            "shift": unit.attributes["shift"],
        }
        op = isa.LayerNorm(y=y_at, **unit.out, x=x_at, rows=rows, cols=cols, x_type=x.kind, **numbers)
        stream.emit(op, [*reads, span(params_at, 8 * cols)], writes)

    source, target = (_flat(v, axis, cols) for v in (view(x), finish.output))
    _by_rows(unit, stream, source, target, 8 * cols, emit)


def _flat(view: View, axis: int, cols: int) -> View:
    """The last axes as one."""
    return replace(view, shape=(*view.shape[:axis], cols), strides=(*view.strides[:axis], view.size))


FAMILIES = {
    "Softmax": Family(check_softmax, lower_softmax),
    "LayerNormalization": Family(check_layer_norm, lower_layer_norm),
}
