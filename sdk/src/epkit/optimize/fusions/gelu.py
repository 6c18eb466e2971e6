"""GELU in its spellings. Hendrycks and Gimpel, "Gaussian Error Linear Units" (2016)."""

from __future__ import annotations

from typing import Any

from ..fuse import fusion
from ..pattern import Match
from ..shapes import is_vector_for

_PRODUCTS = """
    y = Any(0.5 * (x * s), x * (0.5 * s), s * (0.5 * x))
"""


@fusion(
    "Gelu-20(x) -> y",
    f"""
    e = Erf(Any(x / 1.4142135623730951, x * 0.7071067811865476))
    s = 1.0 + e
    {_PRODUCTS}
    """,
)
def gelu(match: Match) -> dict[str, Any]:
    """Gelu(x) = x (1 + erf(x / √2)) / 2, in any order of the three factors."""
    return {"approximate": "none"}


@fusion(
    "Gelu-20(x) -> y",
    f"""
    square = Any(x * x, x ** 2.0)
    cube = Any(x ** 3.0, x * square)
    inner = Any(0.7978845608028654 * (x + 0.044715 * cube),
                x * (0.7978845608028654 * (1.0 + 0.044715 * square)),
                (0.7978845608028654 * x) * (1.0 + 0.044715 * square),
                x * (0.7978845608028654 + 0.035677408136300125 * square))
    s = 1.0 + Tanh(inner)
    {_PRODUCTS}
    """,
    # tf2onnx and some training frameworks: (0.044715 x) x² in place of 0.044715 x³
    f"""
    inner = 0.7978845608028654 * (x + Any((0.044715 * x) * x * x, (0.044715 * x) * (x * x)))
    s = 1.0 + Tanh(inner)
    {_PRODUCTS}
    """,
)
def gelu_tanh(match: Match) -> dict[str, Any]:
    """Gelu(x, tanh) = x (1 + tanh(√(2/π) (x + 0.044715 x³))) / 2."""
    return {"approximate": "tanh"}


@fusion("ms.BiasGelu(a, b) -> y", 'y = Gelu(a + b, approximate="none")')
def bias_gelu(match: Match) -> dict[str, Any] | str:
    """BiasGelu(a, b) = Gelu(a + b), b being a vector along the last axis of a."""
    return _as_bias(match, "a", "b") or {}


@fusion("ms.Gelu(x) -> y", 'y = Gelu(x, approximate="none")')
def gelu_of_microsoft(match: Match) -> dict[str, Any]:
    """com.microsoft.Gelu(x) = Gelu(x): another name, for providers that know only that."""
    return {}


@fusion(
    "ms.FastGelu(x, bias) -> y", 'y = Gelu(x + bias, approximate="tanh")', 'y = Gelu(x, approximate="tanh")'
)
def fast_gelu(match: Match) -> dict[str, Any] | str:
    """FastGelu(x, b) = Gelu(x + b, tanh), b being a vector along the last axis of x."""
    return (_as_bias(match, "x", "bias") if match.get("bias") is not None else None) or {}


def _as_bias(match: Match, data: str, bias: str) -> str | None:
    """Put the vector of a sum into the second place, or say why there is none."""
    for first, second in ((data, bias), (bias, data)):
        if is_vector_for(match[second], match[first]):
            match.names[data], match.names[bias] = match[first], match[second]
            return None
    return f"neither {match[data].name} nor {match[bias].name} is a vector along the last axis of the other"


RULES = (gelu, gelu_tanh, bias_gelu, gelu_of_microsoft, fast_gelu)
