"""Softmax by a table of exponentials, LayerNormalization in integers: both along rows."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .. import isa
from ..machine import Machine
from ..quant import multiplier
from ..schedule import Span, Stream
from ..unit import Family, Unit, bytes_only, one_scale, require
from .elementwise import constant_reals
from .rows import Rows, check_rows, lower_rows

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
    mult, shift = multiplier(1.0 / float(y.s))
    table = np.rint(ONE * np.exp(-np.arange(256, dtype=np.float64) * float(x.s))).astype(np.uint32)
    return check_rows(unit, Rows((axis,), True, emit, table, {"mult": mult, "shift": shift}), machine)


def check_layer_norm(unit: Unit, machine: Machine) -> Unit:
    """Over the last axes, with constant scale and bias."""
    x, y = unit.quantised(0), unit.output
    one_scale(x, y)
    axes = range(int(unit.attributes.get("axis", -1)) % len(x.shape), len(x.shape))
    cols = math.prod(x.shape[axis] for axis in axes)
    require(cols <= 1 << 14, "shape", f"rows of {cols} elements", "<= 16384", cols)
    gamma, beta = (_row(unit, index, cols) / float(y.s) for index in (1, 2))
    largest = max(float(np.abs(gamma).max()), float(np.abs(beta).max()), 2.0**-20)
    shift = min(20, 30 - math.ceil(math.log2(largest)))
    require(shift >= 0, "attribute", "scale or bias are too large for the result", "< 2^30 steps", largest)
    params = np.rint(np.stack([gamma, beta]) * 2.0**shift).astype(np.int32)
    eps = round(cols * cols * float(unit.attributes.get("epsilon", 1e-5)) / float(x.s) ** 2)
    require(eps < 1 << 60, "attribute", "epsilon is too large for the scale of the input")
    numbers = {"eps_hi": eps >> 31, "eps_lo": eps & 0x7FFFFFFF, "shift": shift}
    return check_rows(unit, Rows(axes, True, emit, params, numbers), machine)


def _row(unit: Unit, index: int, cols: int) -> Any:
    item = unit.inputs[index] if index < len(unit.inputs) else None
    if item is None:
        return np.zeros(cols) if index == 2 else np.ones(cols)
    reals = np.asarray(constant_reals(item), np.float64).reshape(-1)
    return np.broadcast_to(reals, (cols,))


def emit(unit: Unit, stream: Stream, x: Span, y: Span, table: Span, sums: int, rows: int) -> None:
    """Emit Softmax or LayerNorm."""
    kind: Any = isa.Softmax if unit.kind == "Softmax" else isa.LayerNorm
    sizes = {"rows": rows, "cols": unit.attributes["cols"], "x_type": unit.quantised(0).kind}
    op = kind(x=x[0], y=y[0], table=table[0], **unit.out, **sizes, **unit.attributes["rows"].operands)
    stream.emit(op, [x, table], [y])


FAMILIES = {
    "Softmax": Family(check_softmax, lower_rows),
    "LayerNormalization": Family(check_layer_norm, lower_rows),
}
