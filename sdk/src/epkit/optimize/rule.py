"""Rules: named rewrites of single places in a graph, and how they are applied.

A rule looks at one node. It answers True if it changed the graph, False if the node is none of its business,
and a sentence if the node came close and had to be refused.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import onnx_ir as ir

from ..backend.subgraph import opset_of
from ..model.walk import graphs_with_nodes
from ._edit import as_attributes, as_tensor, make_constant

Operator = tuple[str, str]
"""Domain and name."""

Verdict = bool | str
"""Changed; not mine; or mine, but for this reason not changed."""


@dataclass(frozen=True)
class Rule:
    """A rewrite that looks at the nodes of some operators.

    Attributes:
        name: as ``epkit explain --rules`` lists it.
        mathematics: what is equal to what.
        roots: the operators at whose nodes it starts.
        rewrite: see the top of this file.
        serves: the rules that it prepares the graph for; without them it has no use.
        needs: operators, of which the model must have all of one set for the rule to find anything; (): it may always.
    """

    name: str
    mathematics: str
    roots: frozenset[Operator]
    rewrite: Callable[[ir.Node, Scope], Verdict]
    serves: tuple[str, ...] = ()
    needs: tuple[frozenset[Operator], ...] = ()

    def may_apply(self, operators: Set[Operator]) -> bool:
        """False if a model of these operators has no place for the rule."""
        if self.roots.isdisjoint(operators):
            return False
        return not self.needs or any(need <= operators for need in self.needs)


def rule(*roots: str, serves: tuple[str, ...] = ()) -> Callable[[Callable[[ir.Node, Scope], Verdict]], Rule]:
    """Declare a function as a rule for nodes of these operators of the standard; its docstring is the maths."""

    def declare(function: Callable[[ir.Node, Scope], Verdict]) -> Rule:
        found = frozenset(("", name) for name in roots)
        return Rule(function.__name__, inspect.cleandoc(function.__doc__ or ""), found, function, serves)

    return declare


@dataclass(frozen=True)
class Applied:
    """A rule changed the graph at a node; a pass, in a number of places."""

    rule: str
    node: str
    changes: int = 1


@dataclass(frozen=True)
class Missed:
    """A rule came close at a node, and refused."""

    rule: str
    node: str
    reason: str


@dataclass
class Ledger:
    """What was done, in order, and what nearly was. With a limit, no more than that is done."""

    limit: int | None = None
    applied: list[Applied] = field(default_factory=list)
    missed: dict[Missed, None] = field(default_factory=dict)

    @property
    def is_open(self) -> bool:
        """Whether anything more may be done."""
        return self.limit is None or len(self.applied) < self.limit


class Names:
    """The names that a model's nodes and values have, those in its functions too, gathered when somebody asks."""

    def __init__(self, model: ir.Model) -> None:
        self._model = model

    @cached_property
    def found(self) -> set[str]:
        """All of them."""
        found: set[str] = set()
        owners = (self._model.graph, *(function.graph for function in self._model.functions.values()))
        for graph, nodes in (each for owner in owners for each in graphs_with_nodes(owner)):
            found.update(value.name for value in graph.inputs if value.name)
            found.update(graph.initializers)
            for node in nodes:
                found.update(value.name for value in node.outputs if value.name)
                found.add(str(node.name))
        return found


class Scope:
    """One graph while rules change it: the nodes by operator, kept up to date by :meth:`insert`.

    Attributes:
        memo: values that rules made and may use again.
    """

    def __init__(self, graph: ir.Graph, nodes: Sequence[ir.Node], model: ir.Model, used: Names) -> None:
        self.graph, self.model = graph, model
        self._used = used
        self.memo: dict[object, ir.Value] = {}
        self._nodes: dict[Operator, list[ir.Node]] = {}
        self._place: dict[ir.Node, int] = {}
        for place, node in enumerate(nodes):
            self._index(node, place)

    def nodes(self, operators: Iterable[Operator]) -> Iterator[ir.Node]:
        """The nodes of some operators, the last first, so that of two matches the larger is found before."""
        found = [node for operator in operators for node in self._nodes.get(operator, [])]
        found.sort(key=self._place.__getitem__, reverse=True)
        return (node for node in found if node.graph is self.graph)

    @property
    def operators(self) -> Set[Operator]:
        """Those of the nodes that are or were in the graph."""
        return self._nodes.keys()

    def insert(self, before: ir.Node, *nodes: ir.Node) -> None:
        """Put nodes into the graph."""
        self.graph.insert_before(before, nodes)
        for node in nodes:
            self._index(node, self._place[before])
            for index, value in enumerate(node.outputs):
                if value.name is None:
                    value.name = self.fresh(f"{node.name}/{index}")

    def make(
        self,
        before: ir.Node,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        attributes: dict[str, int | float | str | Sequence[int]] | None = None,
        version: int | None = None,
        like: ir.Value | None = None,
    ) -> ir.Value:
        """A new node of the standard with one output, put before another; its type is that of ``like``."""
        node = ir.Node(
            "",
            op_type,
            inputs,
            as_attributes(attributes or {}),
            version=before.version if version is None else version,
            name=self.fresh(f"{before.name}/{op_type}"),
        )
        if like is not None:
            node.outputs[0].type, node.outputs[0].shape = like.type, like.shape
        self.insert(before, node)
        return node.outputs[0]

    def constant(self, array: np.ndarray[Any, Any] | ir.TensorProtocol, name: str) -> ir.Value:
        """A new initializer."""
        tensor = as_tensor(array) if isinstance(array, np.ndarray) else array
        return make_constant(self.graph, tensor, self.fresh(name))

    def fresh(self, name: str) -> str:
        """A value name that nothing has yet, made from ``name``."""
        found, count, used = name, 1, self._used.found
        while found in used:
            found, count = f"{name}_{count}", count + 1
        used.add(found)
        return found

    def opset(self, node: ir.Node) -> int:
        """The opset version under which a node is read."""
        return opset_of(node, self.model.opset_imports)

    def replace(self, node: ir.Node, new: ir.Value) -> bool:
        """Put a new value in the place and under the name of a node's only result; the node goes."""
        old = node.outputs[0]
        name, old.name = old.name, None
        old.replace_all_uses_with(new, replace_graph_outputs=True)
        new.name = name
        self.graph.remove(node, safe=True)
        return True

    def remove(self, nodes: Sequence[ir.Node]) -> None:
        """Take nodes out of the graph that nothing else reads."""
        self.graph.remove(nodes, safe=True)

    def place(self, node: ir.Node) -> int:
        """Where a node of this graph comes in the order."""
        return self._place[node]

    def is_after(self, node: ir.Node, other: ir.Node) -> bool:
        """Whether a node of this graph certainly comes after another."""
        return node in self._place and self._place[node] > self._place[other]

    def _index(self, node: ir.Node, place: int) -> None:
        self._place[node] = place
        self._nodes.setdefault((node.domain, node.op_type), []).append(node)


def only_use(value: ir.Value | None) -> bool:
    """Whether exactly one node reads a value, and it is no result."""
    return value is not None and len(value.uses()) == 1 and not value.is_graph_output()


def producer(value: ir.Value | None, *op_types: str) -> ir.Node | None:
    """The node of the standard, of one of these operators, whose first output a value is."""
    node = None if value is None else value.producer()
    if node is None or node.domain != "" or node.op_type not in op_types or value is not node.outputs[0]:
        return None
    return node


def input_of(node: ir.Node, index: int) -> ir.Value | None:
    """An input, or None where it is left out."""
    return node.inputs[index] if index < len(node.inputs) else None


def make_scopes(
    model: ir.Model, graphs: Iterable[tuple[ir.Graph, Sequence[ir.Node]]] | None = None
) -> list[Scope]:
    """A scope for each graph of a model; ``graphs`` are these with their nodes, if somebody has them."""
    used, found = Names(model), graphs_with_nodes(model.graph) if graphs is None else graphs
    return [Scope(graph, nodes, model, used) for graph, nodes in found]


def operators_of(scopes: Sequence[Scope]) -> frozenset[Operator]:
    """The operators that are or were in some graphs."""
    return frozenset[Operator]().union(*(scope.operators for scope in scopes))


def apply_rule(
    applied: Rule, scopes: Sequence[Scope], ledger: Ledger, check: Callable[[str], None] | None = None
) -> int:
    """Apply a rule wherever it fits.

    Args:
        applied: the rule.
        scopes: the graphs of a model.
        ledger: what is done is written there; the limit there counts.
        check: called with the rule's name after each change.

    Returns:
        The number of changes.
    """
    count = 0
    for scope in scopes:
        for node in scope.nodes(applied.roots):
            if ledger.limit is not None and not ledger.is_open:
                return count
            name = node.name
            verdict = applied.rewrite(node, scope)
            if verdict is True:
                count += 1
                ledger.applied.append(Applied(applied.name, str(name)))
                if check is not None:
                    check(applied.name)
            elif verdict:
                ledger.missed.setdefault(Missed(applied.name, str(name), verdict))
    return count
