"""The rules for one node: counts of inputs and outputs, attributes, element types."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence

import onnx_ir as ir

from epkit.errors import InvalidModelError, Where
from epkit.model.schemas import Formal, Signature, type_name

INT, INTS = ir.AttributeType.INT, ir.AttributeType.INTS
_WIDE = frozenset({"value_int", "value_ints", "starts", "ends"})  # attributes that hold any 64-bit number
_TERM = r"[A-Za-z ]*(?:\.\.\.[A-Za-z ]*)?"
_EQUATION = re.compile(rf"{_TERM}(,{_TERM})*(->{_TERM})?")


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
    _check_whole_numbers(node)


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
        _check_whole_numbers(node)
        if node.op_type == "Einsum":
            _check_equation(node)
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


def _check_whole_numbers(node: ir.Node) -> None:
    """Axes, strides and the like fit 32 bits; the shape inference of onnx 1.23 crashes on some that do not."""
    for name, attribute in node.attributes.items():
        if attribute.is_ref() or name in _WIDE or attribute.type not in (INT, INTS):
            continue
        for number in (attribute.value,) if attribute.type == INT else attribute.value:
            if not -(2**31) <= number < 2**31:
                raise _wrong(node, f"has the attribute {name!r} with {number}, which is out of range")


def _check_equation(node: ir.Node) -> None:
    """A malformed equation sends the shape inference of onnx 1.23 into an endless loop."""
    equation = node.attributes.get("equation")
    if equation is not None and not equation.is_ref() and not _EQUATION.fullmatch(str(equation.value)):
        raise _wrong(node, f"has the malformed equation {equation.value!r}")


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
    values, (least, most) = _without_trailing(values), bounds
    if not least <= len(values) <= most:
        allowed = (
            f"at least {least}" if most > 10**6 else f"{least} to {most}" if most > least else str(least)
        )
        raise _wrong(node, f"has {len(values)} {what}; {node.op_type} has {allowed}")
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
