"""Operators that move values: Transpose, Slice, Concat, Gather and their kin."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from epkit.dtypes import numpy_dtype

from .step import Lowering, Step, View, counted, longs
from .types import is_numeric

INDICES = ("int32", "int64")
PAD_MODES = ("constant", "reflect", "edge", "wrap")
REDUCTIONS = ("none", "add", "mul", "max", "min")


def transpose(view: View) -> Step | None:
    """The permutation is an attribute; nothing moves where only dimensions of size 1 change places."""
    if not is_numeric(view.type(0)):
        return None
    return view.step("transpose", counted(view.attributes.get("perm", ())), alias=True)


def expand(view: View) -> Step | None:
    """Broadcast to a shape."""
    return view.step("expand") if is_numeric(view.type(0)) else None


def slice_(view: View) -> Step | None:
    """Starts and ends are attributes until opset 9."""
    if not is_numeric(view.type(0)):
        return None
    if view.opset >= 10:
        return view.step("slice", longs(0), alias=True)
    starts, ends = view.attributes["starts"], view.attributes["ends"]
    axes = view.attributes.get("axes", range(len(starts)))
    if not len(starts) == len(ends) == len(axes):
        return None
    return view.step("slice", longs(1, len(starts), *starts, *ends, *axes), alias=True)


def split(view: View) -> Step | None:
    """Lengths are an attribute until opset 12; from 18 on the last part may be smaller."""
    if not is_numeric(view.type(0)) or view.opset < 2:
        return None
    lengths: Sequence[int] = view.attributes.get("split", ()) if view.opset < 13 else ()
    named = view.attributes.get("num_outputs")
    if named is not None and (named != len(view.outputs) or view.input(1) is not None):
        return None
    head = longs(int(view.attributes.get("axis", 0)), int(view.opset >= 18)) + counted(lengths)
    return view.step("split", head)


def concat(view: View) -> Step | None:
    """The axis is 1 by default until opset 3."""
    if not all(map(is_numeric, view.types())) or len(set(view.types())) != 1:
        return None
    if "axis" not in view.attributes and view.opset >= 4:
        return None
    axis = int(view.attributes.get("axis", 1))
    return replace(view.step("concat", longs(axis)), joins=axis)


def pad(view: View) -> Step | None:
    """The pads are an attribute until opset 10."""
    mode = view.attributes.get("mode", "constant")
    if not is_numeric(view.type(0)) or mode not in PAD_MODES or view.opset < 2:
        return None
    if view.opset >= 11:
        value = view.input(2)
        if value is not None and view.type(2) != view.type(0):
            return None
        return view.step("pad", longs(PAD_MODES.index(mode), 0))
    number = np.array(view.attributes.get("value", 0.0), numpy_dtype(view.type(0)))
    head = longs(PAD_MODES.index(mode), 1) + counted(view.attributes["pads"])
    return view.step("pad", head, (view.input(0), None, number))


def tile(view: View) -> Step | None:
    """Repeat along each axis (opset 6)."""
    return view.step("tile") if view.opset >= 6 and is_numeric(view.type(0)) else None


def depth_to_space(view: View) -> Step | None:
    """Channels to blocks of the image."""
    return _blocks(view, 1)


def space_to_depth(view: View) -> Step | None:
    """Blocks of the image to channels."""
    return _blocks(view, 0)


def _blocks(view: View, to_space: int) -> Step | None:
    mode = view.attributes.get("mode", "DCR")
    if mode not in ("DCR", "CRD") or not is_numeric(view.type(0)):
        return None
    return view.step("depth_space", longs(int(view.attributes["blocksize"]), to_space, int(mode == "DCR")))


def range_(view: View) -> Step | None:
    """start, start + delta, ... up to the limit."""
    kinds = set(view.types())
    known = kinds <= {"float32", "float64", "int16", "int32", "int64"} and len(kinds) == 1
    return view.step("range") if known else None


def constant_of_shape(view: View) -> Step | None:
    """One value everywhere: the attribute's, else a float32 zero."""
    value = view.attributes.get("value")
    array = np.zeros(1, np.float32) if value is None else np.asarray(value).reshape(-1)
    if array.size != 1 or array.dtype != numpy_dtype(view.result_type() or "float32"):
        return None
    if not is_numeric(view.result_type()) or view.type(0) != "int64":
        return None
    return view.step("constant_of_shape", b"", (view.input(0), array))


def trilu(view: View) -> Step | None:
    """The upper or lower part of matrices."""
    if not is_numeric(view.type(0)):
        return None
    return view.step("trilu", longs(int(view.attributes.get("upper", 1))))


def gather(view: View) -> Step | None:
    """Slices along an axis."""
    return _indexed(view, "gather", "axis")


def gather_elements(view: View) -> Step | None:
    """Elements along an axis."""
    return _indexed(view, "gather_elements", "axis")


def gather_nd(view: View) -> Step | None:
    """Slices by tuples."""
    return _indexed(view, "gather_nd", "batch_dims")


def _indexed(view: View, kernel: str, attribute: str) -> Step | None:
    if not is_numeric(view.type(0)) or view.type(1) not in INDICES:
        return None
    return view.step(kernel, longs(int(view.attributes.get(attribute, 0))))


def scatter_nd(view: View) -> Step | None:
    """Slices written by tuples."""
    reduction = _reduction(view)
    return None if reduction is None else view.step("scatter_nd", longs(reduction))


def scatter_elements(view: View) -> Step | None:
    """Elements written along an axis."""
    reduction = _reduction(view)
    if reduction is None:
        return None
    return view.step("scatter_elements", longs(reduction, int(view.attributes.get("axis", 0))))


def _reduction(view: View) -> int | None:
    name = view.attributes.get("reduction", "none")
    if not is_numeric(view.type(0)) or view.type(1) not in INDICES or view.type(2) != view.type(0):
        return None
    if name not in REDUCTIONS or (name != "none" and view.type(0) not in ("float32", "float64")):
        return None
    return REDUCTIONS.index(name)


MOVEMENT: dict[tuple[str, str], Lowering] = {
    ("", "Transpose"): transpose,
    ("", "Expand"): expand,
    ("", "Slice"): slice_,
    ("", "Split"): split,
    ("", "Concat"): concat,
    ("", "Pad"): pad,
    ("", "Tile"): tile,
    ("", "DepthToSpace"): depth_to_space,
    ("", "SpaceToDepth"): space_to_depth,
    ("", "Range"): range_,
    ("", "ConstantOfShape"): constant_of_shape,
    ("", "Trilu"): trilu,
    ("", "Gather"): gather,
    ("", "GatherElements"): gather_elements,
    ("", "GatherND"): gather_nd,
    ("", "ScatterND"): scatter_nd,
    ("", "ScatterElements"): scatter_elements,
    ("", "Scatter"): scatter_elements,
}
