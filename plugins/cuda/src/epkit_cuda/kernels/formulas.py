"""Elementwise operators as expressions of CUDA C++. Chains of them become one kernel (see ``fuse``).

Narrow floats are computed in float and rounded after every node, as separate kernels would.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from epkit.backend import Kernel, element_type, kernel
from epkit.kernels.attributes import attribute_values

FLOATS = frozenset({"float32", "float64", "float16", "bfloat16"})
SIGNED = frozenset({"int8", "int16", "int32", "int64"})
UNSIGNED = frozenset({"uint8", "uint16", "uint32", "uint64"})
NUMBERS = FLOATS | SIGNED | UNSIGNED
ANY = NUMBERS | {"bool"}

Write = Callable[["Site"], str]


@dataclass(frozen=True)
class Site:
    """Where a formula is written down.

    Attributes:
        args: expressions of the inputs; None for an optional one that is absent.
        types: the C++ types that they are computed in.
        out: that of the result.
        attributes: of the node.
        opset: under which the node is read.
    """

    args: Sequence[str | None]
    types: Sequence[str]
    out: str
    attributes: Mapping[str, Any]
    opset: int

    def __getitem__(self, index: int) -> str:
        found = self.args[index]
        assert found is not None
        return found

    @property
    def is_float(self) -> bool:
        """True if the first input is a floating-point number."""
        return self.types[0] in ("float", "double")

    def number(self, value: float) -> str:
        """A constant of the result's type."""
        if self.out not in ("float", "double"):
            return f"(({self.out}){int(value)})"
        if math.isnan(value):
            return f"(({self.out})NAN)"
        if math.isinf(value):
            return f"(({self.out}){'-' if value < 0 else ''}INFINITY)"
        return f"({float(value)!r}{'f' if self.out == 'float' else ''})"

    def attribute(self, name: str, default: float) -> str:
        """An attribute as a constant of the result's type."""
        return self.number(self.attributes.get(name, default))


@dataclass(frozen=True)
class Formula:
    """Each element of the result from the elements at the same place.

    Attributes:
        write: the expression.
        per_channel: inputs that hold one number for each channel (axis 1).
    """

    write: Write
    per_channel: frozenset[int] = frozenset()


FORMULAS: dict[Callable[..., Any], Formula] = {}
"""By the kernel's function."""


def formula(
    name: str,
    write: str | Write,
    *,
    since: int = 1,
    types: Mapping[str, frozenset[str]] | None = None,
    when: Callable[[Any], bool | str] | None = None,
    per_channel: Sequence[int] = (),
) -> Kernel:
    """Declare one; ``write`` is a pattern such as ``"{0} + {1}"``, or a function of a :class:`Site`."""

    @kernel(name, since=since, types={"T": FLOATS} if types is None else types, when=when)
    def declared(*inputs: Any) -> Any:
        raise NotImplementedError("formulas are compiled, not called")

    def from_pattern(site: Site) -> str:
        return str(write).format(*site.args, zero=site.number(0), one=site.number(1))

    writer = from_pattern if isinstance(write, str) else write
    FORMULAS[declared.function] = Formula(writer, frozenset(per_channel))
    return declared


def formula_of(found: Kernel) -> Formula | None:
    """The formula that a kernel stands for, or None."""
    return FORMULAS.get(found.function)


# ---- expressions ----


def divide(site: Site) -> str:
    """Quotient; of integers rounded to zero, 0 for division by zero."""
    a, b = site[0], site[1]
    if site.is_float:
        return f"{a} / {b}"
    if site.out.startswith("unsigned"):
        return f"{b} == 0 ? 0 : {a} / {b}"
    return f"{b} == 0 ? 0 : {b} == -1 ? 0 - {a} : {a} / {b}"


def modulo(site: Site) -> str:
    """The remainder, with the sign of the divisor; of the dividend with fmod=1."""
    a, b = site[0], site[1]
    if site.is_float:
        return f"fmod({a}, {b})"
    if site.out.startswith("unsigned"):
        return f"{b} == 0 ? 0 : {a} % {b}"
    rest = f"({b} == 0 || {b} == -1 ? ({site.out})0 : ({site.out})({a} % {b}))"
    if site.attributes.get("fmod", 0):
        return rest
    return f"{rest} != 0 && ({a} < 0) != ({b} < 0) ? {rest} + {b} : {rest}"


def folded(join: Callable[[str, str], str]) -> Write:
    """A variadic operator from one of two operands."""

    def write(site: Site) -> str:
        result = site[0]
        for index in range(1, len(site.args)):
            result = f"({join(result, site[index])})"
        return result

    return write


def chosen(sign: str) -> Callable[[str, str], str]:
    """The larger (``>``) or smaller of two; NaN wins."""
    return lambda a, b: f"{a} != {a} || {a} {sign} {b} ? {a} : {b}"


def added(a: str, b: str) -> str:
    """The sum of two."""
    return f"{a} + {b}"


def clip(site: Site) -> str:
    """Between two bounds, attributes until opset 10; the upper one wins, NaN stays."""
    if site.opset < 11:
        bounds = [site.number(site.attributes[n]) if n in site.attributes else None for n in ("min", "max")]
    else:
        bounds = [site.args[i] if len(site.args) > i else None for i in (1, 2)]
    low, high = bounds
    result = site[0] if low is None else f"({site[0]} < {low} ? {low} : {site[0]})"
    return result if high is None else f"({result} > {high} ? {high} : {result})"


def gelu(site: Site) -> str:
    """x Phi(x), exact or by tanh."""
    x, half = site[0], site.number(0.5)
    if site.attributes.get("approximate", "none") == "tanh":
        inner = f"{site.number(math.sqrt(2 / math.pi))} * ({x} + {site.number(0.044715)} * {x} * {x} * {x})"
        return f"{half} * {x} * ({site.number(1)} + tanh({inner}))"
    return f"{half} * {x} * erfc({x} * {site.number(-math.sqrt(0.5))})"


def softplus(site: Site) -> str:
    """log(1 + exp(x)) without overflow."""
    x = site[0]
    return f"(({x} > 0 ? {x} : {site.number(0)}) + log1p(exp(-fabs({x}))))"


def sigmoid(x: str, site: Site) -> str:
    """1 / (1 + exp(-x))."""
    return f"({site.number(1)} / ({site.number(1)} + exp(-({x}))))"


def is_infinite(site: Site) -> str:
    """Infinite, of the wanted signs."""
    signs = []
    if site.attributes.get("detect_positive", 1):
        signs.append(f"{site[0]} == INFINITY")
    if site.attributes.get("detect_negative", 1):
        signs.append(f"{site[0]} == -INFINITY")
    return " || ".join(signs) or "false"


def batch_normalization(site: Site) -> str:
    """(x - mean) / sqrt(var + epsilon) scale + bias, in inference."""
    x, scale, bias, mean, variance = (site[index] for index in range(5))
    return f"({x} - {mean}) * ({scale} / sqrt({variance} + {site.attribute('epsilon', 1e-5)})) + {bias}"


def absolute(site: Site) -> str:
    """The magnitude; of the least integer, itself."""
    return f"fabs({site[0]})" if site.is_float else f"{site[0]} < 0 ? 0 - {site[0]} : {site[0]}"


def hard_sigmoid(site: Site) -> str:
    """max(0, min(1, alpha x + beta))."""
    line = f"{site[0]} * {site.attribute('alpha', 0.2)} + {site.attribute('beta', 0.5)}"
    return f"fmin(fmax({line}, {site.number(0)}), {site.number(1)})"


# ---- predicates ----


def in_inference(node: Any) -> bool | str:
    """Training modes have more outputs than one."""
    attributes = attribute_values(node)
    if attributes.get("training_mode") or len([v for v in node.outputs if v.name]) > 1:
        return "only BatchNormalization in inference is a formula"
    return True


def float_modulo(node: Any) -> bool | str:
    """Floating-point remainders are those of fmod."""
    is_float = element_type(node.inputs[0]) in FLOATS
    return not is_float or bool(attribute_values(node).get("fmod")) or "Mod of floats needs fmod=1"


def plain_cast(node: Any) -> bool | str:
    """Between floats, from integers or bool, and to bool: what the language rounds as the standard does."""
    found, wanted = element_type(node.inputs[0]), element_type(node.outputs[0])
    if found not in ANY or wanted not in ANY:
        return f"no formula for a Cast from {found or '?'} to {wanted or '?'}"
    return wanted in FLOATS or wanted == "bool" or found not in FLOATS or "floats to integers: portable"


def cast(site: Site) -> str:
    """Another element type; to bool, what is not zero."""
    return f"{site[0]} != 0" if site.attributes.get("to") == 9 else site[0]


UNARY: dict[str, tuple[int, str | Write]] = {
    **{name: (7, name.lower() + "({0})") for name in ("Acos", "Asin", "Atan", "Cos", "Sin", "Tan")},
    **{name: (9, name.lower() + "({0})") for name in ("Acosh", "Asinh", "Atanh", "Cosh", "Sinh", "Erf")},
    **{name: (6, name.lower() + "({0})") for name in ("Ceil", "Exp", "Floor", "Log", "Sqrt", "Tanh")},
    "Round": (11, "rint({0})"),
    "Reciprocal": (6, "{one} / {0}"),
    "Softsign": (1, "{0} / ({one} + fabs({0}))"),
    "Softplus": (1, softplus),
    "Sigmoid": (6, lambda s: sigmoid(s[0], s)),
    "HardSigmoid": (6, hard_sigmoid),
    "LeakyRelu": (6, lambda s: f"{s[0]} < 0 ? {s[0]} * {s.attribute('alpha', 0.01)} : {s[0]}"),
    "ThresholdedRelu": (10, lambda s: f"{s[0]} > {s.attribute('alpha', 1.0)} ? {s[0]} : {s.number(0)}"),
    "Elu": (6, lambda s: f"{s[0]} < 0 ? {s.attribute('alpha', 1.0)} * expm1({s[0]}) : {s[0]}"),
    "Selu": (
        6,
        lambda s: (
            f"{s.attribute('gamma', 1.0507009873554805)} * ({s[0]} > 0 ? {s[0]} : "
            f"{s.attribute('alpha', 1.6732632423543772)} * expm1({s[0]}))"
        ),
    ),
}
"""Operators of one floating-point input: first version, expression."""

T_NUMBERS = {"T": NUMBERS}
BOOLS = {"T": frozenset({"bool"})}

KERNELS: tuple[Kernel, ...] = (
    *(formula(name, write, since=since) for name, (since, write) in UNARY.items()),
    formula("Gelu", gelu, since=20),
    formula("Mish", lambda s: f"{s[0]} * tanh({softplus(s)})", since=18),
    formula(
        "HardSwish",
        lambda s: (
            f"{s[0]} * fmin(fmax({s[0]} / {s.number(6)} + {s.number(0.5)}, {s.number(0)}), {s.number(1)})"
        ),
        since=14,
    ),
    formula(
        "Swish",
        lambda s: f"{s[0]} * {sigmoid(s.attribute('alpha', 1.0) + ' * ' + s[0], s)}",
        since=24,
    ),
    formula(
        "Celu",
        lambda s: "{0} < 0 ? {1} * expm1({0} / {1}) : {0}".format(s[0], s.attribute("alpha", 1.0)),
        since=12,
    ),
    formula("Relu", "{0} < 0 ? {zero} : {0}", since=6, types={"T": FLOATS | SIGNED}),
    formula("Neg", "-{0}", since=6, types={"T": FLOATS | SIGNED}),
    formula("Abs", absolute, since=6, types={"T": FLOATS | SIGNED}),
    formula("Sign", "{0} > 0 ? {one} : {0} < 0 ? -{one} : {0}", since=9, types={"T": FLOATS | SIGNED}),
    formula("Add", "{0} + {1}", since=7, types=T_NUMBERS),
    formula("Sub", "{0} - {1}", since=7, types=T_NUMBERS),
    formula("Mul", "{0} * {1}", since=7, types=T_NUMBERS),
    formula("Div", divide, since=7, types=T_NUMBERS),
    formula("Mod", modulo, since=10, types=T_NUMBERS, when=float_modulo),
    formula("Pow", "pow({0}, (decltype({0})){1})", since=7, types={"T": FLOATS, "T1": NUMBERS}),
    formula("Max", folded(chosen(">")), since=8, types=T_NUMBERS),
    formula("Min", folded(chosen("<")), since=8, types=T_NUMBERS),
    formula("Sum", folded(added), since=8),
    formula("Mean", lambda s: f"{folded(added)(s)} / {s.number(len(s.args))}", since=8),
    formula("Clip", clip, since=6, types=T_NUMBERS),
    formula("PRelu", "{0} < 0 ? {0} * {1} : {0}", since=7),
    formula(
        "BatchNormalization",
        batch_normalization,
        since=9,
        when=in_inference,
        per_channel=(1, 2, 3, 4),
        types={"T": FLOATS, "T1": FLOATS, "T2": FLOATS, "U": FLOATS},
    ),
    formula("Where", "{0} ? {1} : {2}", since=9, types={"T": ANY, "B": frozenset({"bool"})}),
    formula("Cast", cast, since=9, when=plain_cast, types={"T1": ANY, "T2": ANY}),
    formula("And", "{0} && {1}", since=7, types=BOOLS),
    formula("Or", "{0} || {1}", since=7, types=BOOLS),
    formula("Xor", "{0} != {1}", since=7, types=BOOLS),
    formula("Not", "!{0}", types=BOOLS),
    formula("Equal", "{0} == {1}", since=7, types={"T": ANY}),
    formula("Greater", "{0} > {1}", since=7, types=T_NUMBERS),
    formula("GreaterOrEqual", "{0} >= {1}", since=12, types=T_NUMBERS),
    formula("Less", "{0} < {1}", since=7, types=T_NUMBERS),
    formula("LessOrEqual", "{0} <= {1}", since=12, types=T_NUMBERS),
    formula("IsNaN", "{0} != {0}", since=9, types={"T1": FLOATS}),
    formula("IsInf", is_infinite, since=10, types={"T1": FLOATS}),
    formula("BitwiseAnd", "{0} & {1}", since=18, types={"T": SIGNED | UNSIGNED}),
    formula("BitwiseOr", "{0} | {1}", since=18, types={"T": SIGNED | UNSIGNED}),
    formula("BitwiseXor", "{0} ^ {1}", since=18, types={"T": SIGNED | UNSIGNED}),
    formula("BitwiseNot", "~{0}", since=18, types={"T": SIGNED | UNSIGNED}),
)
