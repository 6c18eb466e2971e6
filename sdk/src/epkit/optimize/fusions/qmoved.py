"""Operators that only move numbers, between dequantising and quantising in the same steps: on the codes.

The operator stays what it is, only its data are codes. Names and versions are the standard's. A maximum of codes would
be right too, but who runs MaxPool need not run it on codes, and a provider is only asked for names.
"""

from __future__ import annotations

from typing import Any

from ..fuse import Fusion, fusion
from ..pattern import Match
from .quantized import not_bytes, not_one_scale

_MOVES = {
    "Transpose-13": ("x", "perm=perm"),
    "Reshape-14": ("x, shape", "allowzero=allowzero"),
    "Flatten-13": ("x", "axis=axis"),
    "Squeeze-13": ("x, axes", ""),
    "Unsqueeze-13": ("x, axes", ""),
    "Expand-13": ("x, shape", ""),
    "Slice-13": ("x, starts, ends, axes, steps", ""),
    "Gather-13": ("x, indices", "axis=axis"),
    "DepthToSpace-13": ("x", "blocksize=blocksize, mode=mode"),
    "SpaceToDepth-13": ("x", "blocksize=blocksize"),
}
"""Each operator with its inputs, the data first, and its attributes."""


def _moved(operator: str, inputs: str, attributes: str) -> Fusion:
    name = operator.split("-")[0]
    _, *others = inputs.split(", ")
    call = ", ".join(filter(None, ("d", *others, attributes)))

    def condition(match: Match) -> dict[str, Any] | str:
        problem = not_bytes(match, "x", "y") or not_one_scale(match, "x")
        kept = [text.split("=")[0] for text in attributes.split(", ") if text]
        return problem or {
            key: match.attributes[key] for key in kept if match.attributes.get(key) is not None
        }

    condition.__name__ = f"{name.lower()}_of_codes"
    condition.__doc__ = f"Quantize({name}(Dequantize(x, s, z)), s, z) = {name}(x)."
    return fusion(
        f"{operator}({inputs}) -> y",
        f"""
        d = shared(DequantizeLinear(x, x_scale, x_zero_point, axis=x_axis))
        y = QuantizeLinear({name}({call}), x_scale, x_zero_point, axis=y_axis)
        """,
    )(condition)


RULES: tuple[Fusion, ...] = tuple(_moved(operator, *form) for operator, form in _MOVES.items())
