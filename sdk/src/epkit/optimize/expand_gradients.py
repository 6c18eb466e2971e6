"""Gradient nodes (ai.onnx.preview.training) become the operators that compute them."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from ..errors import InvalidModelError, Where
from ..model.infer import infer
from ..model.inline import inline_call
from ..model.order import sort_graphs
from ..model.walk import all_graphs, bodies
from .gradients.chain import expand, value_names

DOMAIN = "ai.onnx.preview.training"


def expand_gradients(model: ir.Model) -> int:
    """``dx = Gradient(x; xs=["x"], y="y")`` becomes the chain rule, from y back to x.

    The gradient is that of the sum of y's elements. A node without a rule of its own is replaced by what it
    means, where the model or the standard says so in other operators. Where the node is given other values
    than those named, the operators between are computed anew for these.

    Raises:
        InvalidModelError: a name is unknown, or names something that depends on another.
        PlacementError: an operator on the way has no derivative here.
    """
    if _first_gradient(model) is None and not any(_calls_with_gradients(model)):
        return 0
    _bind_names(model)
    _inline_functions_with_gradients(model)
    count = 0
    while (node := _first_gradient(model)) is not None:
        expand(model, node)
        infer(model)
        count += 1
    return count


def _is_gradient(node: ir.Node) -> bool:
    return node.domain == DOMAIN and node.op_type == "Gradient"


def _first_gradient(model: ir.Model) -> ir.Node | None:
    """The next to expand: outer graphs come first, and one that another differentiates before that."""
    return next((node for graph in all_graphs(model.graph) for node in graph if _is_gradient(node)), None)


# ---- names become edges ----


def _bind_names(model: ir.Model) -> None:
    """Append the values that a Gradient's attributes name to its inputs: xs, zs, y.

    Names have a meaning in one scope only; edges survive inlining, and say what has to come first.
    """
    owners: list[ir.Graph | ir.Function] = [model.graph, *model.functions.values()]
    for owner in owners:
        _bind_in(owner, {})
        sort_graphs(owner)


def _bind_in(owner: ir.Graph | ir.Function, outer: dict[str, ir.Value]) -> None:
    visible = outer | {str(value.name): value for value in owner.inputs}
    if isinstance(owner, ir.Graph):
        visible |= dict(owner.initializers)
    visible |= {value.name: value for node in owner for value in node.outputs if value.name}
    for node in owner:
        for _, body in bodies(node):
            _bind_in(body, visible)
        if _is_gradient(node):
            _bind(node, visible)


def _bind(node: ir.Node, visible: dict[str, ir.Value]) -> None:
    names = _names(node)
    given = len(node.inputs)
    node.resize_inputs(given + len(names))
    for index, name in enumerate(names):
        if name not in visible:
            raise invalid(node, f"names the value {name!r}, which its graph does not have")
        node.replace_input_with(given + index, visible[name])


def _names(node: ir.Node) -> list[str]:
    if any(attribute.is_ref() for attribute in node.attributes.values()):
        raise invalid(node, "takes its names from a function's attributes, where they name no value")
    xs, zs = (node.attributes.get_strings(name, ()) for name in ("xs", "zs"))
    if len(node.inputs) != len(xs) + len(zs) or None in node.inputs:
        raise invalid(node, f"needs an input for each of the {len(xs) + len(zs)} names in xs and zs")
    if len(node.outputs) > len(xs):
        raise invalid(node, f"has {len(node.outputs)} outputs for the {len(xs)} names in xs")
    return [*xs, *zs, node.attributes["y"].as_string()]


def invalid(node: ir.Node, problem: str) -> InvalidModelError:
    """An error about a Gradient node."""
    return InvalidModelError(
        f"Node {node.name!r} (Gradient) {problem}.",
        where=Where(stage="optimise", node=str(node.name)),
        remedy="xs and zs name independent values that y is computed from, y the value to differentiate",
    )


# ---- functions ----


def _inline_functions_with_gradients(model: ir.Model) -> None:
    names = value_names(model)
    inlined: set[ir.OperatorIdentifier] = set()
    while calls := list(_calls_with_gradients(model)):
        for node in calls:
            assert isinstance(node.graph, ir.Graph)
            inlined.add(node.op_identifier())
            inline_call(node.graph, node, model.functions[node.op_identifier()], names)
    for key in inlined:
        del model.functions[key]
    infer(model)


def _calls_with_gradients(model: ir.Model) -> Iterator[ir.Node]:
    for graph in all_graphs(model.graph):
        for node in list(graph):
            if node.op_identifier() in model.functions and _has_gradient(node, model):
                yield node


def _has_gradient(call: ir.Node, model: ir.Model) -> bool:
    return any(
        _is_gradient(node) or (node.op_identifier() in model.functions and _has_gradient(node, model))
        for node in model.functions[call.op_identifier()].all_nodes()
    )
