"""Operators that only move: the DMA engine does them with strides, a table changes the scale if it must."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from ..machine import Machine
from ..quant import QTensor, dequantise, quantise
from ..schedule import Stream
from ..tile import Finish, View, boxes, row_major
from ..unit import Family, Unit, Views, bytes_only, require
from .elementwise import emit_function, stretched, tile_elements

Moves = Iterator[tuple[QTensor, View, QTensor, View]]
"""(source, its view, target, its view), views of equal shape."""

SAME_BYTES = ("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity")


def check_move(unit: Unit, machine: Machine) -> Unit:
    """Scales by tensor; 16-bit tensors must keep theirs. Tables for sources whose scale changes."""
    x = unit.quantised(0)
    for q in (*(i for i in unit.inputs if isinstance(i, QTensor)), *unit.outputs):
        require(q.scale.size == 1, "constant", f"{q.value.name} has a scale for each channel", "one scale")
        require(q.constant is None, "constant", "a constant that is moved at run time; fold it at load time")
    check = CHECKS.get(unit.kind)
    if check is not None:
        check(unit)
    tables: dict[tuple[int, int], Any] = {}
    for source in (i for i in unit.inputs if isinstance(i, QTensor)):
        for target in unit.outputs:
            if not source.same_numbers(target):
                bytes_only(source, target)  # others must keep their scale
                numbers = np.arange(256, dtype=np.uint8).view(source.dtype)
                values = quantise(dequantise(numbers, source), target)
                tables[id(source), id(target)] = np.asarray(values).astype(target.dtype)
    return replace(unit, attributes={**unit.attributes, "tables": tables, "bytes": x.size})


def constant_input(unit: Unit, index: int) -> Any:
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
        starts, ends, axes, steps = (constant_input(unit, index) for index in (1, 2, 3, 4))
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
    place, rounding = (
        str(a.get("coordinate_transformation_mode", "half_pixel")),
        str(a.get("nearest_mode", "round_prefer_floor")),
    )
    repeats = (place, rounding) == ("asymmetric", "floor") or (
        place == "half_pixel" and rounding.startswith("round")
    )
    known = "asymmetric with floor, or half_pixel with round"
    require(repeats, "attribute", f"Resize with {place} and {rounding}", known)


def check_depth(unit: Unit) -> None:
    """Pictures."""
    require(len(unit.quantised(0).shape) == 4, "shape", "blocks of a tensor that is no picture", "rank 4")


CHECKS: dict[str, Callable[[Unit], None]] = {
    "Slice": check_slice,
    "Resize": check_resize,
    "DepthToSpace": check_depth,
    "SpaceToDepth": check_depth,
}


def permuted(view: View, order: Any) -> View:
    """Axes in another order."""
    return replace(
        view, shape=tuple(view.shape[a] for a in order), strides=tuple(view.strides[a] for a in order)
    )


def moves(unit: Unit, view: Views) -> Moves:
    """What is to be copied where."""
    x, y = unit.quantised(0), unit.outputs[0]
    kind, source, target = unit.kind, view(x), view(y)
    if kind == "Transpose":
        order = unit.attributes.get("perm") or tuple(range(len(x.shape)))[::-1]
        yield x, permuted(source, order), y, target
    elif kind == "Concat":
        yield from _concat(unit, view)
    elif kind == "Split":
        yield from _split(unit, view)
    elif kind == "Slice":
        bounds = _slices(unit)
        part = source.box([start for start, _, _ in bounds], y.shape)
        strides = tuple(s * step for s, (_, _, step) in zip(source.strides, bounds, strict=True))
        yield x, replace(part, strides=strides), y, target
    elif kind == "Expand":
        yield x, stretched(source, y.shape), y, target
    elif kind == "Resize":
        yield x, _repeated(source, y.shape), y, _blocks(target, x.shape)
    elif kind in ("DepthToSpace", "SpaceToDepth"):
        yield _depth(unit, x, source, y, target)
    else:
        yield x, replace(source, shape=target.shape, strides=row_major(target.shape, x.size)), y, target


def _concat(unit: Unit, view: Views) -> Moves:
    y, axis = unit.output, int(unit.attributes["axis"]) % len(unit.output.shape)
    at = 0
    for x in unit.inputs:
        assert isinstance(x, QTensor)
        start = [at if a == axis else 0 for a in range(len(y.shape))]
        yield x, view(x), y, view(y).box(start, x.shape)
        at += x.shape[axis]


def _split(unit: Unit, view: Views) -> Moves:
    x, axis = unit.quantised(0), int(unit.attributes.get("axis", 0)) % len(unit.quantised(0).shape)
    at = 0
    for y in unit.outputs:
        start = [at if a == axis else 0 for a in range(len(y.shape))]
        yield x, view(x).box(start, y.shape), y, view(y)
        at += y.shape[axis]


def _repeated(source: View, shape: Any) -> View:
    """Each axis as (element, repetition)."""
    pairs = [(n, shape[a] // n) for a, n in enumerate(source.shape)]
    return replace(
        source,
        shape=tuple(n for p in pairs for n in p),
        strides=tuple(v for s in source.strides for v in (s, 0)),
    )


def _blocks(target: View, counts: Any) -> View:
    """Each axis as (block, place in the block)."""
    pairs = [(n, target.shape[a] // n) for a, n in enumerate(counts)]
    strides = [v for s, (_, per) in zip(target.strides, pairs, strict=True) for v in (s * per, s)]
    return replace(target, shape=tuple(n for p in pairs for n in p), strides=tuple(strides))


def _depth(
    unit: Unit, x: QTensor, source: View, y: QTensor, target: View
) -> tuple[QTensor, View, QTensor, View]:
    size = int(unit.attributes["blocksize"])
    deep, wide = (source, target) if unit.kind == "DepthToSpace" else (target, source)
    n, c, h, w = deep.shape
    channels = c // size**2
    if str(unit.attributes.get("mode", "DCR")) == "DCR":
        split, order = (n, size, size, channels, h, w), (0, 3, 4, 1, 5, 2)
    else:
        split, order = (n, channels, size, size, h, w), (0, 1, 4, 2, 5, 3)
    fine = permuted(replace(deep, shape=split, strides=row_major(split, deep.size)), order)
    spread = (n, channels, h, size, w, size)
    coarse = replace(wide, shape=spread, strides=row_major(spread, wide.size))
    return (x, fine, y, coarse) if deep is source else (x, coarse, y, fine)


def lower_move(unit: Unit, stream: Stream, view: Views, finish: Finish, extra: int) -> None:
    """Emit the copies, tile by tile."""
    limit = tile_elements(stream, (1 << 20,), 2 * unit.attributes["bytes"])
    size = unit.attributes["bytes"]
    xs, ys = stream.slots(limit * size), stream.slots(limit * size)
    tables = {key: stream.take(256) for key in unit.attributes["tables"]}
    for key, address in tables.items():
        stream.constant(unit.attributes["tables"][key], address)
    for x, source, y, target in moves(unit, view):
        table_at = tables.get((id(x), id(y)))
        for start, shape in boxes(source.shape, limit):
            at, _ = xs.get(object())
            source.box(start, shape).load(stream, at)
            if table_at is not None:
                y_at, _ = ys.get(object())
                through = replace(
                    unit,
                    inputs=(x,),
                    outputs=(y,),
                    attributes={"table": unit.attributes["tables"][id(x), id(y)]},
                )
                emit_function(through, stream, table_at, at, y_at, int(np.prod(shape)))
                at = y_at
            target.box(start, shape).store(stream, at)


MOVE = Family(check_move, lower_move)
FAMILIES = dict.fromkeys(
    (
        *SAME_BYTES,
        "Transpose",
        "Concat",
        "Split",
        "Slice",
        "Expand",
        "Resize",
        "DepthToSpace",
        "SpaceToDepth",
    ),
    MOVE,
)
