"""Operators along rows: each row is brought together by the DMA engine, and becomes a row or one number."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ..machine import Machine
from ..quant import Array
from ..schedule import Span, Stream
from ..tile import Finish, boxes, span
from ..unit import Unit, Views, require
from .elementwise import TILE

Emit = Callable[[Unit, Stream, Span, Span, Span, int, int], None]
"""Unit, stream, spans of the rows, of their results and of the constants, address of the sums, number of rows."""


@dataclass(frozen=True, eq=False)
class Rows:
    """How a unit works along rows.

    Attributes:
        axes: of the input, those of a row; in the given order, behind the others.
        whole: a row becomes a row, else one number.
        emit: emits the commands for some rows.
        constants: what they need in the scratchpad.
        operands: of the command, besides addresses.
    """

    axes: Sequence[int]
    whole: bool
    emit: Emit
    constants: Array = field(default_factory=lambda: np.empty(0))
    operands: dict[str, int] = field(default_factory=dict)

    def at_once(self, unit: Unit, machine: Machine) -> int:
        """Rows of a tile, double buffered in half the scratchpad; 0 if not even one fits."""
        x, y = unit.quantised(0), unit.output
        cols = math.prod(x.shape[axis] for axis in self.axes)
        each = cols * x.size + (cols * y.size if self.whole else y.size + 4)
        return min(
            max(1, TILE // cols), (machine.scratchpad // 2 - self.constants.nbytes - 4096) // (2 * each)
        )


def check_rows(unit: Unit, rows: Rows, machine: Machine) -> Unit:
    """The unit, if a row of it fits."""
    cols = math.prod(unit.quantised(0).shape[axis] for axis in rows.axes)
    told = f"a row of {cols} does not fit into the {machine.scratchpad:,} bytes of the scratchpad"
    require(rows.at_once(unit, machine) > 0, "shape", told, f"<= {machine.scratchpad // 2}", cols)
    return replace(unit, attributes={**unit.attributes, "rows": rows, "cols": cols})


def lower_rows(unit: Unit, stream: Stream, view: Views, finish: Finish, extra: int) -> None:
    """Emit it, some rows at a time."""
    rows: Rows = unit.attributes["rows"]
    x, y, cols = unit.quantised(0), unit.output, unit.attributes["cols"]
    kept = [axis for axis in range(len(x.shape)) if axis not in rows.axes]
    order, outer = [*kept, *rows.axes], tuple(x.shape[axis] for axis in kept)
    source = view(x).permuted(order)
    target = finish.output.permuted(order) if rows.whole else finish.output.reshaped(outer)
    constants = span(stream.take(rows.constants.nbytes), rows.constants.nbytes)
    stream.constant(rows.constants, constants[0])
    limit = min(rows.at_once(unit, stream.machine), max(1, math.prod(outer)))
    out = y.size * (cols if rows.whole else 1)
    xs, ys, sums = stream.slots(limit * cols * x.size), stream.slots(limit * out), stream.slots(4 * limit)
    for start, shape in boxes(outer, limit):
        count = math.prod(shape)
        x_at, y_at, sums_at = (slots.get(object())[0] for slots in (xs, ys, sums))
        inner = source.shape[len(kept) :]
        source.box((*start, *(0 for _ in inner)), (*shape, *inner)).load(stream, x_at)
        at = span(x_at, count * cols * x.size), span(y_at, count * out), constants
        rows.emit(unit, stream, *at, sums_at, count)
        inner = inner if rows.whole else ()
        target.box((*start, *(0 for _ in inner)), (*shape, *inner)).store(stream, y_at)
