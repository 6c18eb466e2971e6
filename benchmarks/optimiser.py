"""The optimiser, the load time and the memory plan of each real model, beside onnxruntime's session creation."""

from __future__ import annotations

import shutil
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from tests.models.catalogue import CATALOGUE, Model
from tests.models.fetch import model_path

import epkit
from epkit.api import make_settings
from epkit.backend.registry import Registry, default
from epkit.memory.graph_memory import GraphMemory
from epkit.model.read import read
from epkit.optimize.optimise import Optimised, count_nodes
from epkit.pipeline import stages
from epkit.planning import Plan
from epkit.testing.awkward import everything
from epkit.testing.device import FakeDevice, device_provider
from epkit.testing.plugins import registry_of

from .bert import HIDDEN, save_bert
from .measure import alternate, machine
from .peak import run_bytes

RESULTS = Path(__file__).with_name("optimiser.md")
STEPS, WIDTH = 1000, 32
"""Of the unrolled recurrent network: six nodes a step."""

LEVEL = "all"
RUNS = 5
Feeds = Mapping[str, Any]


@dataclass(frozen=True)
class Subject:
    """A model file, and inputs for it."""

    name: str
    path: Path
    feeds: Callable[[], Feeds]


def main(arguments: Sequence[str] = ()) -> None:
    """Measure, print and write the table; a model that fails has a row that says so. Names choose models."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for subject in models(Path(folder)):
            if arguments and subject.name not in arguments:
                continue
            try:
                rows.append(row(subject, Path(folder)))
            except Exception as error:  # the others count too
                rows.append(
                    f"| {subject.name} | {type(error).__name__}: {str(error).splitlines()[0][:120]} |"
                )
            print(rows[-1], flush=True)
    if not arguments:
        RESULTS.write_text(table(rows), encoding="utf-8")


def models(folder: Path) -> Iterator[Subject]:
    """The real ones, BERT-base with random weights, and a network of 6,000 nodes."""
    for package in CATALOGUE:
        for model in package.models:
            yield Subject(model.stem, model_path(package, model), partial(_first, model))
    save_bert(folder / "bert.onnx")
    random = np.random.default_rng(0)
    hidden = {"x": random.standard_normal((1, 128, HIDDEN)).astype(np.float32)}
    yield Subject("BERT-base (random weights)", folder / "bert.onnx", lambda: hidden)
    onnx.save(unrolled(), folder / "unrolled.onnx")
    state = {"x": random.standard_normal((1, WIDTH)).astype(np.float32)}
    yield Subject(f"recurrent, {STEPS} steps unrolled", folder / "unrolled.onnx", lambda: state)


def _first(model: Model) -> Feeds:
    return next(iter(model.inputs()))


def unrolled() -> onnx.ModelProto:
    """h = tanh(h W + x + b) and a gate, written out step by step."""
    random = np.random.default_rng(0)
    weights = [
        numpy_helper.from_array(random.standard_normal((WIDTH, WIDTH), np.float32) * np.float32(0.1), "w"),
        numpy_helper.from_array(random.standard_normal(WIDTH, np.float32), "b"),
    ]
    nodes, state = [], "x"
    for step in range(STEPS):
        s = f"s{step}"
        nodes += [
            helper.make_node("MatMul", [state, "w"], [f"{s}.m"], f"{s}.m"),
            helper.make_node("Add", [f"{s}.m", "b"], [f"{s}.a"], f"{s}.a"),
            helper.make_node("Tanh", [f"{s}.a"], [f"{s}.t"], f"{s}.t"),
            helper.make_node("Sigmoid", [f"{s}.m"], [f"{s}.g"], f"{s}.g"),
            helper.make_node("Mul", [f"{s}.t", f"{s}.g"], [f"{s}.p"], f"{s}.p"),
            helper.make_node("Add", [f"{s}.p", state], [f"{s}.h"], f"{s}.h"),
        ]
        state = f"{s}.h"
    info = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", WIDTH]) for name in ("x", state)]
    graph = helper.make_graph(nodes, "unrolled", info[:1], info[1:], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def row(subject: Subject, folder: Path) -> str:
    """One line of the table."""
    path = subject.path
    feeds = subject.feeds()
    optimised, plan = staged(path, feeds)
    cache = folder / f"cache of {subject.name}"
    epkit.load(path, ["cpu"], optimise=LEVEL, cache=cache).close()
    seconds = alternate(
        {
            "first": lambda: epkit.load(path, ["cpu"], optimise=LEVEL).close(),
            "second": lambda: epkit.load(path, ["cpu"], optimise=LEVEL, cache=cache).close(),
            "onnxruntime": lambda: onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]),
        },
        rounds=5,
    )
    shutil.rmtree(cache)
    np.savez(folder / "feeds.npz", **feeds)
    peaks = [run_bytes(engine, path, folder / "feeds.npz") for engine in ("epkit", "onnxruntime")]
    memories = [found for places in plan.memory.values() for found in places.values() if found.plan.size]
    size, least = (sum(getattr(found.plan, what) for found in memories) for what in ("size", "lower_bound"))
    held, needed = engine_bytes(path, feeds)
    cells = [
        f"{optimised.nodes_before:,}",
        f"{count_nodes(optimised.model):,}",
        fired(optimised),
        *(f"{seconds[key] * 1e3:.0f}" for key in seconds),
        *(f"{seconds[key] / seconds['onnxruntime']:.2f}" for key in ("first", "second")),
        f"{size:,}",
        f"{least:,}",
        f"{sum(map(replan_seconds, memories)) * 1e3:.1f}",
        f"{held:,}",
        f"{needed:,}",
        *("-" if peak < 0 else f"{peak:,}" for peak in peaks),
    ]
    return f"| {subject.name} | " + " | ".join(cells) + " |"


def engine_bytes(path: Path, feeds: Feeds) -> tuple[int, int]:
    """What the CPU engine holds for values after some runs of the same sizes, and the most that is alive at once."""
    with epkit.load(path, ["cpu"], optimise=LEVEL) as session:
        for _ in range(RUNS):
            session.run(None, feeds)
        host = session.memory.arenas[0]
    return host.held, host.lower_bound


def replan_seconds(memory: GraphMemory) -> float:
    """The time of planning once more, as for a shape that has come up; a median, for the garbage collector comes by."""
    sizes = {value: place.nbytes for value, place in memory.plan.places.items()}
    seconds = []
    for _ in range(9):
        start = time.process_time()
        memory.replan(sizes)
        seconds.append(time.process_time() - start)
    return statistics.median(seconds)


def fired(optimised: Optimised) -> str:
    """Every pass and rule that changed anything, with how often."""
    counts = Counter({result.name: result.changes for result in optimised.passes if result.changes})
    return ", ".join(f"{rule} {count}" for rule, count in counts.most_common())


def staged(path: Path, feeds: Feeds) -> tuple[Optimised, Plan]:
    """The optimised model as it is loaded; and the plan for a device that takes every node, for inputs of these sizes.

    (On the CPU, the native engine plans by itself, from what a run asks for.)
    """
    optimised = _stage(path, "optimise", ["cpu"], default, LEVEL)
    device = registry_of(device_provider("device", FakeDevice(), everything))
    plan = _stage(path, "plan", ["device"], device, "basic", sizes(path, feeds))
    assert isinstance(optimised, Optimised)
    assert isinstance(plan, Plan)
    return optimised, plan


def sizes(path: Path, feeds: Feeds) -> dict[str, int]:
    """What the named dimensions of the inputs are in these."""
    graph = read(path).model.graph
    return {
        dim.value: int(size)
        for value in graph.inputs
        if value.name is not None and value.name in feeds
        for dim, size in zip(value.shape or (), np.shape(feeds[value.name]), strict=False)
        if not isinstance(dim, int) and dim.value
    }


def _stage(
    path: Path,
    wanted: str,
    providers: Sequence[str],
    registry: Registry,
    level: str,
    fix: Mapping[str, int] | None = None,
) -> object:
    steps = stages(path, make_settings(providers, "cpu", level, fix, (), None, None), registry)
    try:
        return next(value for name, value in steps if name == wanted)
    finally:
        steps.close()


def table(rows: list[str]) -> str:
    """Everything as Markdown."""
    head = (
        "| model | nodes | after | what was done | load, ms | second load, ms | onnxruntime, ms | load ratio "
        "| second ratio | planned bytes, device | lower bound | re-plan, ms | held, CPU | lower bound "
        "| a run's peak, epkit | onnxruntime |"
    )
    return "\n".join(
        [
            "# Optimiser, load time, memory plan",
            "",
            f"`python -m benchmarks optimiser`: level {LEVEL}, CPU provider, without a cache and from one; medians of",
            "5 alternating rounds. Planned bytes are those of a device that takes every node, for the inputs of a",
            "run; to re-plan is what a shape costs (CPU time) when it comes a second time. The CPU engine holds",
            f"what is told after {RUNS} runs of the same sizes. A run's peak is what the memory of a process rises by",
            f"in its first run, at level basic. {machine()}.",
            "",
            head,
            "|" + "---|" * 16,
            *rows,
            "",
        ]
    )
