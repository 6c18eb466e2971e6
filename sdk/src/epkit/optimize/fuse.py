"""Fusing: what a rule matched becomes one call of a function whose body is the matched nodes.

So a fused operator carries its own meaning. A provider that knows it takes it; for any other the body is
inlined again (see ``partition/claims.py``), with the names that the nodes had.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import onnx_ir as ir

from ..backend.subgraph import constant_of
from ..model.inline import KEPT
from ..model.names import PARTS, join_parts
from ._edit import as_attributes
from .formula import DOMAINS
from .pattern import Match, Pattern
from .rule import Operator, Rule, Scope, Verdict


@dataclass(frozen=True)
class Fused:
    """What the fused node gets besides what was matched.

    Attributes:
        attributes: its attributes.
        inputs: by the signature's names, inputs that are made for it (packed weights, say).
        known: by the formula's names, constants that stand in the body for what is computed outside (a zero in the
            target of a Reshape copies, whatever the node's allowzero was).
        inside: by the formula's names, how the body computes a value from one that the operator takes in its place.
    """

    attributes: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, np.ndarray[Any, Any] | ir.Value] = field(default_factory=dict)
    known: Mapping[str, np.ndarray[Any, Any]] = field(default_factory=dict)
    inside: Mapping[str, Inside] = field(default_factory=dict)


@dataclass(frozen=True)
class Inside:
    """In a body: ``op_type(source, *constants)``, the source being an input of the operator, by its name."""

    op_type: str
    source: str
    constants: tuple[np.ndarray[Any, Any], ...] = ()
    attributes: Mapping[str, Any] = field(default_factory=dict)
    version: int = 13


Condition = Callable[[Match, Scope], Fused | dict[str, Any] | str]
"""Looks at a match: the attributes of the fused node, or the reason why the rule does not apply."""


@dataclass(frozen=True)
class Fusion(Rule):
    """A rule that replaces what its patterns match by one operator.

    Attributes:
        target, since: the operator, and the version of its domain under which it is read.
        operators: all that occur in the patterns.
    """

    target: Operator = ("", "")
    since: int = 1
    patterns: tuple[Pattern, ...] = ()

    @cached_property
    def operators(self) -> frozenset[Operator]:
        """All operators that occur in the patterns."""
        return frozenset().union(*(pattern.operators for pattern in self.patterns))

    @cached_property
    def renames(self) -> Operator | None:
        """The operator that the rule only gives another name, if it does that."""
        return next(iter(self.operators), None) if all(len(p.operators) == 1 for p in self.patterns) else None


_SIGNATURE = re.compile(r"(?:(\w+)\.)?(\w+)(?:-(\d+))?\((.*)\)\s*->\s*(.*)")


def fusion(signature: str, *formulas: str) -> Callable[[Callable[..., Fused | dict[str, Any] | str]], Fusion]:
    """Declare a condition as a fusion rule: its name is the rule's, its docstring the mathematics.

    Args:
        signature: the operator, ``ms.BiasGelu(A, B) -> C`` or, with a version, ``Gelu-20(X) -> Y``.
        formulas: its spellings, most specific first; see :mod:`.pattern`.

    The condition takes the match and, if it has a second parameter, the scope, to make what the operator takes.
    """
    found = _SIGNATURE.fullmatch(signature)
    if found is None:
        raise ValueError(f"{signature!r} is no signature")
    prefix, op_type, since, inputs, outputs = found.groups()
    patterns = tuple(Pattern(_names(inputs), _names(outputs), formula) for formula in formulas)
    roots = frozenset[Operator]().union(*(pattern.roots for pattern in patterns))
    by_root = {root: [pattern for pattern in patterns if root in pattern.roots] for root in roots}
    target = (DOMAINS[prefix] if prefix else "", op_type)

    def declare(function: Callable[..., Fused | dict[str, Any] | str]) -> Fusion:
        takes_scope = len(inspect.signature(function).parameters) == 2
        condition: Condition = function if takes_scope else lambda match, scope: function(match)

        def rewrite(node: ir.Node, scope: Scope) -> Verdict:
            return _fuse(node, scope, by_root[node.domain, node.op_type], condition, target, int(since or 1))

        return Fusion(
            function.__name__,
            inspect.cleandoc(function.__doc__ or ""),
            roots,
            rewrite,
            needs=tuple(pattern.required for pattern in patterns),
            target=target,
            since=int(since or 1),
            patterns=patterns,
        )

    return declare


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _fuse(
    node: ir.Node,
    scope: Scope,
    patterns: Sequence[Pattern],
    condition: Condition,
    target: Operator,
    since: int,
) -> Verdict:
    problem = ""
    for pattern in patterns:
        match = pattern.match(node)
        if isinstance(match, Match):
            refused = _apply(match, pattern, condition, scope, target, since)
            if refused is None:
                return True
        else:
            refused = match
        problem = problem or refused or ""
    return problem or False


def _apply(
    match: Match, pattern: Pattern, condition: Condition, scope: Scope, target: Operator, since: int
) -> str | None:
    fused = condition(match, scope)
    return fused if isinstance(fused, str) else _replace(match, pattern, fused, scope, target, since)


def _replace(
    match: Match,
    pattern: Pattern,
    fused: Fused | dict[str, Any],
    scope: Scope,
    target: Operator,
    since: int,
) -> str | None:
    """Put one call in the place of the matched nodes, or say why that cannot be."""
    if isinstance(fused, dict):
        fused = Fused(fused)
    given = {name: value for name, value in fused.attributes.items() if value is not None}
    fused = replace(fused, attributes=given)
    nodes = _in_order(match)
    outputs = _outputs(match, pattern)
    if problem := _read_too_early(outputs, match, scope):
        return problem
    body = _body(match, pattern, nodes, scope, target, fused)
    if isinstance(body, str):
        return body
    made = {
        name: scope.constant(given, f"{match.root.name}/{name}") if isinstance(given, np.ndarray) else given
        for name, given in fused.inputs.items()
    }
    inputs = [made.get(name, match.names.get(name)) for name in pattern.inputs]
    while inputs and inputs[-1] is None:
        inputs.pop()
    call = ir.Node(
        *target,
        inputs,
        as_attributes(fused.attributes),
        overload=body.overload,
        outputs=[ir.Value(name="") if value is None else _twin(value) for value in outputs],
        name=match.root.name,
        version=since,
        metadata_props={PARTS: join_parts(nodes)},
    )
    scope.insert(match.root, call)
    for old, new in zip(outputs, call.outputs, strict=True):
        if old is not None:
            name, old.name = old.name, None
            old.replace_all_uses_with(new, replace_graph_outputs=True)
            new.name = name
    kept = {node for made_by, node in match.nodes.items() if made_by.is_shared}
    scope.remove([node for node in nodes if node not in kept])
    scope.model.functions[body.identifier()] = body
    scope.model.opset_imports.setdefault(target[0], since)
    return None


def _twin(value: ir.Value) -> ir.Value:
    return ir.Value(name=value.name, type=value.type, shape=value.shape)


def _in_order(match: Match) -> list[ir.Node]:
    """The matched nodes, each after those that it reads from."""
    order: dict[ir.Node, None] = {}
    nodes = set(match.nodes.values())

    def visit(node: ir.Node) -> None:
        for value in node.inputs:
            source = None if value is None else value.producer()
            if source in nodes and source not in order:
                visit(source)
        order[node] = None

    visit(match.root)
    return list(order)


def _read_too_early(outputs: Sequence[ir.Value | None], match: Match, scope: Scope) -> str:
    """Why one call cannot make all outputs: something needs one of them before the last can be made."""
    nodes = set(match.nodes.values())
    for value in outputs:
        if value is None or value.producer() is match.root:
            continue
        for use in value.uses():
            if use.node not in nodes and not scope.is_after(use.node, match.root):
                return f"{value.name} is read by {use.node.name} before {match.root.outputs[0].name} is made"
    return ""


def _outputs(match: Match, pattern: Pattern) -> list[ir.Value | None]:
    """The matched values in the operator's order; those at the end that nothing outside reads are left out."""
    nodes = set(match.nodes.values())
    found = [match.names.get(name) for name in pattern.outputs]
    while len(found) > 1 and (found[-1] is None or not is_read_outside(found[-1], nodes)):
        found.pop()
    return found


def is_read_outside(value: ir.Value, nodes: set[ir.Node]) -> bool:
    """Whether something beside some nodes needs a value."""
    return value.is_graph_output() or any(use.node not in nodes for use in value.uses())


def _body(
    match: Match,
    pattern: Pattern,
    nodes: Sequence[ir.Node],
    scope: Scope,
    target: Operator,
    fused: Fused,
) -> ir.Function | str:
    """The matched nodes as a function; constants that the operator does not take are inside of it."""
    formals = [ir.Value(name=f"{name}.in") for name in pattern.inputs]
    proxies: dict[ir.Value, ir.Value] = {}
    for name, formal in zip(pattern.inputs, formals, strict=True):
        given = match.names.get(name)
        if given is not None and given not in proxies:
            formal.type = given.type
            proxies[given] = formal
    inside = _computed_inside(fused, match, dict(zip(pattern.inputs, formals, strict=True)), proxies)
    known = {match.names[name]: array for name, array in fused.known.items() if name in match.names}
    for node in nodes:
        for value in node.inputs:
            if value is None or value in proxies:
                continue
            constant = _constant(value, known.get(value))
            if constant is None:
                return f"{value.name} is computed, and {target[1]} does not take it"
            inside.append(constant)
            proxies[value] = constant.outputs[0]
        inside.append(_copy(node, proxies, scope))
        if node.op_type == "Reshape" and node.inputs[1] in known:
            inside[-1].attributes.pop("allowzero", None)
    first = match.root.outputs[0]  # in the place of an output that is not made, and that nothing reads
    results = [proxies[first if value is None else value] for value in _outputs(match, pattern)]
    graph = ir.Graph(formals, results, nodes=inside, opset_imports=dict(scope.model.opset_imports))
    declared = as_attributes(fused.attributes)
    return ir.Function(*target, str(match.root.outputs[0].name), graph=graph, attributes=declared)


def _computed_inside(
    fused: Fused, match: Match, formals: Mapping[str, ir.Value], proxies: dict[ir.Value, ir.Value]
) -> list[ir.Node]:
    nodes: list[ir.Node] = []
    for name, how in fused.inside.items():
        value, source = match.names[name], formals[how.source]
        given = fused.inputs.get(how.source)
        source.type = given.type if isinstance(given, ir.Value) else source.type
        held = [_constant(value, array) for array in how.constants]
        inputs = [source, *(node.outputs[0] for node in held if node is not None)]
        made = ir.Value(name=value.name, type=value.type, shape=value.shape)
        attributes = as_attributes(how.attributes)
        nodes += [node for node in held if node is not None]
        nodes.append(ir.Node("", how.op_type, inputs, attributes, outputs=[made], version=how.version))
        proxies[value] = made
    return nodes


def _copy(node: ir.Node, proxies: dict[ir.Value, ir.Value], scope: Scope) -> ir.Node:
    made = [ir.Value(name=value.name, type=value.type, shape=value.shape) for value in node.outputs]
    proxies.update(zip(node.outputs, made, strict=True))
    return ir.Node(
        node.domain,
        node.op_type,
        [None if value is None else proxies[value] for value in node.inputs],
        list(node.attributes.data.values()),
        overload=node.overload,
        outputs=made,
        version=scope.opset(node),
        name=node.name,
        doc_string=node.doc_string,
        metadata_props={**node.metadata_props, KEPT: ""},
    )


def _constant(value: ir.Value, known: np.ndarray[Any, Any] | None) -> ir.Node | None:
    tensor = value.const_value if known is None else ir.Tensor(known, name=f"{value.name}.known")
    if tensor is None or (known is None and constant_of(value) is None):
        return None
    if known is None:
        output = ir.Value(name=value.name, type=value.type, shape=value.shape)
    else:
        output = ir.Value(name=tensor.name, type=ir.TensorType(tensor.dtype))
    held = [ir.AttrTensor("value", tensor)]
    return ir.Node("", "Constant", [], held, outputs=[output], metadata_props={KEPT: ""})
