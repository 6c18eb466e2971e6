"""The rules for one node: counts of inputs and outputs, attributes, element types."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence

import onnx_ir as ir

from epkit.errors import InvalidModelError, Where
from epkit.model.hazards import bad_attribute
from epkit.model.schemas import Formal, Signature, type_name


def check_call(node: ir.Node, function: ir.Function) -> None:
    """Check a call of a model-local function: no more inputs, outputs or attributes than it has."""
    for what, given, taken in (
        ("inputs", len(node.inputs), len(function.inputs)),
        ("outputs", len(node.outputs), len(function.outputs)),
    ):
        if given > taken:
            raise _wrong(node, f"has {given} {what}; the function {function.name} has {taken}")
    for name in node.attributes:
        if name not in function.attributes:
            raise _wrong(node, f"has the attribute {name!r}, unknown to the function {function.name}")
    refuse_hazards(node)


def check_shape_of_node(node: ir.Node, rules: Signature, version: int) -> None:
    """Check counts and attributes of a node of the standard.

    Raises:
        InvalidModelError: naming the node and what is wrong.
    """
    if rules.deprecated:
        raise _wrong(node, f"uses an operator removed in version {rules.since}; {version} is imported")
    _count(node, "inputs", node.inputs, rules.inputs, (rules.min_inputs, rules.max_inputs))
    if any(value.name for value in node.outputs):
        outputs = [value if value.name else None for value in node.outputs]
        _count(node, "outputs", outputs, rules.outputs, (rules.min_outputs, rules.max_outputs))
    for name, attribute in node.attributes.items():
        if name not in rules.attributes:
            close = difflib.get_close_matches(name, rules.attributes, n=2)
            raise _wrong(
                node,
                f"has the attribute {name!r}, which {node.op_type} does not have as of version {rules.since}"
                + (f"; close names: {', '.join(close)}" if close else ""),
            )
        expected = rules.attributes[name][0]
        if attribute.type.name != expected:
            raise _wrong(node, f"has the attribute {name!r} as {attribute.type.name}; it must be {expected}")
    if node.domain == "":
        refuse_hazards(node)
    if node.domain == "" and node.op_type == "Constant" and _values(node) != 1:
        given = ", ".join(node.attributes) or "no attribute"
        raise _wrong(node, f"has {given}; a Constant has exactly one of {', '.join(rules.attributes)}")
    for name, (_, required) in rules.attributes.items():
        if required and name not in node.attributes:
            raise _wrong(node, f"lacks the attribute {name!r}, which {node.op_type} requires")


def check_types(node: ir.Node, rules: Signature) -> None:
    """Check the types that are known: allowed at their place, and equal where one type parameter says so."""
    bound: dict[str, tuple[str, str]] = {}
    outputs = [value if value.name else None for value in node.outputs]
    for values, formals in ((node.inputs, rules.inputs), (outputs, rules.outputs)):
        for value, formal in _pairs(values, formals):
            if value is None or value.type is None or value.type.dtype == ir.DataType.UNDEFINED:
                continue
            found = type_name(value.type)
            if found not in formal.allowed:
                allowed = _listed(formal.allowed)
                raise _wrong_type(node, value, f"{found}, but {formal.name!r} must be {allowed}")
            other, first = bound.setdefault(formal.parameter, (found, value.name or ""))
            if formal.parameter and other != found:
                raise _wrong_type(node, value, f"{found}, but must be {other} like {first!r}")


def _values(constant: ir.Node) -> int:
    """How many values a Constant of a function may have: of several from the caller, one may be given."""
    references = sum(attribute.is_ref() for attribute in constant.attributes.values())
    return len(constant.attributes) - references + min(references, 1)


def refuse_hazards(node: ir.Node) -> None:
    """Refuse attributes that no implementation can do anything with.

    Raises:
        InvalidModelError: naming the node and the attribute.
    """
    problem = bad_attribute(node)
    if problem:
        raise _wrong(node, problem)


def _pairs(
    values: Sequence[ir.Value | None], formals: Sequence[Formal]
) -> Iterator[tuple[ir.Value | None, Formal]]:
    for index, value in enumerate(values):
        if formals:
            yield value, formals[min(index, len(formals) - 1)]


def _count(
    node: ir.Node,
    what: str,
    values: Sequence[ir.Value | None],
    formals: Sequence[Formal],
    bounds: tuple[int, int],
) -> None:
    named, (least, most) = _without_trailing(values), bounds
    if len(values) < least or len(named) > most:
        allowed = (
            f"at least {least}" if most > 10**6 else f"{least} to {most}" if most > least else str(least)
        )
        raise _wrong(node, f"has {len(named)} {what}; {node.op_type} has {allowed}")
    for formal, value in zip(formals, values, strict=False):
        if value is None and not formal.optional and not formal.variadic:
            raise _wrong(node, f"leaves out {formal.name!r} of its {what}, which {node.op_type} requires")


def _without_trailing(values: Sequence[ir.Value | None]) -> Sequence[ir.Value | None]:
    end = len(values)
    while end and values[end - 1] is None:
        end -= 1
    return values[:end]


def _listed(names: frozenset[str]) -> str:
    shown = sorted(names)
    return ", ".join(shown) if len(shown) <= 6 else f"one of {', '.join(shown[:6])}, ... ({len(shown)} types)"


def _wrong(node: ir.Node, problem: str) -> InvalidModelError:
    return InvalidModelError(
        f"Node {node.name!r} ({node.op_type}) {problem}.",
        where=Where(node=node.name or ""),
        remedy="export the model anew, with opset_import as its operators need",
    )


def _wrong_type(node: ir.Node, value: ir.Value, problem: str) -> InvalidModelError:
    error = _wrong(node, f"has the value {value.name!r} of type {problem}")
    error.at(value=value.name or "")
    return error
