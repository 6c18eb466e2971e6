"""8-bit integers: quantisation and products."""

from __future__ import annotations

import numpy as np

from .step import Lowering, Step, View, longs

BYTES = ("uint8", "int8")
KNOWN = {"axis", "saturate", "block_size", "output_dtype"}


def quantise(view: View) -> Step | None:
    """QuantizeLinear of float32 to 8 bits, one scale or one per index of an axis."""
    if view.type(0) != "float32" or view.type(1) != "float32" or view.result_type() not in BYTES:
        return None
    if not _plain(view) or view.type(2) not in ("", view.result_type()):
        return None
    return view.step("quantise_linear", longs(int(view.attributes.get("axis", 1))))


def dequantise(view: View) -> Step | None:
    """DequantizeLinear of 8 bits to float32."""
    if view.type(0) not in BYTES or view.type(1) != "float32" or view.result_type() != "float32":
        return None
    if not _plain(view) or view.type(2) not in ("", view.type(0)):
        return None
    return view.step("dequantise_linear", longs(int(view.attributes.get("axis", 1))))


def _plain(view: View) -> bool:
    return view.attributes.keys() <= KNOWN and not view.attributes.get("block_size", 0)


def matmul_integer(view: View) -> Step | None:
    """MatMulInteger with a constant matrix B."""
    b, zero = view.constant(1), view.constant(3)
    if view.type(0) not in BYTES or view.type(1) not in BYTES or (view.rank(0) or 0) < 2:
        return None
    if b is None or b.ndim != 2 or not b.size or (view.input(3) is not None and zero is None):
        return None
    if zero is not None and zero.size not in (1, b.shape[1]):
        return None
    scalar = view.input(2) is None or view.rank(2) == 0 or view.shape(2) == (1,)
    if not scalar:
        return None
    zeros = None if zero is None else np.ascontiguousarray(zero.reshape(-1))
    packed = view.prepare("gemm_int8_pack", b"", b, zeros)
    k, n = b.shape
    return view.step("matmul_integer", longs(k, n), (view.input(0), packed, view.input(2)))


QUANTISE: dict[tuple[str, str], Lowering] = {
    ("", "QuantizeLinear"): quantise,
    ("", "DequantizeLinear"): dequantise,
    ("", "MatMulInteger"): matmul_integer,
}
