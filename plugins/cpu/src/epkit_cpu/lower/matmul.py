"""Matrix products: MatMul and Gemm, with constant right sides packed once."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np

from ..native import FLOAT32
from .epilogue import Epilogue, follow
from .integer import dequantised_gemm, dequantised_matmul
from .step import Lowering, Operand, Step, View, longs

FORM_MATMUL, FORM_GEMM = 0, 1
LEAST = 16384
"""Weights of a matrix from which 16-bit products are faster."""


def narrow_form(view: View, weight: np.ndarray[Any, Any] | None) -> int:
    """The form of a product with a constant matrix."""
    return FLOAT32 if weight is None or weight.size < LEAST else view.narrow


def gemm_attributes(
    form: int,
    epilogue: Epilogue,
    *,
    transpose_a: int = 0,
    transpose_b: int = 0,
    packed: tuple[int, int] | None = None,
    narrow: int = FLOAT32,
    alpha: float = 1.0,
    beta: float = 1.0,
) -> bytes:
    """GemmAttributes in ops/gemm.cpp."""
    k, n = packed or (0, 0)
    how = 0 if packed is None else 1 + (narrow != FLOAT32)
    flags = bool(transpose_a), bool(transpose_b)
    head = struct.pack("<4i2q2f", form, *flags, how, k, n, alpha, beta)
    return head + epilogue.pack() + struct.pack("<i", 0)


def matmul(view: View) -> Step | None:
    """A @ B; a constant matrix B is packed."""
    if set(view.types()) != {"float32"}:
        return None
    if (step := dequantised_matmul(view)) is not None:
        return step
    rank = view.rank(1)
    weight = view.constant(1)
    if weight is not None and weight.ndim == 2 and weight.size:
        k, n = weight.shape
        epilogue = follow(view, view.order, -1, n) if view.rank(0) not in (None, 1) else _alone(view)
        narrow = narrow_form(view, weight)
        operand: Operand = view.prepare("gemm_pack", longs(0, narrow), weight)
        attributes = gemm_attributes(FORM_MATMUL, epilogue, packed=(k, n), narrow=narrow)
    else:
        plain = rank is not None and rank >= 2 and view.rank(0) not in (None, 1)
        epilogue = follow(view, view.order, -1, None) if plain else _alone(view)
        operand = view.input(1)
        attributes = gemm_attributes(FORM_MATMUL, epilogue)
    return _step(view, epilogue, attributes, operand, epilogue.bias)


def gemm(view: View) -> Step | None:
    """alpha A' B' + beta C."""
    if view.opset < 7:
        return None
    return dequantised_gemm(view) or lower_gemm(view, None)


def lower_gemm(view: View, given: Epilogue | None) -> Step | None:
    """A Gemm with a given epilogue, or with what follows it."""
    if set(view.types()) != {"float32"}:
        return None
    attributes = view.attributes
    alpha, beta = float(attributes.get("alpha", 1.0)), float(attributes.get("beta", 1.0))
    transpose_a, transpose_b = int(attributes.get("transA", 0)), int(attributes.get("transB", 0))
    if view.rank(0) != 2 or view.rank(1) != 2:
        return None
    weight = view.constant(1)
    n = None if weight is None else weight.shape[0 if transpose_b else 1]
    c = view.input(2)
    epilogue = given or follow(view, view.order, -1, n if c is None else None)
    bias: Operand = c if c is not None else epilogue.bias
    packed, operand = None, view.input(1)
    narrow = FLOAT32 if transpose_a else narrow_form(view, weight)  # narrow products want contiguous rows
    if c is not None and epilogue.residual is not None:  # the two may both need the place of a matrix
        constant = view.constant(2)
        if constant is None or constant.ndim > 1:
            epilogue = _alone(view)
    if weight is not None and weight.size:
        packed = (weight.shape[1], weight.shape[0]) if transpose_b else (weight.shape[0], weight.shape[1])
        operand = view.prepare("gemm_pack", longs(transpose_b, narrow), weight)  # type: ignore[assignment]
    if c is None:
        beta = 1.0
    packed_attributes = gemm_attributes(
        FORM_GEMM,
        epilogue,
        transpose_a=transpose_a,
        transpose_b=transpose_b,
        packed=packed,
        narrow=narrow,
        alpha=alpha,
        beta=beta,
    )
    return _step(view, epilogue, packed_attributes, operand, bias)


def _alone(view: View) -> Epilogue:
    return Epilogue(view.node.outputs[0])


def _step(view: View, epilogue: Epilogue, attributes: bytes, b: Operand, bias: Operand) -> Step:
    inputs = (view.input(0), b, bias, epilogue.residual)
    return Step("gemm", inputs, (epilogue.result,), attributes, (view.node, *epilogue.nodes))


def matmul_nbits(view: View) -> Step | None:
    """com.microsoft.MatMulNBits with weights of 4 or 8 bits."""
    how = [int(view.attributes.get(name, 0)) for name in ("K", "N", "bits", "block_size")]
    bits, block = how[2] or 4, how[3]
    if view.type(0) != "float32" or view.type(1) != "uint8" or view.type(2) != "float32":
        return None
    if bits not in (4, 8) or not 16 <= block <= 256 or block & (block - 1) or view.input(4) is not None:
        return None
    if view.type(3) not in ("", "uint8") or view.type(5) not in ("", "float32"):
        return None
    weights = view.input(1)
    if weights is None or weights.shape is None or 0 in weights.shape or not weights.shape.is_static():
        return None  # none at all stand for an omitted projection
    inputs = (*(view.input(index) for index in range(4)), view.input(5))
    return view.step("matmul_nbits", longs(how[0], how[1], bits, block), inputs)


MATMUL: dict[tuple[str, str], Lowering] = {
    ("", "MatMul"): matmul,
    ("", "Gemm"): gemm,
    ("com.microsoft", "MatMulNBits"): matmul_nbits,
}
