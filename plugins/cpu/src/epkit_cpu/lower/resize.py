"""Resize of float32 by nearest, linear and cubic interpolation."""

from __future__ import annotations

import struct

from .step import Lowering, Step, View

MODES = ("nearest", "linear", "cubic")
COORDINATES = (
    *("half_pixel", "half_pixel_symmetric", "pytorch_half_pixel"),
    *("align_corners", "asymmetric"),
)
NEAREST = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")
MOST_RANK = 16
KNOWN = {"mode", "coordinate_transformation_mode", "nearest_mode", "exclude_outside", "cubic_coeff_a"} | {
    *("antialias", "keep_aspect_ratio_policy", "extrapolation_value", "axes"),
}


def resize(view: View) -> Step | None:
    """Without antialiasing or a region."""
    attributes = view.attributes
    if view.opset < 11 or view.type(0) != "float32" or not attributes.keys() <= KNOWN:
        return None
    if attributes.get("antialias", 0) or attributes.get("keep_aspect_ratio_policy", "stretch") != "stretch":
        return None
    mode = attributes.get("mode", "nearest")
    coordinates = attributes.get("coordinate_transformation_mode", "half_pixel")
    nearest = attributes.get("nearest_mode", "round_prefer_floor")
    if mode not in MODES or coordinates not in COORDINATES or nearest not in NEAREST:
        return None
    axes = attributes.get("axes")
    if view.type(2) not in ("", "float32") or len(axes or ()) > MOST_RANK:
        return None
    listed = [*(axes or ()), *[0] * MOST_RANK][:MOST_RANK]
    packed = struct.pack(
        f"<4ifi{MOST_RANK}q",
        MODES.index(mode),
        COORDINATES.index(coordinates),
        NEAREST.index(nearest),
        int(attributes.get("exclude_outside", 0)),
        float(attributes.get("cubic_coeff_a", -0.75)),
        -1 if axes is None else len(axes),
        *listed,
    )
    return view.step("resize", packed, alias=True)


RESIZE: dict[tuple[str, str], Lowering] = {("", "Resize"): resize}
