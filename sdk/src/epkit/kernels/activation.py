"""Activation functions of one tensor, element by element.

The default of an attribute is the float32 that the standard names, written out in full.
"""

from __future__ import annotations

from typing import Any

from ._dtypes import is_integer
from ._erf import in_blocks, normal_cdf
from ._pointwise import convert, pointwise
from .operator import op


@op("Relu", since=1)
@pointwise
def relu(xp: Any, x: Any) -> Any:
    """y = max(x, 0)."""
    return xp.maximum(x, 0)


@op("LeakyRelu", since=1)
@pointwise
def leaky_relu(xp: Any, x: Any, *, alpha: float = 0.009999999776482582) -> Any:
    """y = x for x >= 0, alpha x for x < 0."""
    return xp.where(x < 0, x * alpha, x)


@op("PRelu", since=7)
@pointwise
def p_relu(xp: Any, x: Any, slope: Any) -> Any:
    """y = x for x >= 0, slope x for x < 0; slope broadcasts into the shape of x."""
    y = xp.where(x < 0, x * slope, x)
    if y.shape != x.shape:
        raise ValueError(
            f"input slope of shape {slope.shape} does not broadcast into the shape {x.shape} of X"
        )
    return y


@op("PRelu", since=1)
def p_relu_1(xp: Any, x: Any, slope: Any) -> Any:
    """y = x for x >= 0, slope x for x < 0; slope has one element, or one for each channel (axis 1)."""
    if slope.size != 1 and (x.ndim < 2 or slope.size != x.shape[1]):
        raise ValueError(
            f"input slope of shape {slope.shape} is neither one number nor one per channel of {x.shape}"
        )
    return p_relu(xp, x, xp.reshape(slope, () if slope.size == 1 else (-1,) + (1,) * (x.ndim - 2)))


@op("Elu", since=1)
@pointwise
def elu(xp: Any, x: Any, *, alpha: float = 1.0) -> Any:
    """y = x for x >= 0, alpha (e^x - 1) for x < 0."""
    return xp.where(x < 0, alpha * xp.expm1(x), x)


@op("Selu", since=6)
@pointwise
def selu(
    xp: Any, x: Any, *, alpha: float = 1.67326319217681884765625, gamma: float = 1.05070102214813232421875
) -> Any:
    """y = gamma x for x > 0, gamma alpha (e^x - 1) for x <= 0."""
    return gamma * xp.where(x <= 0, alpha * xp.expm1(x), x)


@op("Selu", since=1)
def selu_1(xp: Any, x: Any, *, alpha: float = 1.673200011253357, gamma: float = 1.0506999492645264) -> Any:
    """y = gamma x for x > 0, gamma alpha (e^x - 1) for x <= 0, with other defaults than since opset 6."""
    return selu(xp, x, alpha=alpha, gamma=gamma)


@op("Celu", since=12)
@pointwise
def celu(xp: Any, x: Any, *, alpha: float = 1.0) -> Any:
    """y = max(0, x) + min(0, alpha (e^(x / alpha) - 1))."""
    if alpha == 0:
        raise ValueError("attribute alpha=0 would divide by zero")
    return xp.maximum(x, 0) + xp.minimum(alpha * xp.expm1(x / alpha), 0)


@op("ThresholdedRelu", since=1)
@pointwise
def thresholded_relu(xp: Any, x: Any, *, alpha: float = 1.0) -> Any:
    """y = x for x > alpha, 0 elsewhere. Experimental before opset 10."""
    return xp.where(x > alpha, x, xp.zeros_like(x))


@op("Sigmoid", since=1)
@pointwise
def sigmoid(xp: Any, x: Any) -> Any:
    """y = 1 / (1 + e^-x)."""
    e = xp.exp(-xp.abs(x))  # never overflows, and keeps all digits on the side of 0
    return xp.where(x < 0, e, 1.0) / (1.0 + e)


@op("HardSigmoid", since=1)
@pointwise
def hard_sigmoid(xp: Any, x: Any, *, alpha: float = 0.20000000298023224, beta: float = 0.5) -> Any:
    """y = max(0, min(1, alpha x + beta))."""
    return xp.maximum(xp.minimum(alpha * x + beta, 1.0), 0.0)


@op("HardSwish", since=14)
@pointwise
def hard_swish(xp: Any, x: Any) -> Any:
    """y = x max(0, min(1, x / 6 + 1 / 2))."""
    return x * (xp.maximum(xp.minimum(x + 3.0, 6.0), 0.0) / 6.0)


@op("Swish", since=24)
@pointwise
def swish(xp: Any, x: Any, *, alpha: float = 1.0) -> Any:
    """y = x sigmoid(alpha x)."""
    return x * sigmoid(xp, alpha * x)


@op("SwiGLU", since=28)
@pointwise
def swi_glu(xp: Any, gate: Any, value: Any, *, alpha: float = 1.0) -> Any:
    """y = swish(gate) value, for two inputs of one shape."""
    if gate.shape != value.shape:
        raise ValueError(
            f"inputs A of shape {gate.shape} and B of shape {value.shape} must have the same shape"
        )
    return swish(xp, gate, alpha=alpha) * value


@op("Tanh", since=1)
@pointwise
def tanh(xp: Any, x: Any) -> Any:
    """y = tanh x."""
    return xp.tanh(x)


@op("Softplus", since=1)
@pointwise
def softplus(xp: Any, x: Any) -> Any:
    """y = ln(e^x + 1)."""
    return xp.maximum(x, 0.0) + xp.log1p(xp.exp(-xp.abs(x)))


@op("Softsign", since=1)
@pointwise
def softsign(xp: Any, x: Any) -> Any:
    """y = x / (1 + |x|)."""
    return x / (1.0 + xp.abs(x))


@op("Mish", since=18)
@pointwise
def mish(xp: Any, x: Any) -> Any:
    """y = x tanh(ln(1 + e^x)), which is x (u² - 1) / (u² + 1) with u = 1 + e^x."""
    e = xp.astype(xp.exp(xp.astype(-xp.abs(x), xp.float64)), x.dtype)  # float32's exp is units off
    rest = xp.where(x < 0, e * (e + 2.0), 1.0 + 2.0 * e)  # u² - 1, over e^2x where x > 0
    return x * (rest / (rest + xp.where(x < 0, 2.0, 2.0 * e * e)))


@op("Gelu", since=20)
@pointwise
def gelu(xp: Any, x: Any, *, approximate: str = "none") -> Any:
    """y = x (1 + erf(x / sqrt 2)) / 2.

    With approximate = "tanh" it is x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x³))) / 2.
    """
    if approximate == "none":
        return x * normal_cdf(xp, x)
    if approximate == "tanh":
        return x * tanh_cdf(xp, x)
    raise ValueError(f"attribute approximate={approximate!r} is neither 'none' nor 'tanh'")


@in_blocks
def tanh_cdf(xp: Any, x: Any) -> Any:
    """(1 + tanh u) / 2 = sigmoid(2u); in float64, for the tail multiplies the relative error of u by u."""
    wide = convert(xp, x, xp.float64)
    u = 1.5957691216057308 * (wide + 0.044715 * (wide * wide * wide))
    return convert(xp, sigmoid(xp, u), x.dtype)


@op("Shrink", since=9)
@pointwise
def shrink(xp: Any, x: Any, *, bias: float = 0.0, lambd: float = 0.5) -> Any:
    """y = x + bias for x < -lambd, x - bias for x > lambd, 0 between; integers are cut off."""
    wide = xp.astype(x, xp.float64) if is_integer(x.dtype) else x
    y = xp.where(wide < -lambd, wide + bias, xp.where(wide > lambd, wide - bias, xp.zeros_like(wide)))
    return convert(xp, y, x.dtype)


# Experimental operators of the first opsets: no schema has them any more, old models still do.


@op("Affine", since=1)
@pointwise
def affine(xp: Any, x: Any, *, alpha: float = 1.0, beta: float = 0.0) -> Any:
    """y = alpha x + beta."""
    return alpha * x + beta


@op("ScaledTanh", since=1)
@pointwise
def scaled_tanh(xp: Any, x: Any, *, alpha: float = 1.0, beta: float = 1.0) -> Any:
    """y = alpha tanh(beta x)."""
    return alpha * xp.tanh(beta * x)


@op("ParametricSoftplus", since=1)
@pointwise
def parametric_softplus(xp: Any, x: Any, *, alpha: float = 1.0, beta: float = 1.0) -> Any:
    """y = alpha ln(e^(beta x) + 1)."""
    return alpha * softplus(xp, beta * x)
