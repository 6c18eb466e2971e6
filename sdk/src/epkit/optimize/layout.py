"""Channels last, for providers that ask for it.

A provider asks by knowing operators of the domain ``epkit.channels_last``: there ``Conv``, ``MaxPool`` and so on
mean what the standard's mean, except that their data is [batch, spatial axes, channels] (weights are as ever).
Such an operator is put in the place of the standard's between two transpositions, which are then moved towards
the results and cancel where two meet. As every fused operator it carries its meaning as a function.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import onnx_ir as ir

from ..backend.subgraph import constant_of
from ..model.inline import KEPT
from .fuse import Fusion
from .rule import Rule, Scope, Verdict, producer, rule
from .shapes import dims_text, rank_of
from .simplify_transposes import merge_transposes, permutation

DOMAIN = "epkit.channels_last"

_DATA = {
    ("", "Conv"): (0,),
    ("", "ConvTranspose"): (0,),
    ("", "MaxPool"): (0,),
    ("", "AveragePool"): (0,),
    ("", "GlobalAveragePool"): (0,),
    ("", "GlobalMaxPool"): (0,),
    ("com.microsoft", "FusedConv"): (0, 3),
}
"""The operators, and which of their inputs have channels."""

_UNARY = (
    "Relu", "LeakyRelu", "Sigmoid", "Tanh", "HardSigmoid", "HardSwish", "Swish", "Elu", "Selu", "Softplus", "Erf",
    "Gelu", "Mish", "Abs", "Neg", "Sqrt", "Exp", "Log", "Clip", "Cast", "Identity",
)  # fmt: skip
_BINARY = ("Add", "Sub", "Mul", "Div", "Max", "Min", "Pow", "PRelu")


def to_last(rank: int) -> list[int]:
    """[0, 2, 3, ..., 1]: the permutation that takes the channels to the end."""
    return [0, *range(2, rank), 1]


def to_first(rank: int) -> list[int]:
    """[0, n, 1, 2, ...]: the permutation that takes them back."""
    return [0, rank - 1, *range(1, rank - 1)]


def _channels_last(operator: tuple[str, str], node: ir.Node, scope: Scope) -> Verdict:
    rank = rank_of(node.inputs[0])
    places = [
        place for place in _DATA[operator] if place < len(node.inputs) and node.inputs[place] is not None
    ]
    if rank is None or rank < 3:
        return f"the number of axes of {dims_text(node.inputs[0])} is unknown" if node.inputs[0] else False
    if len([output for output in node.outputs if output.name]) != 1:
        return "it has more outputs than one"
    output, inputs = node.outputs[0], list(node.inputs)
    for place in places:
        inputs[place] = _moved(inputs[place], to_last(rank), node, scope)
    body = _body(node, places, rank, scope)
    call = ir.Node(
        DOMAIN,
        node.op_type,
        inputs,
        list(node.attributes.values()),
        overload=body.overload,
        version=1,
        name=scope.fresh(f"{node.name}/last"),
    )
    last = call.outputs[0]
    last.type, last.shape = output.type, _permuted(output, to_last(rank))
    scope.insert(node, call)
    scope.model.functions[body.identifier()] = body
    scope.model.opset_imports.setdefault(DOMAIN, 1)
    back = scope.make(node, "Transpose", [last], {"perm": to_first(rank)}, version=13, like=output)
    return scope.replace(node, back)


def _moved(value: ir.Value | None, perm: list[int], before: ir.Node, scope: Scope) -> ir.Value:
    assert value is not None
    made = scope.make(before, "Transpose", [value], {"perm": perm}, version=13)
    made.type, made.shape = value.type, _permuted(value, perm)
    return made


def _permuted(value: ir.Value, perm: list[int]) -> ir.Shape | None:
    return None if value.shape is None else ir.Shape([value.shape[axis] for axis in perm])


def _body(node: ir.Node, places: list[int], rank: int, scope: Scope) -> ir.Function:
    """Channels to the front, the operator, channels to the end."""
    formals = [ir.Value(name=f"i{index}", type=v.type if v else None) for index, v in enumerate(node.inputs)]
    inner: list[ir.Value | None] = [
        None if value is None else formal for value, formal in zip(node.inputs, formals, strict=True)
    ]
    nodes: list[ir.Node] = []
    for place in places:
        perm = [ir.AttrInt64s("perm", to_first(rank))]
        nodes.append(ir.Node("", "Transpose", [formals[place]], perm, version=13))
        inner[place] = nodes[-1].outputs[0]
    output = node.outputs[0]
    copied = ir.Node(
        node.domain,
        node.op_type,
        inner,
        list(node.attributes.values()),
        overload=node.overload,
        outputs=[ir.Value(name=output.name, type=output.type)],
        version=scope.opset(node),
        name=node.name,
        metadata_props={**node.metadata_props, KEPT: ""},
    )
    last = ir.Node("", "Transpose", [copied.outputs[0]], [ir.AttrInt64s("perm", to_last(rank))], version=13)
    graph = ir.Graph(
        formals, last.outputs, nodes=[*nodes, copied, last], opset_imports=dict(scope.model.opset_imports)
    )
    return ir.Function(
        DOMAIN, node.op_type, str(output.name), graph=graph, attributes=list(node.attributes.values())
    )


def _rule(operator: tuple[str, str]) -> Fusion:
    name = f"channels_last_{operator[1]}"
    says = f"{operator[1]}(x) = first(channels_last.{operator[1]}(last(x))), where last and first transpose."
    return Fusion(
        name, says, frozenset({operator}), partial(_channels_last, operator), target=(DOMAIN, operator[1])
    )


CHANNELS_LAST = tuple(map(_rule, _DATA))
_SERVED = tuple(each.name for each in CHANNELS_LAST)


def _lifted(value: ir.Value | None) -> ir.Node | None:
    """The transposition to the front that makes a value, if one does."""
    before = producer(value, "Transpose")
    perm = None if before is None else permutation(before)
    return (
        before
        if before is not None and perm is not None and len(perm) > 2 and perm == to_first(len(perm))
        else None
    )


@rule(*_UNARY, serves=_SERVED)
def sink_below_unary(node: ir.Node, scope: Scope) -> Verdict:
    """f(first(x)) = first(f(x)) for f that works element by element."""
    before = _lifted(node.inputs[0])
    if before is None:
        return False
    return _sink(node, [before.inputs[0], *node.inputs[1:]], len(permutation(before) or ()), scope)


@rule(*_BINARY, serves=_SERVED)
def sink_below_binary(node: ir.Node, scope: Scope) -> Verdict:
    """f(first(x), first(y)) = first(f(x, y)), where y may be a constant that is transposed instead."""
    lifted = [_lifted(value) for value in node.inputs]
    ranks = {len(permutation(each) or ()) for each in lifted if each is not None}
    if len(ranks) != 1:
        return False
    (rank,) = ranks
    inputs: list[ir.Value | None] = []
    for each, value in zip(lifted, node.inputs, strict=True):
        array = constant_of(value)
        if each is not None:
            inputs.append(each.inputs[0])
        elif array is not None and array.ndim <= rank and value is not None:
            whole = array.reshape([1] * (rank - array.ndim) + list(array.shape)) if array.ndim else array
            turned = np.ascontiguousarray(whole.transpose(to_last(rank))) if array.ndim else array
            inputs.append(scope.constant(turned, f"{value.name}/last"))
        else:
            return f"{value.name if value else ''} has its channels in front"
    return _sink(node, inputs, rank, scope)


@rule("Concat", serves=_SERVED)
def sink_below_concat(node: ir.Node, scope: Scope) -> Verdict:
    """Concat(first(x), first(y); axis) = first(Concat(x, y; the same axis at its new place))."""
    lifted = [_lifted(value) for value in node.inputs]
    ranks = {len(permutation(each) or ()) for each in lifted if each is not None}
    if len(ranks) != 1 or None in lifted:
        return False
    (rank,) = ranks
    axis = to_first(rank)[node.attributes["axis"].as_int() % rank]
    node.attributes["axis"] = ir.AttrInt64("axis", axis)
    return _sink(node, [each.inputs[0] for each in lifted if each is not None], rank, scope)


def _sink(node: ir.Node, inputs: list[ir.Value | None], rank: int, scope: Scope) -> Verdict:
    output = node.outputs[0]
    function = scope.model.functions.get(node.op_identifier())
    for value in (value for inner in function or () for value in inner.outputs):
        value.shape = None  # it was that of channels in front
    last = ir.Node(
        node.domain,
        node.op_type,
        inputs,
        list(node.attributes.values()),
        overload=node.overload,
        version=node.version,
        name=scope.fresh(f"{node.name}/last"),
    )
    last.outputs[0].type, last.outputs[0].shape = output.type, _permuted(output, to_last(rank))
    scope.insert(node, last)
    back = scope.make(node, "Transpose", [last.outputs[0]], {"perm": to_first(rank)}, version=13, like=output)
    return scope.replace(node, back)


RULES: tuple[Rule, ...] = (
    *CHANNELS_LAST,
    sink_below_unary,
    sink_below_binary,
    sink_below_concat,
    merge_transposes,
)
