"""The optimiser, the load time and the memory plan of each real model, beside onnxruntime's session creation."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from tests.models.catalogue import CATALOGUE
from tests.models.fetch import model_path

import epkit
from epkit.api import make_settings
from epkit.backend.registry import default
from epkit.optimize.optimise import Optimised, count_nodes
from epkit.pipeline import stages
from epkit.planning import Plan

from .bert import save_bert
from .measure import alternate, machine

RESULTS = Path(__file__).parent / "results" / "optimiser.md"
STEPS, WIDTH = 1000, 32
"""Of the unrolled recurrent network: six nodes a step."""


def main() -> None:
    """Measure, print and write the table."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name, path in models(Path(folder)):
            rows.append(row(name, path))
            print(rows[-1], flush=True)
    RESULTS.write_text(table(rows), encoding="utf-8")


def models(folder: Path) -> Iterator[tuple[str, Path]]:
    """The real ones, BERT-base with random weights, and a network of 6,000 nodes."""
    for package in CATALOGUE:
        for model in package.models:
            yield model.stem, model_path(package, model)
    save_bert(folder / "bert.onnx")
    yield "BERT-base (random weights)", folder / "bert.onnx"
    onnx.save(unrolled(), folder / "unrolled.onnx")
    yield f"recurrent, {STEPS} steps unrolled", folder / "unrolled.onnx"


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


def row(name: str, path: Path) -> str:
    """One line of the table."""
    optimised, plan = staged(path)
    fired = Counter(
        {result.name: result.changes for result in optimised.passes if result.changes}
    ).most_common(5)
    seconds = alternate(
        {
            "epkit": lambda: epkit.load(path, ["cpu"], optimise="extended").close(),
            "onnxruntime": lambda: onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]),
        },
        rounds=5,
    )
    plans = [found.plan for places in plan.memory.values() for found in places.values() if found.plan.size]
    size, least = sum(p.size for p in plans), sum(p.lower_bound for p in plans)
    return (
        f"| {name} | {optimised.nodes_before} | {count_nodes(optimised.model)} | "
        + ", ".join(f"{rule} {count}" for rule, count in fired)
        + f" | {seconds['epkit'] * 1e3:.0f} | {seconds['onnxruntime'] * 1e3:.0f} | "
        + f"{seconds['epkit'] / seconds['onnxruntime']:.2f} | {size:,} | {least:,} |"
    )


def staged(path: Path) -> tuple[Optimised, Plan]:
    """The optimised model, and its plan on the host with kernels that ask the core for memory."""
    settings = make_settings(["cpu"], "cpu", "extended", None, (), None, None)
    steps = stages(path, settings, default)
    found = {}
    for name, value in steps:
        found[name] = value
        if name == "plan":
            break
    steps.close()
    optimised, plan = found["optimise"], found["plan"]
    assert isinstance(optimised, Optimised)
    assert isinstance(plan, Plan)
    return optimised, plan


def table(rows: list[str]) -> str:
    """Everything as Markdown."""
    head = (
        "| model | nodes before | after | what fired most | load, ms | onnxruntime, ms | ratio "
        "| planned bytes | lower bound |"
    )
    return "\n".join(
        [
            "# Optimiser, load time, memory plan",
            "",
            "`python -m benchmarks optimiser`: level extended, CPU provider; medians of 5 alternating rounds; planned",
            f"bytes are those known before the first run. {machine()}.",
            "",
            head,
            "|" + "---|" * 9,
            *rows,
            "",
        ]
    )
