"""QuantizeLinear and DequantizeLinear as formulas: they join the chains around them."""

from __future__ import annotations

from typing import Any

from epkit.backend import Kernel, element_type
from epkit.kernels.attributes import attribute_values

from ..source import FLOAT8
from .formulas import Site, formula

RANGES = {"int8": (-128, 127), "uint8": (0, 255), "int16": (-32768, 32767), "uint16": (0, 65535)}
REALS = frozenset({"float32", "float16", "bfloat16"})
CODES = {
    "signed char": RANGES["int8"],
    "unsigned char": RANGES["uint8"],
    "short": RANGES["int16"],
    "unsigned short": RANGES["uint16"],
}
"""The least and the greatest code, by C++ type."""


def by_channel(node: Any) -> bool | str:
    """One scale, or one for each channel (axis 1); no blocks; float32 on the one side, known codes on the other."""
    attributes = attribute_values(node)
    if attributes.get("block_size", 0) or attributes.get("precision", 0) not in (0, 1):
        return "blocks and other precisions: the portable operator"
    scale = node.inputs[1].shape
    if scale is None or any(not isinstance(size, int) for size in scale):
        return "the number of scales is unknown"
    data = node.inputs[0].shape
    one = all(size == 1 for size in scale)
    if not one and (len(scale) != 1 or data is None or attributes.get("axis", 1) not in (1, 1 - len(data))):
        return f"scales of shape {list(scale)} along axis {attributes.get('axis', 1)}: the portable operator"
    forward = node.op_type == "QuantizeLinear"
    real, code = (node.inputs[0], node.outputs[0]) if forward else (node.outputs[0], node.inputs[0])
    known = set(RANGES) | (set() if forward else {"int32"})
    kinds = {element_type(real), element_type(node.inputs[1])}
    if element_type(code) in FLOAT8:
        saturates = not forward or bool(attributes.get("saturate", 1))
        fits = len(kinds) == 1 and kinds <= REALS and saturates
        return fits or f"float8 for one of {sorted(REALS)}, saturating, found {sorted(kinds)}"
    if kinds != {"float32"} or element_type(code) not in known:
        return f"the kernel takes float32 and {sorted(known)}, found {sorted(kinds)} and {element_type(code)}"
    return True


def quantize(site: Site) -> str:
    """saturate(round(x / scale) + zero point), halves to even; float8 has no round of its own."""
    if site.out == "float":
        return f"{site[0]} / {site[1]}"
    low, high = CODES[site.out]
    zero = site.args[2] if len(site.args) > 2 and site.args[2] is not None else "0"
    return f"fmin(fmax(rint({site[0]} / {site[1]}) + (float)({zero}), {low}.0f), {high}.0f)"


def dequantize(site: Site) -> str:
    """(x - zero point) scale."""
    zero = site.args[2] if len(site.args) > 2 and site.args[2] is not None else "0"
    if site.types[0] == "float":
        return f"({site[0]} - {zero}) * {site[1]}"
    return f"(float)((int)({site[0]}) - (int)({zero})) * {site[1]}"


KERNELS: tuple[Kernel, ...] = (
    formula("QuantizeLinear", quantize, since=10, types={}, when=by_channel, per_channel=(1, 2)),
    formula("DequantizeLinear", dequantize, since=10, types={}, when=by_channel, per_channel=(1, 2)),
)
