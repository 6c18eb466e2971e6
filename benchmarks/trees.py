"""Tree ensembles against onnxruntime: 500 complete trees of depth 8 on 10,000 rows of 30 features."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

import epkit

from .measure import alternate, machine

RESULTS = Path(__file__).parent / "results" / "trees.md"
TREES, DEPTH, ROWS, FEATURES, CLASSES = 500, 8, 10_000, 30, 3
LIMIT = 3.0
INNER, ALL = 2**DEPTH - 1, 2 ** (DEPTH + 1) - 1


def main() -> None:
    """Measure, check that the results agree, print and write the table."""
    x = np.random.default_rng(0).normal(size=(ROWS, FEATURES)).astype(np.float32)
    rows = [(name, threads, *measure(made, x, threads)) for name, made in models() for threads in (1, 0)]
    text = table(rows)
    print(text)
    RESULTS.write_text(text, encoding="utf-8")


def models() -> list[tuple[str, onnx.ModelProto]]:
    """The three operators on the same forest."""
    old = nodes()
    leaf = np.tile(np.arange(INNER, ALL), TREES)
    tree = np.repeat(np.arange(TREES), ALL - INNER)
    weights = np.random.default_rng(2).normal(size=leaf.size).astype(np.float32).tolist()
    votes = {"treeids": tree.tolist(), "nodeids": leaf.tolist(), "weights": weights}
    targets = {f"target_{key}": value for key, value in votes.items()}
    classes = {f"class_{key}": value for key, value in votes.items()}
    regressor = helper.make_node(
        "TreeEnsembleRegressor", ["x"], ["y"], n_targets=1, target_ids=[0] * leaf.size, **old, **targets
    )
    classifier = helper.make_node(
        "TreeEnsembleClassifier",
        ["x"],
        ["label", "y"],
        classlabels_int64s=list(range(CLASSES)),
        class_ids=(leaf % CLASSES).tolist(),
        post_transform="SOFTMAX",
        **old,
        **classes,
    )
    return [
        ("TreeEnsembleRegressor", model(regressor, 3)),
        ("TreeEnsembleClassifier", model(classifier, 3)),
        ("TreeEnsemble", model(new_ensemble(old, weights), 5)),
    ]


def nodes() -> dict[str, Any]:
    """The attributes ``nodes_*`` of versions 1 to 3: each tree complete, its nodes in the order of a heap."""
    rng = np.random.default_rng(1)
    count, node = TREES * ALL, np.tile(np.arange(ALL), TREES)
    inner = node < INNER
    return {
        "nodes_treeids": np.repeat(np.arange(TREES), ALL).tolist(),
        "nodes_nodeids": node.tolist(),
        "nodes_featureids": np.where(inner, rng.integers(0, FEATURES, count), 0).tolist(),
        "nodes_modes": np.where(inner, "BRANCH_LEQ", "LEAF").tolist(),
        "nodes_values": np.where(inner, rng.normal(size=count), 0).astype(np.float32).tolist(),
        "nodes_truenodeids": np.where(inner, 2 * node + 1, 0).tolist(),
        "nodes_falsenodeids": np.where(inner, 2 * node + 2, 0).tolist(),
    }


def new_ensemble(old: dict[str, Any], weights: list[float]) -> onnx.NodeProto:
    """The same forest as TreeEnsemble 5 has it: inner nodes and leaves apart, children by position."""
    inner = np.array(old["nodes_modes"]) != "LEAF"
    node = np.tile(np.arange(INNER), TREES)
    first_node = np.repeat(np.arange(TREES) * INNER, INNER)
    first_leaf = np.repeat(np.arange(TREES) * (ALL - INNER), INNER)
    attributes: dict[str, Any] = {"nodes_featureids": np.array(old["nodes_featureids"])[inner].tolist()}
    for side, child in (("true", 2 * node + 1), ("false", 2 * node + 2)):
        leafs = child >= INNER
        attributes[f"nodes_{side}leafs"] = leafs.astype(int).tolist()
        attributes[f"nodes_{side}nodeids"] = np.where(
            leafs, first_leaf + child - INNER, first_node + child
        ).tolist()
    splits = np.array(old["nodes_values"], np.float32)[inner]
    return helper.make_node(
        "TreeEnsemble",
        ["x"],
        ["y"],
        n_targets=1,
        tree_roots=(np.arange(TREES) * INNER).tolist(),
        nodes_modes=numpy_helper.from_array(np.zeros(splits.size, np.uint8), "modes"),
        nodes_splits=numpy_helper.from_array(splits, "splits"),
        leaf_targetids=[0] * len(weights),
        leaf_weights=numpy_helper.from_array(np.array(weights, np.float32), "weights"),
        **attributes,
    )


def model(node: onnx.NodeProto, version: int) -> onnx.ModelProto:
    """A model of one node of ai.onnx.ml."""
    node.domain = "ai.onnx.ml"
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", FEATURES])
    outputs = [onnx.ValueInfoProto(name=name) for name in node.output]
    graph = helper.make_graph([node], "trees", [x], outputs)
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("ai.onnx.ml", version)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9)


def measure(made: onnx.ModelProto, x: np.ndarray, threads: int) -> tuple[float, float]:
    """Median seconds of epkit and of onnxruntime with so many threads (0: its own choice)."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    peer = onnxruntime.InferenceSession(made.SerializeToString(), options, providers=["CPUExecutionProvider"])
    with epkit.load(made, ["cpu"]) as session:
        for name, expected in zip(session(x=x), peer.run(None, {"x": x}), strict=True):
            np.testing.assert_allclose(session(x=x)[name], expected, rtol=1e-3, atol=1e-3)
        runs = {"epkit": lambda: session(x=x), "onnxruntime": lambda: peer.run(None, {"x": x})}
        seconds = alternate(runs, rounds=9)
    return seconds["epkit"], seconds["onnxruntime"]


def table(rows: list[tuple[str, int, float, float]]) -> str:
    """The results as Markdown; times in milliseconds, medians."""
    lines = [
        "# Tree ensembles",
        "",
        f"`python -m benchmarks trees`: {TREES} complete trees of depth {DEPTH}, {ROWS:,} rows of {FEATURES} "
        f"features; medians of 9 alternating rounds; the ratio is to stay under {LIMIT:g}. {machine()}.",
        "",
        "| operator | onnxruntime's threads | epkit | onnxruntime | epkit / onnxruntime |",
        "|---|---|---|---|---|",
    ]
    for name, threads, ours, theirs in rows:
        count = threads or f"its own choice ({os.cpu_count()} cores)"
        lines.append(
            f"| {name} | {count} | {ours * 1e3:.0f} ms | {theirs * 1e3:.0f} ms | {ours / theirs:.2f} |"
        )
    return "\n".join(lines) + "\n"
