"""Operators that only change the shape: no copy at all."""

from __future__ import annotations

from collections.abc import Sequence

from .step import Lowering, Step, View, counted, longs
from .types import is_numeric

RESHAPE, FLATTEN, SQUEEZE, UNSQUEEZE = range(4)


def _view(view: View, mode: int, flag: int, numbers: Sequence[int] | None) -> Step | None:
    """A change of shape by numbers from an attribute, or from the second input (None)."""
    if not is_numeric(view.type(0)):
        return None
    source = view.input(1)
    if numbers is None and source is not None:
        return view.step("reshape", longs(mode, flag, 1, 0), view.inputs[:2], alias=True)
    given = tuple(numbers or ())
    return view.step("reshape", longs(mode, flag, 0) + counted(given), view.inputs[:1], alias=True)


def reshape(view: View) -> Step | None:
    """The shape is an attribute until opset 4."""
    if view.opset < 5:
        return _view(view, RESHAPE, 0, view.attributes.get("shape", ()))
    return _view(view, RESHAPE, int(bool(view.attributes.get("allowzero", 0))), None)


def flatten(view: View) -> Step | None:
    """[product of the dimensions before the axis, product of the rest]."""
    return _view(view, FLATTEN, int(view.attributes.get("axis", 1)), ())


def squeeze(view: View) -> Step | None:
    """The axes are an attribute until opset 12; none: all dimensions of size 1."""
    if view.opset < 13:
        axes = view.attributes.get("axes")
        return _view(view, SQUEEZE, int(axes is None), axes or ())
    return _view(view, SQUEEZE, int(view.input(1) is None), None)


def unsqueeze(view: View) -> Step | None:
    """The axes are an attribute until opset 12."""
    return _view(view, UNSQUEEZE, 0, view.attributes.get("axes", ()) if view.opset < 13 else None)


def identity(view: View) -> Step | None:
    """The input itself, under its own shape."""
    return _view(view, RESHAPE, 2, ())


def dropout(view: View) -> Step | None:
    """The input itself where nothing is dropped and nobody wants the mask."""
    if any(value is not None for value in view.outputs[1:]) or view.opset < 7:
        return None
    training = view.constant(2)
    if view.opset >= 12 and view.input(2) is not None and (training is None or bool(training.any())):
        return None
    return _view(view, RESHAPE, 2, ())


def shape_of(view: View) -> Step | None:
    """The dimensions, or some of them (opset 15)."""
    if not is_numeric(view.type(0)):
        return None
    end = view.attributes.get("end")
    return view.step(
        "shape", longs(int(view.attributes.get("start", 0)), 2**62 if end is None else int(end), 0)
    )


def size_of(view: View) -> Step | None:
    """The number of elements."""
    return view.step("shape", longs(0, 0, 1)) if is_numeric(view.type(0)) else None


SHAPES: dict[tuple[str, str], Lowering] = {
    ("", "Reshape"): reshape,
    ("", "Flatten"): flatten,
    ("", "Squeeze"): squeeze,
    ("", "Unsqueeze"): unsqueeze,
    ("", "Identity"): identity,
    ("", "Dropout"): dropout,
    ("", "Shape"): shape_of,
    ("", "Size"): size_of,
}
