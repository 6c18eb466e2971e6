"""Operators that only move: the DMA engine does them with strides, a table changes the scale if it must."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from .. import isa
from ..machine import Machine
from ..quant import QTensor, dequantise, quantise
from ..schedule import Stream
from ..tile import Finish, View, boxes, span
from ..unit import Family, Unit, Views, bytes_only, require
from .elementwise import constant_reals, emit, tile_elements

Move = tuple[QTensor, View, QTensor, View]
"""(source, its view, target, its view), views of equal shape."""

SAME_BYTES = ("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity")


def check_move(unit: Unit, machine: Machine) -> Unit:
    """Scales by tensor; 16-bit tensors must keep theirs. Tables for sources whose scale changes."""
    x = unit.quantised(0)
    for q in (*sources(unit), *unit.outputs):
        require(q.scale.size == 1, "constant", f"{q.value.name} has a scale for each channel", "one scale")
    if (check := CHECKS.get(unit.kind)) is not None:
        check(unit)
    tables: dict[tuple[int, int], Any] = {}
    for source in sources(unit):
        for target in unit.outputs:
            if not source.same_numbers(target):
                bytes_only(source, target)  # others must keep their scale
                numbers = np.arange(256, dtype=np.uint8).view(source.dtype)
                values = quantise(dequantise(numbers, source), target)
                tables[id(source), id(target)] = np.asarray(values).astype(target.dtype)
    return replace(unit, attributes={**unit.attributes, "tables": tables, "bytes": x.size})


def sources(unit: Unit) -> Sequence[QTensor]:
    """What is moved: not the indices of Gather, nor the value of Pad."""
    return (
        [q for q in unit.inputs if isinstance(q, QTensor)] if unit.kind == "Concat" else [unit.quantised(0)]
    )


def numbers_at(unit: Unit, index: int) -> Any:
    """A list of integers among the inputs, or None."""
    item = unit.inputs[index] if index < len(unit.inputs) else None
    require(not isinstance(item, QTensor), "constant", f"input {index} must be known at compile time")
    return None if item is None else [int(v) for v in np.asarray(item).reshape(-1)]


def check_slice(unit: Unit) -> None:
    """Constant bounds, forwards."""
    forwards = all(step > 0 for _, _, step in _slices(unit))
    require(forwards, "attribute", "a slice that runs backwards", "steps > 0")


def _slices(unit: Unit) -> list[tuple[int, int, int]]:
    shape = unit.quantised(0).shape
    if unit.opset >= 10:
        starts, ends, axes, steps = (numbers_at(unit, index) for index in (1, 2, 3, 4))
    else:
        starts, ends, axes = (unit.attributes.get(name) for name in ("starts", "ends", "axes"))
        steps = None
    found = [(0, n, 1) for n in shape]
    for at, axis in enumerate(range(len(starts)) if axes is None else axes):
        found[axis] = slice(starts[at], ends[at], 1 if steps is None else steps[at]).indices(shape[axis])
    return found


def check_resize(unit: Unit) -> None:
    """Nearest neighbours, whole factors, each element repeated."""
    x, y, a = unit.quantised(0), unit.output, unit.attributes
    mode = str(a.get("mode", "nearest"))
    require(mode == "nearest", "attribute", f"Resize with mode {mode}", "nearest", mode)
    whole = all(n % m == 0 for n, m in zip(y.shape, x.shape, strict=True))
    require(whole, "shape", f"Resize from {list(x.shape)} to {list(y.shape)}", "whole factors")
    require(unit.opset >= 11, "opset", "Resize before opset 11")
    place = str(a.get("coordinate_transformation_mode", "half_pixel"))
    rounding = str(a.get("nearest_mode", "round_prefer_floor"))
    known = (place, rounding) == ("asymmetric", "floor")
    known = known or (place == "half_pixel" and rounding.startswith("round"))
    told = f"Resize with {place} and {rounding}"
    require(known, "attribute", told, "asymmetric with floor, or half_pixel with round")


def check_depth(unit: Unit) -> None:
    """Pictures."""
    require(len(unit.quantised(0).shape) == 4, "shape", "blocks of a tensor that is no picture", "rank 4")


def check_pad(unit: Unit) -> None:
    """A constant around it; widths known at compile time, nothing cut off."""
    mode = str(unit.attributes.get("mode", "constant"))
    require(mode == "constant", "attribute", f"Pad with mode {mode}", "constant", mode)
    require(unit.opset >= 11, "opset", "Pad before opset 11")
    require(min(map(min, _pads(unit)), default=0) >= 0, "attribute", "a negative padding", ">= 0")
    _pad_value(unit)


def _pads(unit: Unit) -> list[tuple[int, int]]:
    """For each axis, how many elements come before and behind."""
    rank = len(unit.quantised(0).shape)
    widths, axes = numbers_at(unit, 1), numbers_at(unit, 3)
    found = [(0, 0)] * rank
    count = len(widths) // 2
    for at, axis in enumerate(range(rank) if axes is None else axes):
        found[axis] = widths[at], widths[at + count]
    return found


def _pad_value(unit: Unit) -> bytes:
    """The element that padding is made of; where nothing is said, it stands for zero."""
    x, item = unit.quantised(0), unit.inputs[2] if len(unit.inputs) > 2 else None
    if item is None or isinstance(item, QTensor) or np.asarray(item).dtype.kind == "f":
        value = quantise(np.float32(0) if item is None else constant_reals(item), x)
    else:
        value = item
    return np.asarray(value).astype(x.dtype).tobytes()


def check_gather(unit: Unit) -> None:
    """Indices may come at run time."""
    index = unit.quantised(1)
    require(index.dtype in ("int32", "int64"), "dtype", f"indices are {index.dtype}", "int32 or int64")
    same = unit.quantised(0).same_numbers(unit.output)
    require(same, "attribute", "a Gather that changes the scale", "one scale")


CHECKS: Mapping[str, Callable[[Unit], None]] = {
    "Slice": check_slice,
    "Resize": check_resize,
    "DepthToSpace": check_depth,
    "SpaceToDepth": check_depth,
    "Pad": check_pad,
    "Gather": check_gather,
}


# ---- what is to be copied where ----


def moves(unit: Unit, view: Views) -> Iterator[Move]:
    """All copies of an operator."""
    x, y = unit.quantised(0), unit.outputs[0]
    kind, source, target = unit.kind, view(x), view(y)
    if kind == "Transpose":
        yield x, source.permuted(unit.attributes.get("perm") or range(len(x.shape))[::-1]), y, target
    elif kind in ("Concat", "Split"):
        yield from _joined(unit, view)
    elif kind == "Slice":
        bounds = _slices(unit)
        part = source.box([start for start, _, _ in bounds], y.shape)
        strides = tuple(s * step for s, (_, _, step) in zip(source.strides, bounds, strict=True))
        yield x, replace(part, strides=strides), y, target
    elif kind == "Expand":
        yield x, source.stretched(y.shape), y, target
    elif kind == "Pad":
        yield x, source, y, target.box([before for before, _ in _pads(unit)], x.shape)
    elif kind in ("Resize", "Tile"):
        factors = [n // m for n, m in zip(y.shape, x.shape, strict=True)]
        yield _repeated(x, source, y, target, factors, kind == "Resize")
    elif kind in ("DepthToSpace", "SpaceToDepth"):
        yield _depth(unit, x, source, y, target)
    else:
        yield x, source.reshaped(y.shape), y, target


def _joined(unit: Unit, view: Views) -> Iterator[Move]:
    """Parts and the whole, in either direction."""
    join = unit.kind == "Concat"
    whole = unit.output if join else unit.quantised(0)
    axis = int(unit.attributes.get("axis", 0)) % len(whole.shape)
    at = 0
    for part in sources(unit) if join else unit.outputs:
        start = [at if a == axis else 0 for a in range(len(whole.shape))]
        place = view(whole).box(start, part.shape)
        yield (part, view(part), whole, place) if join else (whole, place, part, view(part))
        at += part.shape[axis]


def _repeated(x: QTensor, source: View, y: QTensor, target: View, factors: Sequence[int], each: bool) -> Move:
    """Each axis as two, element and repetition: each element again and again, or the whole again and again."""
    shape, read, write = [], [], []
    for n, factor, s, t in zip(source.shape, factors, source.strides, target.strides, strict=True):
        shape += [n, factor] if each else [factor, n]
        read += [s, 0] if each else [0, s]
        write += [t * factor, t] if each else [t * n, t]
    views = (replace(v, shape=tuple(shape), strides=tuple(s)) for v, s in ((source, read), (target, write)))
    source, target = views
    return x, source, y, target


def _depth(unit: Unit, x: QTensor, source: View, y: QTensor, target: View) -> Move:
    size = int(unit.attributes["blocksize"])
    deep, wide = (source, target) if unit.kind == "DepthToSpace" else (target, source)
    n, c, h, w = deep.shape
    channels = c // size**2
    if str(unit.attributes.get("mode", "DCR")) == "DCR":
        fine = deep.reshaped((n, size, size, channels, h, w)).permuted((0, 3, 4, 1, 5, 2))
    else:
        fine = deep.reshaped((n, channels, size, size, h, w)).permuted((0, 1, 4, 2, 5, 3))
    coarse = wide.reshaped((n, channels, h, size, w, size))
    return (x, fine, y, coarse) if deep is source else (x, coarse, y, fine)


# ---- commands ----


def lower_move(unit: Unit, stream: Stream, view: Views, finish: Finish, extra: int) -> None:
    """Emit the copies, tile by tile."""
    size = unit.attributes["bytes"]
    limit = tile_elements(stream, (1 << 20,), 2 * size)
    xs, ys = stream.slots(limit * size), stream.slots(limit * size)
    tables = {key: span(stream.take(256), 256) for key in unit.attributes["tables"]}
    for key, (address, _) in tables.items():
        stream.constant(unit.attributes["tables"][key], address)
    if unit.kind == "Pad":
        _border(unit, stream, finish.output, limit, xs)
    for x, source, y, target in moves(unit, view):
        table = tables.get((id(x), id(y)))
        through = replace(unit, kind="", inputs=(x,), outputs=(y,), attributes={"table": ()})
        for start, shape in boxes(source.shape, limit):
            at, _ = xs.get(object())
            source.box(start, shape).load(stream, at)
            if table is not None:
                y_at, _ = ys.get(object())
                emit(through, stream, table, [at], y_at, math.prod(shape))
                at = y_at
            target.box(start, shape).store(stream, at)


def _border(unit: Unit, stream: Stream, target: View, limit: int, slots: Any) -> None:
    """Store the padding's element before and behind the input, axis by axis."""
    element = View(0, (1,), (0,), target.size, stream.image.add(_pad_value(unit)))
    inner = list(target.shape)
    start = [0] * len(inner)
    for axis, (before, behind) in enumerate(_pads(unit)):
        for first, count in ((0, before), (target.shape[axis] - behind, behind)):
            shape = (*inner[:axis], count, *inner[axis + 1 :])
            slab = target.box([*start[:axis], first, *start[axis + 1 :]], shape)
            for corner, part in boxes(shape, limit):
                at, _ = slots.get(object())
                element.stretched((math.prod(part),)).load(stream, at)
                slab.box(corner, part).store(stream, at)
        start[axis], inner[axis] = before, inner[axis] - before - behind


def lower_gather(unit: Unit, stream: Stream, view: Views, finish: Finish, extra: int) -> None:
    """Emit it: rows of what lies behind the axis, each from where its index says."""
    x, index = unit.quantised(0), unit.quantised(1)
    axis = int(unit.attributes.get("axis", 0)) % len(x.shape)
    outer, picked, inner = math.prod(x.shape[:axis]), math.prod(index.shape), math.prod(x.shape[axis + 1 :])
    whole, indices = view(x), view(index).reshaped((picked,))
    target = finish.output.reshaped((outer, picked, inner))
    limit = tile_elements(stream, (1 << 20,), x.size + index.size)
    index_slots, slots = stream.slots(limit * index.size), stream.slots(limit * x.size)
    row, plane = inner * x.size, x.shape[axis] * inner * x.size
    for start, shape in boxes((outer, picked, inner), limit):
        (o, i, column), (many, count, part) = start, shape
        (at, there), (y_at, _) = index_slots.get((i, count)), slots.get(object())
        if not there:
            indices.box((i,), (count,)).load(stream, at)
        dram, nbytes = whole.offset + o * plane + column * x.size, part * x.size
        op = isa.Gather(
            whole.base, dram, y_at, nbytes, many, plane, row, at, index.size, count, x.shape[axis]
        )
        source = (whole.base, span(dram, many * plane))
        stream.emit(op, [span(at, count * index.size)], [span(y_at, many * count * nbytes)], source)
        target.box(start, shape).store(stream, y_at)


MOVE = Family(check_move, lower_move)
GATHER = Family(check_move, lower_gather)
FAMILIES = {
    **dict.fromkeys(
        (*SAME_BYTES, "Transpose", "Concat", "Split", "Slice", "Expand", "Resize", "Tile", "Pad",
         "DepthToSpace", "SpaceToDepth"), MOVE),
    "Gather": GATHER,
}  # fmt: skip
