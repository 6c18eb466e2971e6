"""Arithmetic, comparisons, logic and casts, as formulas."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from epkit.backend import Kernel, element_type
from epkit.kernels.attributes import attribute_values

from .formulas import ANY, FLOATS, NUMBERS, SIGNED, UNSIGNED, Site, Write, formula


def divide(site: Site) -> str:
    """Quotient; of integers rounded to zero, and 0 for division by zero, which must not stop the device."""
    a, b = site[0], site[1]
    if site.is_float:
        return f"{a} / {b}"
    if site.out.startswith("u"):
        return f"({b} == 0 ? ({site.out})0 : ({site.out})({a} / {b}))"
    return f"({b} == 0 ? ({site.out})0 : {b} == -1 ? ({site.out})(0 - {a}) : ({site.out})({a} / {b}))"


def modulo(site: Site) -> str:
    """The remainder, with the sign of the divisor; of the dividend with fmod=1."""
    a, b = site[0], site[1]
    if site.is_float:
        return f"fmod({a}, {b})"
    safe = f"({b} == 0 || {b} == ({site.out})-1 ? ({site.out})0 : ({site.out})({a} % {b}))"
    if site.attributes.get("fmod", 0) or site.out.startswith("u"):
        return safe
    return f"({safe} != 0 && (({a} < 0) != ({b} < 0)) ? ({site.out})({safe} + {b}) : {safe})"


def folded(pick: Callable[[Site, str, str], str]) -> Write:
    """A variadic operator by one of two operands."""

    def write(site: Site) -> str:
        result = site[0]
        for index in range(1, len(site.args)):
            result = f"({pick(site, result, site[index])})"
        return result

    return write


def larger(site: Site, a: str, b: str) -> str:
    """The maximum; NaN wins."""
    return f"({a}) != ({a}) || ({a}) > ({b}) ? ({a}) : ({b})"


def smaller(site: Site, a: str, b: str) -> str:
    """The minimum; NaN wins."""
    return f"({a}) != ({a}) || ({a}) < ({b}) ? ({a}) : ({b})"


def mean(site: Site) -> str:
    """The sum divided by the number of operands."""
    return f"({folded(lambda s, a, b: f'{a} + {b}')(site)}) / {site.literal(len(site.args))}"


def clip(site: Site) -> str:
    """Between two bounds, attributes until opset 10; the upper one wins, NaN stays."""
    low, high = (
        (site.args[index] if site.opset >= 11 and len(site.args) > index else None) for index in (1, 2)
    )
    if site.opset < 11:
        low = site.literal(site.attributes["min"]) if "min" in site.attributes else None
        high = site.literal(site.attributes["max"]) if "max" in site.attributes else None
    result = site[0]
    if low is not None:
        result = f"({result} < {low} ? {low} : {result})"
    return result if high is None else f"({result} > {high} ? {high} : {result})"


def absolute(site: Site) -> str:
    """The magnitude; of the least integer, itself."""
    return (
        f"fabs({site[0]})" if site.is_float else f"({site[0]} < 0 ? ({site.out})(0 - {site[0]}) : {site[0]})"
    )


def sign(site: Site) -> str:
    """-1, 0 or 1; NaN stays."""
    x = site[0]
    return f"({x} > 0 ? {site.literal(1)} : {x} < 0 ? ({site.out})(0 - 1) : {x})"


def power(site: Site) -> str:
    """The base to the exponent, in the base's type."""
    return f"pow({site[0]}, ({site.out}){site[1]})"


def cast(site: Site) -> str:
    """Another element type; to bool, what is not zero."""
    if site.attributes.get("to") == 9:
        return f"({site[0]} != 0)"
    return f"({site.out}){site[0]}"


def is_infinite(site: Site) -> str:
    """Infinite, of the wanted signs."""
    x, signs = site[0], []
    if site.attributes.get("detect_positive", 1):
        signs.append(f"{x} > 0")
    if site.attributes.get("detect_negative", 1):
        signs.append(f"{x} < 0")
    return f"(isinf({x}) && ({' || '.join(signs) or '0'}))"


def shift(site: Site) -> str:
    """Bits moved; all out where the distance is the width or more."""
    sign_of = "<<" if site.attributes["direction"] == "LEFT" else ">>"
    return (
        f"({site[1]} >= 8 * sizeof({site.out}) ? ({site.out})0 : ({site.out})({site[0]} {sign_of} {site[1]}))"
    )


def batch_normalization(site: Site) -> str:
    """(x - mean) / sqrt(var + epsilon) scale + bias, in inference."""
    x, scale, bias, average, variance = (site[index] for index in range(5))
    return f"({x} - {average}) * ({scale} / sqrt({variance} + {site.attribute('epsilon', 1e-5)})) + {bias}"


def in_inference(node: Any) -> bool | str:
    """Training modes have more outputs than one."""
    attributes = attribute_values(node)
    if attributes.get("training_mode") or len([v for v in node.outputs if v.name]) > 1:
        return "only BatchNormalization in inference is a formula"
    return True


def known_cast(node: Any) -> bool | str:
    """Both types must be ones that the device computes with, and rounding must be the language's."""
    found = (element_type(node.inputs[0]), element_type(node.outputs[0]))
    return all(name in ANY for name in found) or f"Cast from {found[0]} to {found[1]} is not supported"


def float_modulo(node: Any) -> bool | str:
    """Floating-point remainders are those of fmod."""
    is_float = element_type(node.inputs[0]) in FLOATS | {"float16"}
    fmod = bool(attribute_values(node).get("fmod"))
    return not is_float or fmod or "Mod of floats needs fmod=1"


def powers(node: Any) -> bool | str:
    """Powers of floating-point numbers."""
    return element_type(node.inputs[0]) in FLOATS | {"float16"} or "Pow of integers has no kernel"


UNARY: dict[str, tuple[int, str | Write]] = {
    "Acos": (7, "acos({0})"),
    "Acosh": (9, "acosh({0})"),
    "Asin": (7, "asin({0})"),
    "Asinh": (9, "asinh({0})"),
    "Atan": (7, "atan({0})"),
    "Atanh": (9, "atanh({0})"),
    "Ceil": (6, "ceil({0})"),
    "Cos": (7, "cos({0})"),
    "Cosh": (9, "cosh({0})"),
    "Exp": (6, "exp({0})"),
    "Floor": (6, "floor({0})"),
    "Log": (6, "log({0})"),
    "Reciprocal": (6, "{one} / {0}"),
    "Round": (11, "rint({0})"),
    "Sin": (7, "sin({0})"),
    "Sinh": (9, "sinh({0})"),
    "Sqrt": (6, "sqrt({0})"),
    "Tan": (7, "tan({0})"),
}
"""Operators of one floating-point input: first version, expression."""

T_NUMBERS = {"T": NUMBERS}
BOOLS = {"T": frozenset({"bool"})}
COMPARED = {"T": ANY}

KERNELS: tuple[Kernel, ...] = (
    *(formula(name, write, since=since) for name, (since, write) in UNARY.items()),
    formula("Neg", "({T})(0 - {0})", since=6, types={"T": SIGNED}),
    formula("Neg", "-{0}", since=6),
    formula("Abs", absolute, since=6, types=T_NUMBERS),
    formula("Sign", sign, since=9, types=T_NUMBERS),
    formula("Add", "{0} + {1}", since=7, types=T_NUMBERS),
    formula("Sub", "{0} - {1}", since=7, types=T_NUMBERS),
    formula("Mul", "{0} * {1}", since=7, types=T_NUMBERS),
    formula("Div", divide, since=7, types=T_NUMBERS),
    formula("Mod", modulo, since=10, types=T_NUMBERS, when=float_modulo),
    formula("Pow", power, since=7, types={"T": FLOATS, "T1": NUMBERS}, when=powers),
    formula("Max", folded(larger), since=8, types=T_NUMBERS),
    formula("Min", folded(smaller), since=8, types=T_NUMBERS),
    formula("Sum", folded(lambda s, a, b: f"{a} + {b}"), since=8),
    formula("Mean", mean, since=8),
    formula("Clip", clip, since=6, types=T_NUMBERS),
    formula(
        "BatchNormalization",
        batch_normalization,
        since=9,
        when=in_inference,
        per_channel=(1, 2, 3, 4),
        types={"T": FLOATS, "T1": FLOATS, "T2": FLOATS, "U": FLOATS},
    ),
    formula("Where", "({0} ? {1} : {2})", since=9, types={"T": ANY, "B": frozenset({"bool"})}),
    formula("Cast", cast, since=9, when=known_cast, types={"T1": ANY, "T2": ANY}),
    formula("And", "({0} && {1})", since=7, types=BOOLS),
    formula("Or", "({0} || {1})", since=7, types=BOOLS),
    formula("Xor", "({0} != {1})", since=7, types=BOOLS),
    formula("Not", "(!{0})", types=BOOLS),
    formula("Equal", "({0} == {1})", since=7, types=COMPARED),
    formula("Greater", "({0} > {1})", since=7, types=COMPARED),
    formula("GreaterOrEqual", "({0} >= {1})", since=12, types=COMPARED),
    formula("Less", "({0} < {1})", since=7, types=COMPARED),
    formula("LessOrEqual", "({0} <= {1})", since=12, types=COMPARED),
    formula("IsNaN", "isnan({0})", since=9, types={"T1": FLOATS}),
    formula("IsInf", is_infinite, since=10, types={"T1": FLOATS}),
    formula("BitwiseAnd", "{0} & {1}", since=18, types={"T": SIGNED | UNSIGNED}),
    formula("BitwiseOr", "{0} | {1}", since=18, types={"T": SIGNED | UNSIGNED}),
    formula("BitwiseXor", "{0} ^ {1}", since=18, types={"T": SIGNED | UNSIGNED}),
    formula("BitwiseNot", "({T})(~{0})", since=18, types={"T": SIGNED | UNSIGNED}),
    formula("BitShift", shift, since=11, types={"T": UNSIGNED}),
)
