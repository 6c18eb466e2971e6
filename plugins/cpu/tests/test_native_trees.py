"""Tree ensembles at the session's door: native beside the portable kernel and onnxruntime."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper

import epkit
from epkit.errors import EpkitError
from epkit.kernels import table
from epkit_cpu.native import isas

Array = np.ndarray[Any, Any]
DOMAIN = "ai.onnx.ml"
MODES = ["BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT", "BRANCH_EQ", "BRANCH_NEQ"]

pytestmark = pytest.mark.skipif(not isas(), reason="the package was built without a compiler")


@pytest.fixture(params=isas() or ("none",))
def isa(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("EPKIT_CPU_ISA", request.param)
    return str(request.param)


def forest(
    seed: int, trees: int = 9, depth: int = 4, modes: Any = MODES, tracks: bool = True
) -> dict[str, Any]:
    """Random unbalanced trees over three features; thresholds are small integers, as the data."""
    rng = np.random.default_rng(seed)
    rows: list[tuple[Any, ...]] = []
    for tree in range(trees):
        todo, count = [(0, 0)], 1
        while todo:
            node, level = todo.pop()
            inner = level < depth and rng.random() < 0.85
            mode, children = (str(rng.choice(modes)), (count, count + 1)) if inner else ("LEAF", (0, 0))
            missing = int(inner and tracks and rng.integers(2))
            feature, value = int(rng.integers(3)), float(rng.integers(-2, 3))
            rows.append((node, tree, feature, value, mode, *children, missing))
            if inner:
                todo += [(count, level + 1), (count + 1, level + 1)]
                count += 2
    names = ["nodeids", "treeids", "featureids", "values", "modes", "truenodeids", "falsenodeids"]
    names.append("missing_value_tracks_true")
    return {f"nodes_{name}": list(part) for name, part in zip(names, zip(*rows, strict=True), strict=True)}


def votes(
    given: dict[str, Any], prefix: str, columns: list[int], low: float, share: float = 1.0
) -> dict[str, Any]:
    """Votes of the leaves for the columns; only a ``share`` of them is there."""
    rng = np.random.default_rng(len(columns))
    ids = zip(given["nodes_treeids"], given["nodes_nodeids"], given["nodes_modes"], strict=True)
    leaves = [(t, n, c) for t, n, m in ids if m == "LEAF" for c in columns if rng.random() < share]
    result: dict[str, Any] = {f"{prefix}_weights": (rng.uniform(low, 1, len(leaves)) / 8).tolist()}
    for i, name in enumerate(("treeids", "nodeids", "ids")):
        result[f"{prefix}_{name}"] = [leaf[i] for leaf in leaves]
    return result


def data(rows: int, dtype: Any = np.float32) -> Array:
    rng = np.random.default_rng(rows)
    x = rng.integers(-3, 4, (rows, 3)).astype(dtype)
    x[rng.random(x.shape) < 0.1] = np.nan
    return x


def model(op: str, x: Array, attributes: dict[str, Any], opset: int) -> onnx.ModelProto:
    outputs = ["labels", "scores"] if op == "TreeEnsembleClassifier" else ["scores"]
    given = {
        k: numpy_helper.from_array(v, k) if isinstance(v, np.ndarray) else v for k, v in attributes.items()
    }
    given = {k: v for k, v in given.items() if not (isinstance(v, list) and not v)}
    node = helper.make_node(op, ["x"], outputs, domain=DOMAIN, **given)
    kind = helper.np_dtype_to_tensor_dtype(x.dtype)
    inputs = [helper.make_tensor_value_info("x", kind, [None, *x.shape[1:]])]
    graph = helper.make_graph([node], "g", inputs, [helper.make_empty_tensor_value_info(n) for n in outputs])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(DOMAIN, opset)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9)


def check(op: str, x: Array, attributes: dict[str, Any], opset: int = 3, native: bool = True) -> None:
    """Native gives what the portable kernel gives, and what onnxruntime gives."""
    proto = model(op, x, attributes, opset)
    with epkit.load(proto, [("cpu", {})]) as session:
        (program,) = session._engine.compiled.programs.values()
        assert ("trees" in str(program)) is native
        found = list(session.run(None, {"x": x}).values())
    operator = table().find(DOMAIN, op, opset)
    assert operator is not None
    given = {k: tuple(v) if isinstance(v, list) else v for k, v in attributes.items()}
    portable = operator(np, (x,), given, n_outputs=len(found), opset=opset)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    peer = onnxruntime.InferenceSession(proto.SerializeToString(), options).run(None, {"x": x})
    for ours, kernel, theirs in zip(found, portable, peer, strict=True):
        assert (ours.dtype, ours.shape) == (kernel.dtype, kernel.shape) == (theirs.dtype, theirs.shape)
        if ours.dtype.kind == "i":
            assert ours.tolist() == kernel.tolist() == theirs.tolist()
            continue
        exp = attributes.get("post_transform", "NONE") not in ("NONE", 0)
        np.testing.assert_allclose(ours, kernel, rtol=1e-6 if exp else 0, atol=1e-7 if exp else 0)
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("aggregate", ["SUM", "AVERAGE", "MIN", "MAX"])
@pytest.mark.parametrize("targets", [1, 3])
@pytest.mark.parametrize("rows", [0, 1, 5, 200])
def test_regressor(isa: str, aggregate: str, targets: int, rows: int) -> None:
    given = forest(targets)
    given |= votes(given, "target", list(range(targets)), -1.0) | {"n_targets": targets}
    base = [0.125 * i for i in range(targets)]
    check("TreeEnsembleRegressor", data(rows), given | {"aggregate_function": aggregate, "base_values": base})


@pytest.mark.parametrize("mode", MODES)
def test_branch_modes_and_missing_values(isa: str, mode: str) -> None:
    for tracks in (False, True):
        given = forest(5, modes=[mode], tracks=tracks)
        check("TreeEnsembleRegressor", data(40), given | votes(given, "target", [0], -1.0) | {"n_targets": 1})


@pytest.mark.parametrize("op", ["TreeEnsembleRegressor", "TreeEnsembleClassifier"])
def test_doubles(isa: str, op: str) -> None:
    prefix = "target" if op.endswith("Regressor") else "class"
    given = forest(7)
    given |= votes(given, prefix, [0, 1, 2], -1.0)
    given[f"{prefix}_weights_as_tensor"] = np.array(given.pop(f"{prefix}_weights"), np.float64)
    given["nodes_values_as_tensor"] = np.array(given.pop("nodes_values")) + 1e-12
    given |= {"n_targets": 3} if prefix == "target" else {"classlabels_int64s": [4, 5, 6]}
    check(op, data(50, np.float64) + 1e-12, given)


@pytest.mark.parametrize("transform", ["NONE", "SOFTMAX", "LOGISTIC"])
@pytest.mark.parametrize("columns", [[0], [1], [0, 1]])
def test_two_classes(isa: str, transform: str, columns: list[int]) -> None:
    given = forest(9)
    for low in (-1.0, 0.0):
        for base in ([], [0.25], [0.25, -0.125]):
            for share in (1.0, 0.6):
                if share < 1 and base:
                    continue
                extra = {"post_transform": transform, "base_values": base, "classlabels_int64s": [0, 1]}
                check(
                    "TreeEnsembleClassifier",
                    data(50),
                    given | votes(given, "class", columns, low, share) | extra,
                )


@pytest.mark.parametrize("transform", ["NONE", "SOFTMAX", "LOGISTIC"])
@pytest.mark.parametrize("columns", [[0, 1, 2], [1, 2]])
def test_three_classes(isa: str, transform: str, columns: list[int]) -> None:
    given = forest(11)
    for base in ([], [0.25, -0.125, 0.5]):
        extra = {"post_transform": transform, "base_values": base, "classlabels_int64s": [7, 3, 5]}
        check("TreeEnsembleClassifier", data(50), given | votes(given, "class", columns, 0.1) | extra)


def test_one_class_has_the_labels_1_and_0(isa: str) -> None:
    given = forest(13)
    check(
        "TreeEnsembleClassifier",
        data(50),
        given | votes(given, "class", [0], -1.0) | {"classlabels_int64s": [5]},
    )


def test_few_votes_for_many_targets_are_entries(isa: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("epkit.kernels._forest._DENSE", 1)
    given = forest(15)
    for aggregate in ("SUM", "MIN", "MAX"):
        extra = {"n_targets": 20, "aggregate_function": aggregate}
        check("TreeEnsembleRegressor", data(50), given | votes(given, "target", [0, 3], -1.0) | extra)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("seed", "inner"), [(0, 15), (1, 15), (2, 15), (3, 2047)])
def test_tree_ensemble_5(isa: str, dtype: Any, seed: int, inner: int) -> None:
    """One complete tree with all modes, sets included."""
    rng = np.random.default_rng(seed)
    mode, ids = rng.choice(7, inner).astype(np.uint8), np.arange(inner)
    leaf = 2 * ids + 1 >= inner
    sets = [np.append(rng.choice(7, 1 + k % 5, replace=False) - 3, np.nan) for k in range((mode == 6).sum())]
    given = {
        "tree_roots": [0],
        "n_targets": 2,
        "nodes_modes": mode,
        "nodes_featureids": rng.integers(0, 3, inner).tolist(),
        "nodes_splits": rng.integers(-2, 3, inner).astype(dtype),
        "nodes_truenodeids": np.where(leaf, 2 * ids + 1 - inner, 2 * ids + 1).tolist(),
        "nodes_falsenodeids": np.where(leaf, 2 * ids + 2 - inner, 2 * ids + 2).tolist(),
        "nodes_trueleafs": leaf.astype(int).tolist(),
        "nodes_falseleafs": leaf.astype(int).tolist(),
        "nodes_missing_value_tracks_true": rng.integers(0, 2, inner).tolist(),
        "leaf_targetids": rng.integers(0, 2, inner + 1).tolist(),
        "leaf_weights": rng.standard_normal(inner + 1).astype(dtype),
        "membership_values": np.concatenate([np.zeros(0), *sets]).astype(dtype),
    }
    check("TreeEnsemble", data(60, dtype), given, opset=5)


def test_rare_transforms_stay_portable(isa: str) -> None:
    given = forest(17)
    given |= votes(given, "class", [0, 1, 2], 0.1) | {"classlabels_int64s": [0, 1, 2]}
    check("TreeEnsembleClassifier", data(20), given | {"post_transform": "SOFTMAX_ZERO"}, native=False)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"nodes_truenodeids": [0, 0, 0]}, "cycle"),
        ({"nodes_truenodeids": [7, 0, 0]}, "tree 0 has no node 7"),
        ({"nodes_featureids": [3, 0, 0]}, "X has 3 features, but a node reads feature 3"),
        ({"target_ids": [0, 1]}, r"target or class is 1, outside \[0, 1\)"),
        ({"base_values": [1.0, 2.0]}, "2 values for 1 targets"),
    ],
)
def test_unsound_tables_are_refused_as_ever(isa: str, changes: dict[str, Any], message: str) -> None:
    stump = {
        "nodes_nodeids": [0, 1, 2],
        "nodes_treeids": [0, 0, 0],
        "nodes_featureids": [0, 0, 0],
        "nodes_values": [0.0, 0.0, 0.0],
        "nodes_modes": ["BRANCH_LEQ", "LEAF", "LEAF"],
        "nodes_truenodeids": [1, 0, 0],
        "nodes_falsenodeids": [2, 0, 0],
        "target_treeids": [0, 0],
        "target_nodeids": [1, 2],
        "target_ids": [0, 0],
        "target_weights": [1.0, 2.0],
    }
    x = data(2)
    proto = model("TreeEnsembleRegressor", x, stump | changes, 3)
    with pytest.raises(EpkitError, match=message), epkit.load(proto, [("cpu", {})]) as session:
        session.run(None, {"x": x})
