"""One model against onnxruntime: whether it runs, how close it is, how long it takes, what is missing."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

import epkit
from epkit.backend.registry import default
from epkit.backend.subgraph import operator_name
from epkit.errors import EpkitError, PlacementError
from epkit.model.read import read
from epkit.model.walk import all_graphs, is_control_flow
from epkit.partition.claims import Claims
from epkit.pipeline import stages
from epkit.settings import Settings

from .inputs import Feeds
from .signals import Array

FLOOR = 1e-2
"""Elements smaller than this share of the largest are held to that: they are what is left of larger terms."""


TOLERANCE = 1e-3


@dataclass(frozen=True)
class Expected:
    """What onnxruntime makes of each input set, by name, and the least milliseconds of the first set.

    ``plain`` is what it makes of them without its optimiser, where that differs by more than the tolerance.
    """

    outputs: Sequence[Mapping[str, Array]]
    ms: float
    plain: Sequence[Mapping[str, Array]] | None = None

    @property
    def allowed(self) -> float:
        """The error allowed: a chaotic model's mean error is onnxruntime's mean error against itself."""
        return TOLERANCE if self.plain is None else mean_error(self.plain, self.outputs)

    def error(self, found: Sequence[Mapping[str, Array]]) -> float:
        """The largest relative error of any value; for a chaotic model the mean error."""
        if self.plain is not None:
            return mean_error(found, self.outputs)
        return max(largest_error(a, b) for a, b in zip(found, self.outputs, strict=True))


def oracle(path: Path, inputs: Sequence[Feeds], chaotic: bool = False) -> Expected:
    """Run a model on onnxruntime."""
    outputs, ms = _run(path, inputs, onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL)
    if not chaotic:
        return Expected(outputs, ms)
    plain, _ = _run(path, inputs, onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL)
    worst = max(largest_error(a, b) for a, b in zip(plain, outputs, strict=True))
    assert worst > TOLERANCE, f"onnxruntime agrees with itself about {path.name}: hold it to the tolerance"
    return Expected(outputs, ms, plain)


def _run(path: Path, inputs: Sequence[Feeds], level: Any) -> tuple[list[dict[str, Array]], float]:
    onnxruntime.set_default_logger_severity(4)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = level
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    outputs = [dict(zip(names, session.run(None, dict(feeds)), strict=True)) for feeds in inputs]
    return outputs, least_ms(lambda: session.run(None, dict(inputs[0])))


def error_of(found: Array, expected: Array) -> float:
    """The largest relative error, on the scale of the values; infinite where they cannot be compared.

    Whole numbers, truth values and text must be equal.
    """
    if found.shape != expected.shape or found.dtype != expected.dtype:
        return float("inf")
    if expected.dtype.kind != "f":
        return 0.0 if np.array_equal(found, expected) else float("inf")
    finite = np.isfinite(expected)
    if (
        not np.array_equal(found[~finite], expected[~finite], equal_nan=True)
        or not np.isfinite(found[finite]).all()
    ):
        return float("inf")
    a, b = found[finite].astype(np.float64), expected[finite].astype(np.float64)
    if not b.size:
        return 0.0
    scale = np.maximum(np.abs(b), max(FLOOR * np.abs(b).max(), 1e-30))
    return float((np.abs(a - b) / scale).max())


def largest_error(found: Mapping[str, Array], expected: Mapping[str, Array]) -> float:
    """The worst output's error; infinite if the names differ."""
    if list(found) != list(expected):
        return float("inf")
    return max(error_of(np.asarray(found[name]), array) for name, array in expected.items())


def mean_error(found: Sequence[Mapping[str, Array]], expected: Sequence[Mapping[str, Array]]) -> float:
    """The root mean square of all differences of all outputs; infinite if shapes, dtypes or names differ."""
    squares: list[Array] = []
    for ours, theirs in zip(found, expected, strict=True):
        for name, array in theirs.items():
            if (
                list(ours) != list(theirs)
                or ours[name].shape != array.shape
                or ours[name].dtype != array.dtype
            ):
                return float("inf")
            squares.append(np.ravel(ours[name].astype(np.float64) - array) ** 2)
    return float(np.sqrt(np.concatenate(squares).mean()))


def missing_operators(path: Path) -> dict[str, int]:
    """The operators that no provider takes, with the number of nodes."""
    found: dict[str, int] = {}
    for _, stage in stages(path, Settings(("cpu",), "cpu", "none"), default):
        if isinstance(stage, Claims):
            for graph in all_graphs(stage.model.graph):
                unclaimed = (node for node in graph if node not in stage.offers[graph][0].claimed)
                for name in (operator_name(node) for node in unclaimed if not is_control_flow(node)):
                    found[name] = found.get(name, 0) + 1
            break
    return found


@dataclass(frozen=True)
class Row:
    """One line of the table. ``problem`` is empty if the model runs; times and error are then of its run."""

    nodes: int
    opset: int
    oracle_ms: float
    problem: str = ""
    error: float = float("nan")
    load_s: float = float("nan")
    run_ms: float = float("nan")


def measure(path: Path, inputs: Sequence[Feeds], expected: Expected, optimise: str = "all") -> Row:
    """Load and run a model on the CPU provider, and hold it against onnxruntime."""
    model = read(path).model
    row = Row(sum(map(len, all_graphs(model.graph))), model.opset_imports.get("", 0), expected.ms)
    start = time.perf_counter()
    try:
        with epkit.load(path, ["cpu"], optimise=optimise) as session:
            load = time.perf_counter() - start
            error = expected.error([session.run(None, feeds) for feeds in inputs])
            run = least_ms(lambda: session.run(None, inputs[0]))
            return replace(row, error=error, load_s=load, run_ms=run)
    except PlacementError:
        missing = ", ".join(f"{name} ({count})" for name, count in missing_operators(path).items())
        return replace(row, problem=f"missing: {missing}")
    except EpkitError as problem:
        return replace(row, problem=f"{type(problem).__name__}: {problem}".replace("\n", " "))


def least_ms(call: Callable[[], object], budget_s: float = 0.3) -> float:
    """The least time of several calls in milliseconds."""
    best, spent = float("inf"), 0.0
    while spent < budget_s:
        start = time.perf_counter()
        call()
        took = time.perf_counter() - start
        best, spent = min(best, took), spent + took
    return best * 1e3
