"""Running the phases of a level, each until nothing changes."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import onnx_ir as ir

from ..backend.provider import Provider
from ..errors import EpkitError, InvalidModelError, OptionError, Where
from ..knobs import CHECKED, STOP_AFTER
from ..model.infer import infer, is_settled, untyped
from ..model.walk import all_graphs, all_nodes, graphs_with_nodes, reads
from .levels import LEVELS, PREPARE, SILENT, SILENT_RULES, STARTS, Pass, Phase
from .rule import Applied, Ledger, Missed, Operator, Rule, Scope, apply_rule, make_scopes, operators_of
from .wanted import Wanted

ROUNDS = 8
"""A pass may make work for an earlier one; real models settle in two or three rounds."""


@dataclass(frozen=True)
class PassResult:
    """What one pass or rule did, over all rounds."""

    name: str
    changes: int
    seconds: float


@dataclass(frozen=True)
class Optimised:
    """The model after the passes.

    Attributes:
        applied: what was done, in order; ``EPKIT_STOP_AFTER=N`` stops after the first N of these.
        missed: where a rule came close, and why it refused.
    """

    model: ir.Model
    level: str
    passes: tuple[PassResult, ...]
    nodes_before: int
    applied: tuple[Applied, ...] = ()
    missed: tuple[Missed, ...] = ()

    def __str__(self) -> str:
        lines = [f"level {self.level}: {self.nodes_before} nodes before, {count_nodes(self.model)} after"]
        lines += [f"  {p.name}: {p.changes} changes in {p.seconds * 1e3:.1f} ms" for p in self.passes]
        for graph in all_graphs(self.model.graph):
            lines.append(f"graph {graph.name!r}")
            lines += [f"  {node}" for node in graph]
        return "\n".join(lines)


def optimise(
    model: ir.Model,
    level: str = "all",
    extra: Sequence[Pass] = (),
    providers: Sequence[Provider] | None = None,
    stop_after: int | None = None,
    in_place: bool = False,
) -> Optimised:
    """Apply a level's phases (and, from ``extended`` on, the extra passes of plugins) to a copy of the model.

    Args:
        model: what to optimise.
        level: ``"none"``, ``"basic"``, ``"extended"`` or ``"all"``.
        extra: passes of plugins.
        providers: only fusions are tried that lead to operators which one of these knows; None: all.
        stop_after: the number of changes after which to stop, by default EPKIT_STOP_AFTER.
        in_place: change the model itself, for who has no use for it afterwards.

    Raises:
        OptionError: for an unknown level.
        InvalidModelError: in checked mode (EPKIT_CHECKED=1), naming the pass or rule that broke the graph.
    """
    if level not in LEVELS:
        raise OptionError(
            f"there is no optimisation level {level!r}", remedy=f"the levels are {', '.join(LEVELS)}"
        )
    phases = [*LEVELS[level]]
    if extra and level in ("extended", "all"):
        phases.append(Phase(passes=tuple(extra)))
    limit = STOP_AFTER.get() if stop_after is None else stop_after
    knows = None if providers is None else [provider.knows for provider in providers]
    work = _Work(model if in_place else model.clone(), Ledger(None if limit < 0 else limit))
    before = sum(len(nodes) for _, nodes in work.graphs())
    for phase in phases:
        work.run(phase, Wanted(phase.rules, knows))
    return Optimised(
        work.model,
        level,
        tuple(PassResult(name, *result) for name, result in work.results.items()),
        before,
        tuple(work.ledger.applied),
        tuple(work.ledger.missed),
    )


class _Work:
    """A model on its way through the phases."""

    def __init__(self, model: ir.Model, ledger: Ledger) -> None:
        self.model, self.ledger = model, ledger
        self.results: dict[str, tuple[int, float]] = {}
        self.edits = 0
        """Goes up with each change: what was found for a number holds for as long as it stays."""
        self._untyped = untyped(model)
        """Values of which inference has found no type or rank: it is not asked again."""
        self._idle: dict[Pass, int] = {}
        self._walk: tuple[int, list[tuple[ir.Graph, list[ir.Node]]]] = (-1, [])
        self._scopes: tuple[int, list[Scope]] = (-1, [])
        self._operators: tuple[int, frozenset[Operator]] = (-1, frozenset())

    def run(self, phase: Phase, wanted: Wanted) -> None:
        """Repeat the phase until it finds nothing more to do."""
        for _ in range(ROUNDS if phase.repeats else 1):
            changes = {apply: self._pass(apply) for apply in phase.passes}
            by_passes = sum(count for apply, count in changes.items() if apply not in SILENT)
            by_rules = self._rules(phase.rules, wanted)
            if not phase.repeats or not by_passes + sum(by_rules.values()):
                return
            learned = by_passes or (
                phase.learns and any(by_rules[each] for each in by_rules.keys() - SILENT_RULES)
            )
            if not is_settled(self.model) if learned else not untyped(self.model) <= self._untyped:
                infer(self.model)
                self.edits += 1
                self._untyped = untyped(self.model)

    def _pass(self, apply: Pass) -> int:
        name = pass_name(apply)
        if not self.ledger.is_open and apply not in PREPARE.passes:
            return 0
        start = time.perf_counter()
        count = 0 if self._has_nothing_for(apply) else self._guarded(name, lambda: apply(self.model))
        self._note(name, count, time.perf_counter() - start)
        if count:
            self.edits += 1
            if apply not in PREPARE.passes:
                self.ledger.applied.append(Applied(name, "", count))
            self._check(name)
        else:
            self._idle[apply] = self.edits
        return count

    def _has_nothing_for(self, apply: Pass) -> bool:
        """Whether a pass would surely change nothing: it has seen this graph, or the graph lacks its operators."""
        if self._idle.get(apply) == self.edits:
            return True
        return apply in STARTS and STARTS[apply].isdisjoint(self._all_operators())

    def graphs(self) -> list[tuple[ir.Graph, list[ir.Node]]]:
        """The graphs of the model with their nodes."""
        if self._walk[0] != self.edits:
            self._walk = self.edits, list(graphs_with_nodes(self.model.graph))
        return self._walk[1]

    def _all_operators(self) -> frozenset[Operator]:
        """The operators of the model, its functions included."""
        if self._operators[0] != self.edits:
            parts = [nodes for _, nodes in self.graphs()] + [*map(all_nodes, self.model.functions.values())]
            found = {(node.domain, node.op_type) for nodes in parts for node in nodes}
            self._operators = self.edits, frozenset(found)
        return self._operators[1]

    def _rules(self, rules: Sequence[Rule], wanted: Wanted) -> dict[Rule, int]:
        if rules and self._scopes[0] != self.edits:
            self._scopes = self.edits, make_scopes(self.model, self.graphs())
        scopes = self._scopes[1]
        operators = operators_of(scopes)
        found = {}
        for each in rules:
            if not each.may_apply(operators) or not wanted(each):
                continue
            start = time.perf_counter()
            count = self._guarded(each.name, partial(apply_rule, each, scopes, self.ledger, self._check))
            self._note(each.name, count, time.perf_counter() - start)
            if count:
                self.edits += count
                operators = operators_of(scopes)
            found[each] = count
        return found

    def _note(self, name: str, count: int, seconds: float) -> None:
        before = self.results.get(name, (0, 0.0))
        self.results[name] = (before[0] + count, before[1] + seconds)

    def _check(self, name: str) -> None:
        if CHECKED.get():
            verify(self.model, name)

    def _guarded(self, name: str, function: Callable[[], int]) -> int:
        try:
            return function()
        except EpkitError:
            raise
        except Exception as error:
            raise InvalidModelError(
                f"the pass {name} failed: {type(error).__name__}: {error}",
                where=Where(stage="optimise", model=self.model.graph.name or ""),
                remedy="load with optimise='none', and report the model to the maker of the pass",
            ) from error


def pass_name(apply: Pass) -> str:
    """The name under which a pass is listed."""
    return getattr(apply, "__name__", type(apply).__name__)


def count_nodes(model: ir.Model) -> int:
    """Nodes in the main graph and in all bodies."""
    return sum(len(graph) for graph in all_graphs(model.graph))


def verify(model: ir.Model, after: str) -> None:
    """Check that every value is made before it is read, in every graph.

    Raises:
        InvalidModelError: naming the node, the value and the pass that ran last.
    """

    def visit(graph: ir.Graph, known: set[ir.Value]) -> None:
        known = known | set(graph.inputs) | set(graph.initializers.values())
        for node in graph:
            for value in reads(node):
                if value not in known:
                    raise InvalidModelError(
                        f"after {after}, {node.name} reads {value.name}, which nothing before it makes",
                        where=Where(stage="optimise", node=str(node.name), value=str(value.name)),
                    )
            for attribute in node.attributes.values():
                if isinstance(attribute.value, ir.Graph):
                    visit(attribute.value, known)
            known.update(node.outputs)
        for value in graph.outputs:
            if value not in known:
                raise InvalidModelError(
                    f"after {after}, nothing makes the output {value.name}",
                    where=Where(stage="optimise", value=str(value.name)),
                )

    visit(model.graph, set())
