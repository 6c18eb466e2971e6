"""Operators whose result depends on values: what is chosen, selected, sampled."""

from __future__ import annotations

from .step import Lowering, Step, View, longs
from .types import is_numeric

GRID_MODES = {"nearest": 0, "linear": 1, "bilinear": 1, "cubic": 2, "bicubic": 2}
PADDINGS = {"zeros": 0, "border": 1, "reflection": 2}


def non_zero(view: View) -> Step | None:
    """Positions of what is not zero."""
    kind = view.type(0)
    return view.step("non_zero") if is_numeric(kind) and not kind.startswith(("complex", "float8")) else None


def compress(view: View) -> Step | None:
    """What the condition chooses."""
    axis = view.attributes.get("axis")
    if not is_numeric(view.type(0)) or view.type(1) != "bool":
        return None
    return view.step("compress", longs(0 if axis is None else int(axis), int(axis is not None)))


def one_hot(view: View) -> Step | None:
    """Negative indices count from the end from opset 11 on."""
    known = ("float32", "int32", "int64", "uint8")
    if view.type(0) not in known or view.type(1) not in known or not is_numeric(view.type(2)):
        return None
    return view.step("one_hot", longs(int(view.attributes.get("axis", -1)), int(view.opset >= 11)))


def reverse_sequence(view: View) -> Step | None:
    """The first steps of each item in reverse."""
    axes = tuple(int(view.attributes.get(*item)) for item in (("batch_axis", 1), ("time_axis", 0)))
    if not is_numeric(view.type(0)) or view.type(1) != "int64" or set(axes) != {0, 1}:
        return None
    return view.step("reverse_sequence", longs(axes[0]))


def non_max_suppression(view: View) -> Step | None:
    """The best boxes that do not overlap too much."""
    kinds = ("float32", "float32", "int64", "float32", "float32")
    if any(view.type(n) not in (kind, "" if n > 1 else kind) for n, kind in enumerate(kinds)):
        return None
    return view.step("non_max_suppression", longs(int(view.attributes.get("center_point_box", 0))))


def grid_sample(view: View) -> Step | None:
    """Images interpolated at given places."""
    mode = GRID_MODES.get(str(view.attributes.get("mode", "linear")))
    padding = PADDINGS.get(str(view.attributes.get("padding_mode", "zeros")))
    if set(view.types()) != {"float32"} or mode is None or padding is None or view.rank(0) != 4:
        return None
    return view.step("grid_sample", longs(mode, padding, int(view.attributes.get("align_corners", 0))))


CHOOSE: dict[tuple[str, str], Lowering] = {
    ("", "NonZero"): non_zero,
    ("", "Compress"): compress,
    ("", "OneHot"): one_hot,
    ("", "ReverseSequence"): reverse_sequence,
    ("", "NonMaxSuppression"): non_max_suppression,
    ("", "GridSample"): grid_sample,
}
