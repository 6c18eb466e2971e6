"""Elementwise operators as instructions of a fused chain.

Each operator is a function that emits instructions into a :class:`Chain` and gives the register of its result.
Floats of 16 bits are computed in float32 and rounded after each operator, as the standard has it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from epkit.dtypes import NAME

from ..native import tile_types
from .chain import Chain, Register, Unsupported
from .quantise import BYTES, is_plain
from .step import View

NARROW = ("float16", "bfloat16")
Emit = Callable[[View, Chain, list[Register]], Register]

_plain: set[Emit] = set()


def meaning_of(view: View) -> Pointwise | None:
    """The elementwise operator that a node is, if its result is of a type that chains have."""
    node = view.node
    table = POINTWISE if node.domain == "" else CONTRIB if node.domain == "com.microsoft" else None
    found = None if table is None else table.get(node.op_type)
    if found is None:
        return None
    outputs = node.outputs
    if len(outputs) != 1 or not outputs[0].name or (found.since > 1 and view.opset < found.since):
        return None
    return found if view.result_type() in tile_types() else None


def emit_node(view: View, found: Pointwise, chain: Chain) -> None:
    """Add a node, of the meaning found for it, to the chain.

    Raises:
        Unsupported: for types or attributes that chains do not have. The chain may have changed then: go back.
    """
    result, kind = view.node.outputs[0], view.result_type()
    given = view.node.inputs if found.operands is None else [view.input(index) for index in found.operands]
    operands = [chain.value(value) for value in given if value is not None]
    if len(operands) != len(given) and view.op != "Clip":
        raise Unsupported
    if found.widen:
        operands = [chain.cast(x, "float32") if x.kind in NARROW else x for x in operands]
    register = found.emit(view, chain, operands)
    if register.kind != kind:
        if register.kind != "float32" or kind not in NARROW:
            raise Unsupported
        register = chain.cast(register, kind)
    chain.values[result] = register
    chain.nodes.append(view.node)


@dataclass(frozen=True)
class Pointwise:
    """One elementwise operator.

    Attributes:
        since: its first opset version with this meaning.
        widen: narrow floats are computed in float32.
        operands: the inputs that are read element by element; None: all. The others are constant numbers.
    """

    emit: Emit
    since: int = 1
    widen: bool = True
    operands: tuple[int, ...] | None = None

    @property
    def is_plain(self) -> bool:
        """Whether the instructions depend on the types of the operands and of the result only."""
        return self.emit in _plain


def _of_types(emit: Emit) -> Emit:
    """Note that an emit looks at nothing but its registers."""
    _plain.add(emit)
    return emit


def _simple(op: str, *names: str) -> Emit:
    """An instruction whose parameters x and y are the attributes of these names (``name=default``)."""
    if not names:
        return _of_types(lambda view, chain, operands: chain.emit(op, *operands))
    defaults = [(name.partition("=")[0], float(name.partition("=")[2])) for name in names]

    def emit(view: View, chain: Chain, operands: list[Register]) -> Register:
        found = [float(view.attributes.get(name, default)) for name, default in defaults] + [0.0, 0.0]
        return chain.emit(op, *operands, x=found[0], y=found[1])

    return emit


def _compare(op: str) -> Emit:
    return _of_types(lambda view, chain, operands: chain.emit(op, *operands, to="bool"))


def _fold(op: str) -> Emit:
    def emit(view: View, chain: Chain, operands: list[Register]) -> Register:
        result = operands[0]
        for operand in operands[1:]:
            result = chain.emit(op, result, operand)
        return chain.emit("copy", result) if len(operands) == 1 else result

    return _of_types(emit)


def _mean(view: View, chain: Chain, operands: list[Register]) -> Register:
    total = _fold("add")(view, chain, operands)
    return chain.emit("div", total, chain.literal(float(len(operands)), total.kind))


def _clip(view: View, chain: Chain, operands: list[Register]) -> Register:
    x = operands[0]
    if view.opset >= 11:
        bounds: list[Any] = [view.input(1), view.input(2)]
        if any(value is not None and view.rank(i + 1) != 0 for i, value in enumerate(bounds)):
            raise Unsupported
        low, high = (None if value is None else chain.value(value) for value in bounds)
        low, high = (chain.cast(r, x.kind) if r is not None else None for r in (low, high))
    else:
        numbers = [view.attributes.get("min"), view.attributes.get("max")]
        low, high = (None if n is None else chain.literal(float(n), x.kind) for n in numbers)
    if low is not None:
        x = chain.emit("max", x, low)
    if high is not None:
        x = chain.emit("min", x, high)
    return chain.emit("copy", x) if low is None and high is None else x


def _where(view: View, chain: Chain, operands: list[Register]) -> Register:
    return chain.emit("where", *operands)


def _cast(view: View, chain: Chain, operands: list[Register]) -> Register:
    to = view.attributes["to"]
    target = NAME.get(to, "") if isinstance(to, int) else ""
    if target not in tile_types():
        raise Unsupported
    return chain.cast(operands[0], target) if operands[0].kind != target else chain.emit("copy", operands[0])


def _cast_like(view: View, chain: Chain, operands: list[Register]) -> Register:
    target = view.type(1)
    if target not in tile_types():
        raise Unsupported
    return chain.emit("copy", operands[0]) if operands[0].kind == target else chain.cast(operands[0], target)


def _shrink(view: View, chain: Chain, operands: list[Register]) -> Register:
    """x + bias below -lambd, x - bias above lambd, else 0."""
    (x,) = operands
    if x.kind not in ("float32", "float64"):
        raise Unsupported
    limit, bias = (
        float(view.attributes.get(name, default)) for name, default in (("lambd", 0.5), ("bias", 0))
    )
    low = chain.emit("less", x, chain.literal(-limit, x.kind), to="bool")
    high = chain.emit("greater", x, chain.literal(limit, x.kind), to="bool")
    above = chain.emit("where", high, chain.emit("affine", x, x=1.0, y=-bias), chain.literal(0.0, x.kind))
    return chain.emit("where", low, chain.emit("affine", x, x=1.0, y=bias), above)


def _shift(view: View, chain: Chain, operands: list[Register]) -> Register:
    name = {"LEFT": "shift_left", "RIGHT": "shift_right"}.get(view.attributes["direction"])
    if name is None:
        raise Unsupported
    return chain.emit(name, *operands)


def _swi_glu(view: View, chain: Chain, operands: list[Register]) -> Register:
    gate, value = operands
    if view.shape(0) is None or view.shape(0) != view.shape(1):
        raise Unsupported  # different shapes are an error that the portable kernel explains
    return chain.emit("mul", chain.emit("swish", gate, x=float(view.attributes.get("alpha", 1.0))), value)


def _pow(view: View, chain: Chain, operands: list[Register]) -> Register:
    x, y = operands
    exponent = view.constant(1)
    if exponent is not None and exponent.size == 1:
        number = float(np.asarray(exponent).reshape(())[()])
        if number in (2.0, 3.0) and exponent.ndim <= (view.rank(0) or 0):
            return chain.emit("square" if number == 2.0 else "cube", x)
    if x.kind == y.kind and x.kind in ("float32", "float64"):
        return chain.emit("pow", x, y)
    if "float" not in x.kind and "float" not in y.kind:
        raise Unsupported
    wide = [chain.cast(operand, "float64") for operand in operands]
    return chain.cast(chain.emit("pow", *wide), x.kind)


def _mod(view: View, chain: Chain, operands: list[Register]) -> Register:
    if not view.attributes.get("fmod", 0) and view.opset < 28 and "float" in operands[0].kind:
        raise Unsupported  # an error that the portable kernel explains
    return chain.emit("mod", *operands, x=float(view.attributes.get("fmod", 0)))


def _gelu(view: View, chain: Chain, operands: list[Register]) -> Register:
    kind = view.attributes.get("approximate", "none")
    if kind not in ("none", "tanh"):
        raise Unsupported
    return chain.emit("gelu" if kind == "none" else "gelu_tanh", operands[0])


def _selu(view: View, chain: Chain, operands: list[Register]) -> Register:
    first = view.opset < 6
    alpha = view.attributes.get("alpha", 1.673200011253357 if first else 1.67326319217681884765625)
    gamma = view.attributes.get("gamma", 1.0506999492645264 if first else 1.05070102214813232421875)
    inner = chain.emit("elu", operands[0], x=float(alpha))
    return chain.emit("affine", inner, x=float(gamma))


def _is_inf(view: View, chain: Chain, operands: list[Register]) -> Register:
    negative = float(view.attributes.get("detect_negative", 1))
    return chain.emit(
        "is_inf", operands[0], to="bool", x=negative, y=float(view.attributes.get("detect_positive", 1))
    )


def _p_relu(view: View, chain: Chain, operands: list[Register]) -> Register:
    rank, slope = view.rank(0), view.shape(1)
    shape = view.input(0).shape if view.input(0) is not None else None  # type: ignore[union-attr]
    if rank is None or slope is None or shape is None or len(slope) > rank:
        raise Unsupported
    if any(n not in (1, m) for n, m in zip(reversed(slope), reversed(tuple(shape)), strict=False)):
        raise Unsupported  # a slope that widens x is an error that the portable kernel explains
    return chain.emit("prelu", *operands)


def _celu(view: View, chain: Chain, operands: list[Register]) -> Register:
    alpha = float(view.attributes.get("alpha", 1.0))
    if alpha == 0:
        raise Unsupported
    return chain.emit("celu", operands[0], x=alpha)


def _number(view: View, index: int) -> float:
    """A constant number; 0 where it is absent."""
    if view.input(index) is None:
        return 0.0
    constant = view.constant(index)
    if constant is None or constant.size != 1:
        raise Unsupported
    return float(constant.reshape(())[()])


def _dequantised(view: View, chain: Chain, x: Register, first: int) -> Register:
    """(x - zero) * scale; scale and zero point are the inputs from ``first`` on."""
    if x.kind not in BYTES or view.type(first) != "float32":
        raise Unsupported
    scale, zero = _number(view, first), _number(view, first + 1)
    return chain.emit("dequantise", x, to="float32", x=scale, y=zero)


def _quantised(view: View, chain: Chain, x: Register, first: int) -> Register:
    """x / scale, rounded, + zero, kept in range."""
    kind = view.result_type()
    if x.kind != "float32" or kind not in BYTES or view.type(first) != "float32":
        raise Unsupported
    if view.type(first + 1) not in ("", kind):
        raise Unsupported
    return chain.emit(f"quantise_{kind}", x, to=kind, x=_number(view, first), y=_number(view, first + 1))


def _dequantise(view: View, chain: Chain, operands: list[Register]) -> Register:
    if not is_plain(view):
        raise Unsupported
    return _dequantised(view, chain, operands[0], 1)


def _quantise(view: View, chain: Chain, operands: list[Register]) -> Register:
    if not is_plain(view):
        raise Unsupported
    return _quantised(view, chain, operands[0], 1)


def _qlinear(op: str, *names: str) -> Emit:
    """An operator of one or two tensors of codes, as of their numbers."""
    plain = _simple(op, *names)

    def emit(view: View, chain: Chain, operands: list[Register]) -> Register:
        numbers = [_dequantised(view, chain, x, 3 * i + 1) for i, x in enumerate(operands)]
        return _quantised(view, chain, plain(view, chain, numbers), 3 * len(operands))

    return emit


POINTWISE: dict[str, Pointwise] = {
    "Add": Pointwise(_simple("add"), 7),
    "Sub": Pointwise(_simple("sub"), 7),
    "Mul": Pointwise(_simple("mul"), 7),
    "Div": Pointwise(_simple("div"), 7),
    "Mod": Pointwise(_mod, 10),
    "Pow": Pointwise(_pow, 7),
    "Max": Pointwise(_fold("max"), 8),
    "Min": Pointwise(_fold("min"), 8),
    "Sum": Pointwise(_fold("add"), 8),
    "Mean": Pointwise(_mean, 8),
    "Clip": Pointwise(_clip, 6),
    "Neg": Pointwise(_simple("neg"), 1),
    "Abs": Pointwise(_simple("abs"), 1),
    "Sign": Pointwise(_simple("sign"), 9),
    "Floor": Pointwise(_simple("floor"), 1),
    "Ceil": Pointwise(_simple("ceil"), 1),
    "Round": Pointwise(_simple("round"), 11),
    "Reciprocal": Pointwise(_simple("reciprocal"), 1),
    "Sqrt": Pointwise(_simple("sqrt"), 1),
    "Exp": Pointwise(_simple("exp"), 1),
    "Log": Pointwise(_simple("log"), 1),
    "Erf": Pointwise(_simple("erf"), 9),
    "Sin": Pointwise(_simple("sin"), 7),
    "Cos": Pointwise(_simple("cos"), 7),
    "Tan": Pointwise(_simple("tan"), 7),
    "Asin": Pointwise(_simple("asin"), 7),
    "Acos": Pointwise(_simple("acos"), 7),
    "Atan": Pointwise(_simple("atan"), 7),
    "Sinh": Pointwise(_simple("sinh"), 9),
    "Cosh": Pointwise(_simple("cosh"), 9),
    "Asinh": Pointwise(_simple("asinh"), 9),
    "Acosh": Pointwise(_simple("acosh"), 9),
    "Atanh": Pointwise(_simple("atanh"), 9),
    "Tanh": Pointwise(_simple("tanh"), 1),
    "Sigmoid": Pointwise(_simple("sigmoid"), 1),
    "Relu": Pointwise(_simple("relu"), 1),
    "LeakyRelu": Pointwise(_simple("leaky_relu", "alpha=0.009999999776482582"), 1),
    "ThresholdedRelu": Pointwise(_simple("thresholded_relu", "alpha=1"), 1),
    "HardSigmoid": Pointwise(_simple("hard_sigmoid", "alpha=0.20000000298023224", "beta=0.5"), 1),
    "HardSwish": Pointwise(_simple("hard_swish"), 14),
    "Softsign": Pointwise(_simple("softsign"), 1),
    "Softplus": Pointwise(_simple("softplus"), 1),
    "Elu": Pointwise(_simple("elu", "alpha=1"), 1),
    "Selu": Pointwise(_selu, 1),
    "Celu": Pointwise(_celu, 12),
    "Swish": Pointwise(_simple("swish", "alpha=1"), 24),
    "SwiGLU": Pointwise(_swi_glu, 28),
    "Shrink": Pointwise(_shrink, 9, widen=False),
    "Mish": Pointwise(_simple("mish"), 18),
    "Gelu": Pointwise(_gelu, 20),
    "PRelu": Pointwise(_p_relu, 7),
    "Equal": Pointwise(_compare("equal"), 7),
    "Greater": Pointwise(_compare("greater"), 7),
    "Less": Pointwise(_compare("less"), 7),
    "GreaterOrEqual": Pointwise(_compare("greater_equal"), 12),
    "LessOrEqual": Pointwise(_compare("less_equal"), 12),
    "And": Pointwise(_simple("and"), 7),
    "Or": Pointwise(_simple("or"), 7),
    "Xor": Pointwise(_simple("xor"), 7),
    "Not": Pointwise(_simple("not"), 1),
    "BitwiseAnd": Pointwise(_simple("bit_and"), 18),
    "BitwiseOr": Pointwise(_simple("bit_or"), 18),
    "BitwiseXor": Pointwise(_simple("bit_xor"), 18),
    "BitwiseNot": Pointwise(_simple("bit_not"), 18),
    "BitShift": Pointwise(_shift, 11),
    "IsNaN": Pointwise(lambda view, chain, x: chain.emit("is_nan", *x, to="bool"), 9),
    "IsInf": Pointwise(_is_inf, 10),
    "Where": Pointwise(_where, 9, widen=False),
    "Cast": Pointwise(_cast, 6, widen=False),
    "CastLike": Pointwise(_cast_like, 15, widen=False, operands=(0,)),
    "QuantizeLinear": Pointwise(_quantise, 10, widen=False, operands=(0,)),
    "DequantizeLinear": Pointwise(_dequantise, 10, widen=False, operands=(0,)),
}


def _bias_gelu(view: View, chain: Chain, operands: list[Register]) -> Register:
    return chain.emit("gelu", chain.emit("add", *operands))


def _fast_gelu(view: View, chain: Chain, operands: list[Register]) -> Register:
    return chain.emit("gelu_tanh", _fold("add")(view, chain, operands) if operands[1:] else operands[0])


CONTRIB: dict[str, Pointwise] = {
    "Gelu": Pointwise(_simple("gelu")),
    "BiasGelu": Pointwise(_bias_gelu),
    "FastGelu": Pointwise(_fast_gelu),
    "QuickGelu": Pointwise(_simple("swish", "alpha=1.702")),
    "QLinearAdd": Pointwise(_qlinear("add"), operands=(0, 3)),
    "QLinearMul": Pointwise(_qlinear("mul"), operands=(0, 3)),
    "QLinearLeakyRelu": Pointwise(_qlinear("leaky_relu", "alpha=0.009999999776482582"), operands=(0,)),
    "QLinearSigmoid": Pointwise(_qlinear("sigmoid"), operands=(0,)),
}
"""Operators of com.microsoft."""
