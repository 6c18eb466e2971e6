"""Quantisation to 8 bits and back, with one scale for each index of an axis; ``pointwise`` has that with one scale."""

from __future__ import annotations

from .step import Lowering, Step, View, longs

BYTES = ("uint8", "int8")
KNOWN = {"axis", "saturate", "block_size", "output_dtype", "precision"}


def quantise(view: View) -> Step | None:
    """QuantizeLinear of float32 to 8 bits, one scale or one per index of an axis."""
    if view.type(0) != "float32" or view.result_type() not in BYTES or not is_plain(view):
        return None
    if view.type(2) not in ("", view.result_type()) or has_known_scale(view):
        return None
    return view.step("quantise_linear", longs(int(view.attributes.get("axis", 1))))


def dequantise(view: View) -> Step | None:
    """DequantizeLinear of 8 bits to float32."""
    if view.type(0) not in BYTES or view.result_type() != "float32" or not is_plain(view):
        return None
    if view.type(2) not in ("", view.type(0)) or has_known_scale(view):
        return None
    return view.step("dequantise_linear", longs(int(view.attributes.get("axis", 1))))


def is_plain(view: View) -> bool:
    """True for scales of float32 that are not in blocks."""
    if not view.attributes.keys() <= KNOWN or view.attributes.get("block_size", 0):
        return False
    return view.type(1) == "float32" and view.attributes.get("precision", 0) in (0, 1)


def has_known_scale(view: View) -> bool:
    """True if scale and zero point are one constant number each: an operation of chains."""
    scale, zero = view.constant(1), view.constant(2)
    if scale is None or scale.size != 1:
        return False
    return view.input(2) is None or (zero is not None and zero.size == 1)


def dynamic_quantise(view: View) -> Step | None:
    """DynamicQuantizeLinear."""
    return view.step("dynamic_quantise") if view.type(0) == "float32" else None


QUANTISE: dict[tuple[str, str], Lowering] = {
    ("", "QuantizeLinear"): quantise,
    ("", "DequantizeLinear"): dequantise,
    ("", "DynamicQuantizeLinear"): dynamic_quantise,
}
