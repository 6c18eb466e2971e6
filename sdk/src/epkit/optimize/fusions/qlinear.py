"""Groups of dequantising, an operator and quantising, as one operator on the codes; names of com.microsoft.

As in :mod:`.quantized`, a result may differ by one step where the float group rounds a tie the other way.
"""

from __future__ import annotations

from typing import Any

from ..fuse import fusion
from ..pattern import Match
from ..rule import Rule
from .quantized import bias_fits, codes, not_by_column, not_bytes, not_one_scale

_PAIR = "A, A_scale, A_zero_point, B, B_scale, B_zero_point, C_scale, C_zero_point"
_SINGLE = "X, X_scale, X_zero_point, Y_scale, Y_zero_point"


def _quantized(text: str, result: str) -> str:
    return f"{result} = QuantizeLinear({text}, {result}_scale, {result}_zero_point, axis={result}_axis)"


def _alike(match: Match, **values: str) -> str | None:
    """Why the values (each with the prefix of its scale's name) are not codes of one type and one scale, or None."""
    prefixes = {prefix: name for name, prefix in values.items()}
    problem = not_bytes(match, *values) or not_one_scale(match, *prefixes, of=prefixes)
    if problem:
        return problem
    kinds = {match[name].dtype for name in values}
    return (
        None if len(kinds) == 1 else f"the codes are of several types: {', '.join(sorted(map(str, kinds)))}"
    )


@fusion(f"ms.QLinearAdd({_PAIR}) -> C", _quantized(f"{codes('A')} + {codes('B')}", "C"))
def qlinear_add(match: Match) -> dict[str, Any] | str:
    """Quantize(Dequantize(a) + Dequantize(b)) = QLinearAdd(a, b)."""
    return _alike(match, A="A", B="B", C="C") or {}


@fusion(f"ms.QLinearMul({_PAIR}) -> C", _quantized(f"{codes('A')} * {codes('B')}", "C"))
def qlinear_mul(match: Match) -> dict[str, Any] | str:
    """Quantize(Dequantize(a) · Dequantize(b)) = QLinearMul(a, b)."""
    return _alike(match, A="A", B="B", C="C") or {}


@fusion(f"ms.QLinearSigmoid({_SINGLE}) -> Y", _quantized(f"Sigmoid({codes('X')})", "Y"))
def qlinear_sigmoid(match: Match) -> dict[str, Any] | str:
    """Quantize(σ(Dequantize(x))) = QLinearSigmoid(x)."""
    return _alike(match, X="X", Y="Y") or {}


@fusion(f"ms.QLinearLeakyRelu({_SINGLE}) -> Y", _quantized(f"LeakyRelu({codes('X')}, alpha=alpha)", "Y"))
def qlinear_leaky_relu(match: Match) -> dict[str, Any] | str:
    """Quantize(LeakyRelu(Dequantize(x); α)) = QLinearLeakyRelu(x; α)."""
    return _alike(match, X="X", Y="Y") or {"alpha": float(match.attributes["alpha"])}


_PARTS = "ABCD"


def _concatenated(count: int) -> str:
    return _quantized(f"Concat({', '.join(map(codes, _PARTS[:count]))}, axis=axis)", "Y")


@fusion(
    f"ms.QLinearConcat(Y_scale, Y_zero_point, {', '.join(f'{x}, {x}_scale, {x}_zero_point' for x in _PARTS)}) -> Y",
    _concatenated(2),
    _concatenated(3),
    _concatenated(4),
)
def qlinear_concat(match: Match) -> dict[str, Any] | str:
    """Quantize(Concat(Dequantize(a), Dequantize(b), ...)) = QLinearConcat(a, b, ...), of up to four."""
    names = [name for name in (*_PARTS, "Y") if match.get(name) is not None]
    return _alike(match, **{name: name for name in names}) or {"axis": match.attributes["axis"]}


@fusion(
    "ms.QLinearGlobalAveragePool(X, x_scale, x_zero_point, y_scale, y_zero_point) -> Y",
    f"""
    Y = QuantizeLinear(GlobalAveragePool({codes("X", "x")}), y_scale, y_zero_point, axis=y_axis)
    """,
)
def qlinear_global_average_pool(match: Match) -> dict[str, Any] | str:
    """Quantize(GlobalAveragePool(Dequantize(x))) = QLinearGlobalAveragePool(x)."""
    return _alike(match, X="x", Y="y") or {"channels_last": 0}


@fusion(
    "ms.QGemm(A, a_scale, a_zero_point, B, b_scale, b_zero_point, C, y_scale, y_zero_point) -> Y",
    f"""
    bias = Any(DequantizeLinear(C, C_scale, C_zero_point, axis=C_axis), DequantizeLinear(C, C_scale, axis=C_axis))
    a = {codes("A", "a")}
    b = {codes("B", "b")}
    g = Any(Gemm(a, b, bias, alpha=1.0, beta=1.0, transA=transA, transB=transB),
            Gemm(a, b, alpha=1.0, beta=beta, transA=transA, transB=transB))
    Y = QuantizeLinear(g, y_scale, y_zero_point, axis=y_axis)
    """,
)
def q_gemm(match: Match) -> dict[str, Any] | str:
    """Quantize(Dequantize(a)' Dequantize(b)' + s c) = QGemm(a, b, c), where s = a's scale times b's.

    b may have a scale for each column of the result.
    """
    transpose_b = int(match.attributes["transB"] or 0)
    problem = (
        not_bytes(match, "A", "B", "Y")
        or not_one_scale(match, "a", "y", of={"a": "A", "y": "Y"})
        or not_by_column(match, "B", "b", axis=0 if transpose_b else 1)
        or bias_fits(match, "C", "a", "b")
    )
    if problem:
        return problem
    return {"transA": int(match.attributes["transA"] or 0), "transB": transpose_b}


RULES: tuple[Rule, ...] = (
    qlinear_add,
    qlinear_mul,
    qlinear_sigmoid,
    qlinear_leaky_relu,
    qlinear_concat,
    qlinear_global_average_pool,
    q_gemm,
)
