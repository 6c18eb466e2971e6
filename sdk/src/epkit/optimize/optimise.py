"""Running the passes of a level until none changes anything."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

from ..errors import EpkitError, InvalidModelError, OptionError, Where
from ..knobs import CHECKED
from ..model.infer import infer
from ..model.walk import all_graphs, reads
from .levels import LEVELS, NONE, Pass

ROUNDS = 4
"""A pass may make work for an earlier one; real models settle in two or three rounds."""


@dataclass(frozen=True)
class PassResult:
    """What one pass did, over all rounds."""

    name: str
    changes: int
    seconds: float


@dataclass(frozen=True)
class Optimised:
    """The model after the passes. It is a copy; the checked model stays as it was."""

    model: ir.Model
    level: str
    passes: tuple[PassResult, ...]
    nodes_before: int

    def __str__(self) -> str:
        lines = [f"level {self.level}: {self.nodes_before} nodes before, {count_nodes(self.model)} after"]
        lines += [f"  {p.name}: {p.changes} changes in {p.seconds * 1e3:.1f} ms" for p in self.passes]
        for graph in all_graphs(self.model.graph):
            lines.append(f"graph {graph.name!r}")
            lines += [f"  {node}" for node in graph]
        return "\n".join(lines)


def optimise(model: ir.Model, level: str = "basic", extra: Sequence[Pass] = ()) -> Optimised:
    """Apply a level's passes (and, from ``extended`` on, the extra ones of plugins) to a copy of the model.

    Raises:
        OptionError: for an unknown level.
        InvalidModelError: in checked mode (EPKIT_CHECKED=1), naming the pass that broke the graph.
    """
    if level not in LEVELS:
        raise OptionError(
            f"there is no optimisation level {level!r}", remedy=f"the levels are {', '.join(LEVELS)}"
        )
    before = count_nodes(model)
    copy = model.clone()
    passes = LEVELS[level] + (tuple(extra) if level in ("extended", "all") else ())
    changes = dict.fromkeys(passes, 0)
    seconds = dict.fromkeys(passes, 0.0)
    for _ in range(ROUNDS if level != "none" else 1):
        total = 0
        for apply in passes:
            start = time.perf_counter()
            count = _apply(apply, copy)
            seconds[apply] += time.perf_counter() - start
            changes[apply] += count
            total += count if apply not in NONE else 0
        if not total:
            break
        infer(copy)
    results = tuple(PassResult(pass_name(apply), changes[apply], seconds[apply]) for apply in passes)
    return Optimised(copy, level, results, before)


def pass_name(apply: Pass) -> str:
    """The name under which a pass is listed."""
    return getattr(apply, "__name__", type(apply).__name__)


def count_nodes(model: ir.Model) -> int:
    """Nodes in the main graph and in all bodies."""
    return sum(len(graph) for graph in all_graphs(model.graph))


def _apply(apply: Pass, model: ir.Model) -> int:
    try:
        count = apply(model)
    except EpkitError:
        raise
    except Exception as error:
        raise InvalidModelError(
            f"the pass {pass_name(apply)} failed: {type(error).__name__}: {error}",
            where=Where(stage="optimise", model=model.graph.name or ""),
            remedy="load with optimise='none', and report the model to the maker of the pass",
        ) from error
    if count and CHECKED.get():
        verify(model, pass_name(apply))
    return count


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
