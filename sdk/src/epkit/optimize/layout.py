"""Layouts of channels, for providers that ask for them.

A provider asks by knowing operators of a layout's domain: in ``epkit.channels_last``, ``Conv``, ``MaxPool`` and so
on mean what the standard's mean, except that their data is [batch, spatial axes, channels]; in
``epkit.blocks_of_16`` it is [batch, channels / 16, spatial axes, 16]. Weights are as ever. Such an operator is put
in the place of the standard's between two changes of layout. Those at the end are then moved towards the results,
and cancel where they meet one into the layout. As every fused operator it carries its meaning as a function.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import onnx_ir as ir

from ..backend.subgraph import constant_of
from ..model.inline import KEPT
from ._edit import bypass
from .fuse import Fusion
from .layouts import LAYOUTS, Layout
from .rule import Rule, Scope, Verdict, rule
from .shapes import dims_text
from .simplify_transposes import merge_transposes

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


def _lay_out(layout: Layout, operator: tuple[str, str], node: ir.Node, scope: Scope) -> Verdict:
    places = [
        place for place in _DATA[operator] if place < len(node.inputs) and node.inputs[place] is not None
    ]
    if node.inputs[0] is None:
        return False
    if len([output for output in node.outputs if output.name]) != 1:
        return "it has more outputs than one"
    output, inputs = node.outputs[0], list(node.inputs)
    for value in (*(inputs[place] for place in places), output):
        if problem := layout.refusal(value):
            return problem
    body = _body(layout, node, places, scope)
    for place in places:
        value = inputs[place]
        assert value is not None
        inputs[place] = layout.enter(value, node, scope)
    call = ir.Node(
        layout.domain,
        node.op_type,
        inputs,
        list(node.attributes.values()),
        overload=body.overload,
        version=1,
        name=scope.fresh(f"{node.name}/{layout.name}"),
    )
    made = call.outputs[0]
    made.type, made.shape = output.type, layout.shape(output)
    scope.insert(node, call)
    scope.model.functions[body.identifier()] = body
    scope.model.opset_imports.setdefault(layout.domain, 1)
    return scope.replace(node, layout.leave(made, output, node, scope))


def _body(layout: Layout, node: ir.Node, places: list[int], scope: Scope) -> ir.Function:
    """Data out of the layout, the operator, its result into it."""
    formals = [ir.Value(name=f"i{index}", type=v.type if v else None) for index, v in enumerate(node.inputs)]
    inner: list[ir.Value | None] = [
        None if value is None else formal for value, formal in zip(node.inputs, formals, strict=True)
    ]
    nodes: list[ir.Node] = []
    for place in places:
        given = node.inputs[place]
        assert given is not None
        nodes += layout.leaving(formals[place], given)
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
    nodes += [copied, *layout.entering(copied.outputs[0], output)]
    graph = ir.Graph(formals, nodes[-1].outputs, nodes=nodes, opset_imports=dict(scope.model.opset_imports))
    attributes = list(node.attributes.values())
    return ir.Function(layout.domain, node.op_type, str(output.name), graph=graph, attributes=attributes)


def _rule(layout: Layout, operator: tuple[str, str]) -> Fusion:
    op_type = operator[1]
    name = f"{layout.name}_{op_type}"
    says = f"{op_type}(x) = back({layout.domain}.{op_type}(into(x))), where into and back change the layout."
    rewrite = partial(_lay_out, layout, operator)
    return Fusion(name, says, frozenset({operator}), rewrite, target=(layout.domain, op_type))


FUSIONS = tuple(_rule(layout, operator) for layout in LAYOUTS for operator in _DATA)
_SERVED = tuple(each.name for each in FUSIONS)


def _layout_of(node: ir.Node) -> Layout | None:
    """The layout from which an input of a node was brought back, if there is one."""
    return next((each for each in LAYOUTS for value in node.inputs if each.left(value) is not None), None)


@rule(*_UNARY, serves=_SERVED)
def sink_below_unary(node: ir.Node, scope: Scope) -> Verdict:
    """f(back(x)) = back(f(x)) for f that works element by element."""
    layout = _layout_of(node)
    source = None if layout is None else layout.left(node.inputs[0])
    if layout is None or source is None:
        return False
    return _sink(layout, node, [source, *node.inputs[1:]], scope)


sink_below_unary = replace(
    sink_below_unary,
    roots=sink_below_unary.roots | {("com.microsoft", name) for name in ("Gelu", "QuickGelu")},
)


@rule(*_BINARY, serves=_SERVED)
def sink_below_binary(node: ir.Node, scope: Scope) -> Verdict:
    """f(back(x), back(y)) = back(f(x, y)), where y may be a constant that is brought into the layout instead."""
    layout = _layout_of(node)
    if layout is None:
        return False
    ranks = {len(v.shape) for v in node.inputs if v is not None and layout.left(v) is not None and v.shape}
    if len(ranks) != 1:
        return False
    (rank,) = ranks
    inputs: list[ir.Value | None] = []
    for value in node.inputs:
        inner = layout.left(value) or _constant(layout, value, rank, scope)
        if inner is None:
            return f"{value.name if value else ''} has its channels in front, or not of such a number"
        inputs.append(inner)
    return _sink(layout, node, inputs, scope)


def _constant(layout: Layout, value: ir.Value | None, rank: int, scope: Scope) -> ir.Value | None:
    """A constant in the layout of values that have so many axes otherwise, or None."""
    array = constant_of(value)
    if array is None or value is None or array.ndim > rank:
        return None
    if not array.ndim:
        return value
    turned = layout.array(array.reshape([1] * (rank - array.ndim) + list(array.shape)))
    return (
        None
        if turned is None
        else scope.constant(np.ascontiguousarray(turned), f"{value.name}/{layout.name}")
    )


@rule("Concat", serves=_SERVED)
def sink_below_concat(node: ir.Node, scope: Scope) -> Verdict:
    """Concat(back(x), back(y); axis) = back(Concat(x, y; the same axis at its new place))."""
    layout = _layout_of(node)
    sources = [] if layout is None else [layout.left(value) for value in node.inputs]
    output = node.outputs[0]
    if layout is None or None in sources or output.shape is None:
        return False
    rank = len(output.shape)
    axis = layout.axis(node.attributes["axis"].as_int() % rank, rank)
    node.attributes["axis"] = ir.AttrInt64("axis", axis)
    return _sink(layout, node, sources, scope)


@rule("Split", serves=_SERVED)
def sink_below_split(node: ir.Node, scope: Scope) -> Verdict:
    """Split(back(x); axis) = back of each of Split(x; the same axis at its new place)."""
    layout = _layout_of(node)
    source = None if layout is None else layout.left(node.inputs[0])
    if layout is None or source is None:
        return False
    if problem := next(filter(None, map(layout.refusal, node.outputs)), None):
        return problem
    shapes = [layout.shape(output) for output in node.outputs]
    rank = len(node.outputs[0].shape or ())
    axis = layout.axis(node.attributes.get_int("axis", 0) % rank, rank)
    sizes = [shape[axis] for shape in shapes]
    if not all(isinstance(size, int) for size in sizes):
        return f"the sizes of the pieces are not known: {dims_text(node.outputs[0])}"
    lengths = scope.constant(np.array(sizes, np.int64), f"{node.name}/sizes")
    made = [ir.Value(type=old.type, shape=shape) for old, shape in zip(node.outputs, shapes, strict=True)]
    name = scope.fresh(f"{node.name}/{layout.name}")
    at = [ir.AttrInt64("axis", axis)]
    scope.insert(node, ir.Node("", "Split", [source, lengths], at, outputs=made, version=13, name=name))
    for old, value in zip(node.outputs, made, strict=True):
        back = layout.leave(value, old, node, scope)
        kept, old.name = old.name, None
        old.replace_all_uses_with(back, replace_graph_outputs=True)
        back.name = kept
    scope.remove([node])
    return True


def _sink(layout: Layout, node: ir.Node, inputs: list[ir.Value | None], scope: Scope) -> Verdict:
    output = node.outputs[0]
    if problem := layout.refusal(output):
        return problem
    function = scope.model.functions.get(node.op_identifier())
    for value in (value for inner in function or () for value in inner.outputs):
        value.shape = None  # it was that of channels in front
    inside = ir.Node(
        node.domain,
        node.op_type,
        inputs,
        list(node.attributes.values()),
        overload=node.overload,
        version=node.version,
        name=scope.fresh(f"{node.name}/{layout.name}"),
    )
    inside.outputs[0].type, inside.outputs[0].shape = output.type, layout.shape(output)
    scope.insert(node, inside)
    return scope.replace(node, layout.leave(inside.outputs[0], output, node, scope))


def _cancel_blocks(node: ir.Node, scope: Scope) -> Verdict:
    """ToBlocks(FromBlocks(x)) = x."""
    layout = next(each for each in LAYOUTS if each.domain == node.domain)
    source = layout.left(node.inputs[0])
    return source is not None and bypass(node, source)


cancel_blocks = Rule(
    "cancel_blocks",
    str(_cancel_blocks.__doc__),
    frozenset((layout.domain, "ToBlocks") for layout in LAYOUTS),
    _cancel_blocks,
    _SERVED,
)

RULES: tuple[Rule, ...] = (
    *FUSIONS,
    sink_below_unary,
    sink_below_binary,
    sink_below_concat,
    sink_below_split,
    merge_transposes,
    cancel_blocks,
)
