"""Activations as formulas, those of com.microsoft among them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from epkit.backend import Kernel, element_type

from .arithmetic import clip
from .formulas import FLOATS, SIGNED, Site, Write, formula


def erf(site: Site, x: str) -> str:
    """The error function; that of float32 is ours (see ``mathematics``)."""
    return f"{'error_of' if site.out == 'float' else 'erf'}({x})"


def gelu(site: Site) -> str:
    """x Phi(x), exact or by tanh."""
    x, half = site[0], site.literal(0.5)
    if site.attributes.get("approximate", "none") == "tanh":
        inner = f"{site.literal(math.sqrt(2 / math.pi))} * ({x} + {site.literal(0.044715)} * {x} * {x} * {x})"
        return f"{half} * {x} * ({site.literal(1)} + tanh({inner}))"
    return f"{half} * {x} * ({site.literal(1)} + {erf(site, f'{x} * {site.literal(math.sqrt(0.5))}')})"


def softplus(site: Site) -> str:
    """log(1 + exp(x)) without overflow."""
    x = site[0]
    return f"(({x} > 0 ? {x} : {site.literal(0)}) + log1p(exp(-fabs({x}))))"


def sigmoid(x: str, site: Site) -> str:
    """1 / (1 + exp(-x))."""
    return f"({site.literal(1)} / ({site.literal(1)} + exp(-({x}))))"


def clamped(x: str, site: Site) -> str:
    """Between 0 and 1; NaN stays."""
    zero, one = site.literal(0), site.literal(1)
    return f"(({x}) < 0 ? {zero} : ({x}) > 1 ? {one} : ({x}))"


def hard_swish(site: Site) -> str:
    """x clamp(x + 3, 0, 6) / 6: in this order nothing cancels near -3."""
    x, three, six = site[0], site.literal(3), site.literal(6)
    return f"{x} / {six} * ({x} < -{three} ? {site.literal(0)} : {x} > {three} ? {six} : {x} + {three})"


def gelu_of_sum(site: Site) -> str:
    """Gelu(a + b), exact."""
    total = f"({site[0]} + {site[1]})"
    return gelu(replace(site, args=[total], attributes={}))


def fast_gelu(site: Site) -> str:
    """Gelu(x + bias) by tanh."""
    biased = len(site.args) > 1 and site.args[1] is not None
    total = f"({site[0]} + {site[1]})" if biased else site[0]
    return gelu(replace(site, args=[total], attributes={"approximate": "tanh"}))


def quick_gelu(site: Site) -> str:
    """x sigmoid(alpha x)."""
    return f"{site[0]} * {sigmoid(site.attribute('alpha', 1.702) + ' * ' + site[0], site)}"


def single(node: Any) -> bool | str:
    """Fused operators come without a schema here, so their types are looked at, not bound."""
    types = {element_type(value) for value in node.inputs if value is not None}
    return types == {"float32"} or f"fused operators have kernels for float32, not {', '.join(sorted(types))}"


UNARY: dict[str, tuple[int, str | Write]] = {
    "Erf": (9, lambda s: erf(s, s[0])),
    "Softsign": (1, "{0} / ({one} + fabs({0}))"),
    "Tanh": (6, "tanh({0})"),
    "Mish": (18, lambda s: f"{s[0]} * tanh({softplus(s)})"),
    "Softplus": (1, softplus),
    "Sigmoid": (6, lambda s: sigmoid(s[0], s)),
    "HardSwish": (14, hard_swish),
    "HardSigmoid": (
        6,
        lambda s: clamped(f"{s[0]} * {s.attribute('alpha', 0.2)} + {s.attribute('beta', 0.5)}", s),
    ),
    "LeakyRelu": (6, lambda s: f"({s[0]} < 0 ? {s[0]} * {s.attribute('alpha', 0.01)} : {s[0]})"),
    "ThresholdedRelu": (10, lambda s: f"({s[0]} > {s.attribute('alpha', 1.0)} ? {s[0]} : {s.literal(0)})"),
    "Elu": (6, lambda s: f"({s[0]} < 0 ? {s.attribute('alpha', 1.0)} * expm1({s[0]}) : {s[0]})"),
    "Celu": (
        12,
        lambda s: (
            f"({s[0]} < 0 ? {s.attribute('alpha', 1.0)} * expm1({s[0]} / {s.attribute('alpha', 1.0)}) : {s[0]})"
        ),
    ),
    "Selu": (
        6,
        lambda s: (
            f"{s.attribute('gamma', 1.0507009873554805)} * ({s[0]} > 0 ? {s[0]} : "
            f"{s.attribute('alpha', 1.6732632423543772)} * expm1({s[0]}))"
        ),
    ),
    "Shrink": (
        9,
        lambda s: (
            f"({s[0]} < -{s.attribute('lambd', 0.5)} ? {s[0]} + {s.attribute('bias', 0.0)} : "
            f"{s[0]} > {s.attribute('lambd', 0.5)} ? {s[0]} - {s.attribute('bias', 0.0)} : {s.literal(0)})"
        ),
    ),
    "Gelu": (20, gelu),
    "Swish": (24, lambda s: f"{s[0]} * {sigmoid(s.attribute('alpha', 1.0) + ' * ' + s[0], s)}"),
}
"""Operators of one floating-point input: first version, expression."""

MICROSOFT = "com.microsoft"

FUSED: dict[str, str | Write] = {
    "Gelu": gelu,
    "BiasGelu": gelu_of_sum,
    "FastGelu": fast_gelu,
    "QuickGelu": quick_gelu,
}

KERNELS: tuple[Kernel, ...] = (
    *(formula(name, write, since=since) for name, (since, write) in UNARY.items()),
    formula("Relu", "({0} < 0 ? {zero} : {0})", since=6, types={"T": FLOATS | SIGNED}),
    formula("PRelu", "({0} < 0 ? {0} * {1} : {0})", since=7),
    *(formula(name, write, domain=MICROSOFT, types={}, when=single) for name, write in FUSED.items()),
    formula(
        "SwiGLU", lambda s: f"{s[1]} * {s[0]} * {sigmoid(s[0], s)}", domain="epkit", types={}, when=single
    ),
)

PARAMETERS = {"LeakyRelu": ("alpha",), "HardSigmoid": ("alpha", "beta"), "Clip": ("min", "max")}
"""Attributes of the activations that end a fused operator, in the order of their numbers."""


def activated(name: str, numbers: Sequence[float], x: str, c_type: str) -> str:
    """The expression of an activation by name, for kernels that end with one.

    Raises:
        ValueError: for an unknown name.
    """
    attributes = dict(zip(PARAMETERS.get(name, ()), numbers, strict=False))
    site = Site([x], [c_type], c_type, attributes, 6)
    if name == "Clip":
        return clip(site)
    if name == "Relu":
        return f"({x} < 0 ? 0 : {x})"
    if name not in ("Sigmoid", "Tanh", "LeakyRelu", "HardSigmoid"):
        raise ValueError(f"activation {name!r} is unknown")
    write = UNARY[name][1]
    return write.format(x) if isinstance(write, str) else write(site)
