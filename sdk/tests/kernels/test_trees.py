"""Tree ensembles against onnxruntime and closed forms."""

from __future__ import annotations

from statistics import NormalDist
from typing import Any

import numpy as np
import pytest
from ml_oracle import agree, epkit

from epkit.kernels._ml import prepared_once

# onnxruntime's PROBIT cancels in float32 near 0.5, hence the tolerances
TRANSFORMS = ["NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO", "PROBIT"]
MODES = ["BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT", "BRANCH_EQ", "BRANCH_NEQ"]


def random_forest(
    seed: int, trees: int = 7, depth: int = 4, features: int = 3, modes: Any = MODES
) -> dict[str, Any]:
    """Random nodes_* attributes of unbalanced trees; thresholds and data share small integers."""
    rng = np.random.default_rng(seed)
    nodes: dict[str, list[Any]] = {k: [] for k in ("id", "tree", "feature", "value", "mode", "true", "false")}
    for tree in range(trees):
        todo, count = [(0, 0)], 1
        while todo:
            node, level = todo.pop()
            inner = level < depth and rng.random() < 0.8
            row = (node, tree, int(rng.integers(features)), float(rng.integers(-2, 3)))
            row += (str(rng.choice(modes)), count, count + 1) if inner else ("LEAF", 0, 0)
            for key, value in zip(nodes, row, strict=True):
                nodes[key].append(value)
            if inner:
                todo += [(count, level + 1), (count + 1, level + 1)]
                count += 2
    names = {"id": "nodeids", "tree": "treeids", "feature": "featureids", "value": "values", "mode": "modes"}
    names |= {"true": "truenodeids", "false": "falsenodeids"}
    # a root is the first node of its tree, the others may follow in any order
    return {f"nodes_{names[key]}": values for key, values in nodes.items()}


def votes(
    forest: dict[str, Any], prefix: str, columns: list[int], low: float = -1.0, seed: int = 0
) -> dict[str, Any]:
    """A vote of every leaf for every column."""
    rng = np.random.default_rng(seed)
    ids = zip(forest["nodes_treeids"], forest["nodes_nodeids"], forest["nodes_modes"], strict=True)
    leaves = [(t, n, c) for t, n, mode in ids if mode == "LEAF" for c in columns]
    weights = rng.uniform(low, 1, len(leaves)).astype(np.float32) / 8
    result: dict[str, Any] = {f"{prefix}_weights": weights.tolist()}
    for i, name in enumerate(("treeids", "nodeids", "ids")):
        result[f"{prefix}_{name}"] = [leaf[i] for leaf in leaves]
    return result


def data(seed: int, rows: int = 50, missing: bool = False) -> Any:
    rng = np.random.default_rng(seed)
    x = rng.integers(-3, 4, (rows, 3)).astype(np.float32)
    if missing:
        x[rng.random(x.shape) < 0.2] = np.nan
    return x


@pytest.mark.parametrize("mode", [*MODES, MODES])
@pytest.mark.parametrize("tracks", [False, True])
def test_branch_modes_and_missing_values(mode: Any, tracks: bool) -> None:
    forest = random_forest(1, modes=[mode] if isinstance(mode, str) else mode)
    if tracks:
        forest["nodes_missing_value_tracks_true"] = [i % 2 for i in range(len(forest["nodes_modes"]))]
    agree(
        "TreeEnsembleRegressor", data(2, missing=True), **forest, **votes(forest, "target", [0]), n_targets=1
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, np.int32])
@pytest.mark.parametrize("rows", [0, 1, 5000])
def test_input_types_and_sizes(dtype: Any, rows: int) -> None:
    forest = random_forest(3)
    given = votes(forest, "class", [0, 1, 2]) | {"classlabels_int64s": [0, 1, 2]}
    agree("TreeEnsembleClassifier", data(4, rows).astype(dtype), outputs=2, **forest, **given)


@pytest.mark.parametrize("aggregate", ["SUM", "AVERAGE", "MIN", "MAX"])
@pytest.mark.parametrize("targets", [1, 3])
@pytest.mark.parametrize("transform", TRANSFORMS)
def test_regressor(aggregate: str, targets: int, transform: str) -> None:
    forest = random_forest(5)
    given = votes(forest, "target", list(range(targets)), low=0.1)
    base = [0.125 * i for i in range(targets)]
    agree(
        "TreeEnsembleRegressor", data(6), **forest, **given, n_targets=targets,
        atol=5e-4 if transform == "PROBIT" else 1e-6,
        aggregate_function=aggregate, post_transform=transform, base_values=base,
    )  # fmt: skip


@pytest.mark.parametrize("name", ["TreeEnsembleRegressor", "TreeEnsembleClassifier"])
def test_double_tensors(name: str) -> None:
    forest = random_forest(7)
    prefix = "target" if name.endswith("Regressor") else "class"
    given = votes(forest, prefix, [0, 1, 2])
    given[f"{prefix}_weights_as_tensor"] = np.array(given.pop(f"{prefix}_weights"), dtype=np.float64)
    values = np.array(forest.pop("nodes_values")) + 1e-12
    x = data(8).astype(np.float64) + 1e-12
    extra = {"n_targets": 3} if prefix == "target" else {"classlabels_int64s": [4, 5, 6], "outputs": 2}
    agree(name, x, **forest, **given, nodes_values_as_tensor=values, **extra)


def classify(columns: list[int], labels: Any, low: float, **keywords: Any) -> None:
    forest = random_forest(9)
    key = "classlabels_strings" if isinstance(labels[0], str) else "classlabels_int64s"
    given = votes(forest, "class", columns, low)
    agree("TreeEnsembleClassifier", data(10), outputs=2, **forest, **given, **{key: labels}, **keywords)


@pytest.mark.parametrize("low", [-1.0, 0.0])
@pytest.mark.parametrize("transform", ["NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO"])
@pytest.mark.parametrize("base", [[], [0.25], [0.25, -0.125]])
@pytest.mark.parametrize("columns", [[0], [1], [0, 1]])
def test_two_classes(columns: list[int], base: list[float], transform: str, low: float) -> None:
    classify(columns, ["no", "yes"], low, base_values=base, post_transform=transform)


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("base", [[], [0.25, -0.125, 0.5]])
@pytest.mark.parametrize("columns", [[0, 1, 2], [1, 2]])
def test_three_classes(columns: list[int], base: list[float], transform: str) -> None:
    classify(
        columns,
        [7, 3, 5],
        0.1,
        base_values=base,
        post_transform=transform,
        atol=5e-4 if transform == "PROBIT" else 1e-6,
    )


@pytest.mark.parametrize("low", [-1.0, 0.0])
def test_one_class_has_the_labels_1_and_0(low: float) -> None:
    classify([0], [5], low)


def test_probit_of_two_classes_transforms_both() -> None:
    forest = random_forest(11, trees=1)
    given = votes(forest, "class", [0], 0.1) | {"classlabels_int64s": [0, 1]}
    _, plain = epkit("TreeEnsembleClassifier", data(12), **forest, **given)
    _, scores = epkit("TreeEnsembleClassifier", data(12), **forest, **given, post_transform="PROBIT")
    np.testing.assert_allclose(scores[:, 0], -scores[:, 1], rtol=1e-5)
    want = [NormalDist().inv_cdf(float(p)) for p in plain[:, 1]]
    np.testing.assert_allclose(scores[:, 1], want, rtol=1e-2)  # the approximation's error is up to 0.3 %


def test_two_classes_have_their_declared_labels() -> None:
    forest = random_forest(9)
    given = votes(forest, "class", [0, 1]) | {"classlabels_int64s": [5, 7]}
    labels, scores = epkit("TreeEnsembleClassifier", data(10), **forest, **given)
    assert labels.tolist() == np.where(scores[:, 1] > 0, 7, 5).tolist()


def stump(**changes: Any) -> dict[str, Any]:
    """x[0] <= 0 ? 1 : 2."""
    return {
        "nodes_nodeids": [0, 1, 2],
        "nodes_treeids": [0, 0, 0], "nodes_featureids": [0, 0, 0],
        "nodes_values": [0.0, 0.0, 0.0],
        "nodes_modes": ["BRANCH_LEQ", "LEAF", "LEAF"],
        "nodes_truenodeids": [1, 0, 0], "nodes_falsenodeids": [2, 0, 0], "n_targets": 1,
        "target_treeids": [0, 0],
        "target_nodeids": [1, 2], "target_ids": [0, 0], "target_weights": [1.0, 2.0],
    } | changes  # fmt: skip


def test_votes_for_one_target_add_up_and_a_base_value_needs_no_vote() -> None:
    twice = stump(
        target_treeids=[0] * 3, target_nodeids=[1, 1, 2], target_ids=[0] * 3, target_weights=[1, 4, 2]
    )
    x = np.array([[-1], [1]], np.float32)
    assert epkit("TreeEnsembleRegressor", x, **twice)[0].tolist() == [[5], [2]]
    apart = stump(n_targets=2, target_ids=[0, 1], base_values=[10.0, 20.0])
    for aggregate in ("SUM", "AVERAGE", "MIN", "MAX"):
        y = epkit("TreeEnsembleRegressor", x, **apart, aggregate_function=aggregate)[0]
        assert y.tolist() == [[11, 20], [10, 22]]


def test_a_shared_node_is_walked_from_both_parents() -> None:
    shared = {
        "nodes_nodeids": [0, 1, 2, 3], "nodes_treeids": [0] * 4, "nodes_featureids": [0] * 4,
        "nodes_values": [1.0, 2.0, 0.0, 0.0],
        "nodes_modes": ["BRANCH_EQ", "BRANCH_EQ", "LEAF", "LEAF"],
        "nodes_truenodeids": [2, 2, 0, 0], "nodes_falsenodeids": [1, 3, 0, 0], "n_targets": 1,
        "target_treeids": [0, 0],
        "target_nodeids": [2, 3], "target_ids": [0, 0], "target_weights": [1.0, 2.0],
    }  # fmt: skip
    agree("TreeEnsembleRegressor", np.array([[0], [1], [2], [3]], np.float32), **shared)


def test_many_columns_are_scattered(monkeypatch: pytest.MonkeyPatch) -> None:
    forest = random_forest(13)
    given = votes(forest, "target", [0, 2, 3])
    for aggregate in ("SUM", "MIN", "MAX"):
        keywords = {**forest, **given, "n_targets": 20, "aggregate_function": aggregate}
        dense = epkit("TreeEnsembleRegressor", data(14), **keywords)[0]
        monkeypatch.setattr("epkit.kernels._forest._DENSE", 1)
        sparse = epkit("TreeEnsembleRegressor", data(14), **keywords)[0]
        monkeypatch.undo()
        np.testing.assert_allclose(sparse, dense, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"nodes_truenodeids": [0, 0, 0]}, "cycle"),
        ({"nodes_truenodeids": [7, 0, 0]}, "tree 0 has no node 7"),
        ({"nodes_nodeids": [0, 1, 1]}, "node 1 of tree 0 is there twice"),
        ({"nodes_featureids": [-1, 0, 0]}, "a feature is -1"),
        ({"nodes_featureids": [3, 0, 0]}, "X has 1 features, but a node reads feature 3"),
        ({"nodes_modes": ["BRANCH", "LEAF", "LEAF"]}, "'BRANCH'"),
        ({"nodes_values": [0.0]}, "of one length"),
        ({"target_ids": [0, 1]}, r"target or class is 1, outside \[0, 1\)"),
        ({"base_values": [1.0, 2.0]}, "2 values for 1 targets"),
        ({"aggregate_function": "MEDIAN"}, "'MEDIAN'"),
        ({"post_transform": "TANH"}, "'TANH'"),
        ({"nodes_values_as_tensor": np.zeros(3)}, "only one of nodes_values"),
    ],
)
def test_refusals(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        epkit("TreeEnsembleRegressor", np.zeros((2, 1), np.float32), **stump(**changes))


def test_preparation_is_kept_by_identity() -> None:
    calls = []
    prepare = prepared_once(lambda values, size: calls.append(1) or (values, size))
    values = (1, 2, 3)
    assert prepare(values, 1000) is prepare(values, int("1000"))
    prepare((*values[:2], 3), 1000)
    assert len(calls) == 2


def ensemble5(seed: int, dtype: Any = np.float32) -> dict[str, Any]:
    """TreeEnsemble 5 of one tree with all modes, sets included."""
    rng = np.random.default_rng(seed)
    inner, modes = 15, [0, 1, 2, 3, 4, 5, 6]
    mode = rng.choice(modes, inner).astype(np.uint8)
    ids = np.arange(inner)
    leaf = 2 * ids + 1 >= inner
    sets = [np.append(rng.choice(7, 1 + k % 5, replace=False) - 3, np.nan) for k in range((mode == 6).sum())]
    return {
        "tree_roots": [0], "n_targets": 2, "nodes_modes": mode,
        "nodes_featureids": rng.integers(0, 3, inner).tolist(),
        "nodes_splits": rng.integers(-2, 3, inner).astype(dtype),
        "nodes_truenodeids": np.where(leaf, 2 * ids + 1 - inner, 2 * ids + 1).tolist(),
        "nodes_falsenodeids": np.where(leaf, 2 * ids + 2 - inner, 2 * ids + 2).tolist(),
        "nodes_trueleafs": leaf.astype(int).tolist(), "nodes_falseleafs": leaf.astype(int).tolist(),
        "nodes_missing_value_tracks_true": rng.integers(0, 2, inner).tolist(),
        "leaf_targetids": rng.integers(0, 2, inner + 1).tolist(),
        "leaf_weights": rng.standard_normal(inner + 1).astype(dtype),
        "membership_values": np.concatenate([np.zeros(0), *sets]).astype(dtype),
    }  # fmt: skip


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_tree_ensemble_5(seed: int, dtype: Any) -> None:
    agree("TreeEnsemble", data(seed, missing=True).astype(dtype), opset=5, **ensemble5(seed, dtype))


def test_tree_ensemble_5_of_halves() -> None:
    single, half = ensemble5(1), ensemble5(1, np.float16)
    x = data(2)
    got = epkit("TreeEnsemble", x.astype(np.float16), opset=5, **half)[0]
    assert got.dtype == np.float16
    np.testing.assert_allclose(got, epkit("TreeEnsemble", x, opset=5, **single)[0], rtol=1e-3)


@pytest.mark.parametrize("transform", range(5))
@pytest.mark.parametrize("aggregate", range(4))
def test_tree_ensemble_5_codes(aggregate: int, transform: int) -> None:
    """Every leaf has a weight in (0, 1) for the only target, of two trees over the same nodes."""
    given = ensemble5(3) | {"n_targets": 1, "leaf_targetids": [0] * 16, "tree_roots": [0, 1]}
    given["leaf_weights"] = np.linspace(0.1, 0.4, 16, dtype=np.float32)
    x = data(4)
    got = epkit("TreeEnsemble", x, opset=5, **given, aggregate_function=aggregate)[0]
    one, other = (epkit("TreeEnsemble", x, opset=5, **given | {"tree_roots": [r]})[0] for r in (0, 1))
    both = [(one + other) / 2, one + other, np.minimum(one, other), np.maximum(one, other)]
    np.testing.assert_allclose(got, both[aggregate], rtol=1e-6)
    y = epkit("TreeEnsemble", x, opset=5, **given, post_transform=transform)[0]
    assert (y == one + other).all() == (transform != 4)  # a single score is only transformed by PROBIT


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"aggregate_function": 4}, "aggregate_function"),
        ({"post_transform": -1}, "post_transform"),
        ({"membership_values": np.array([np.nan] * 40, np.float32)}, "40 sets"),
        ({"nodes_modes": np.full(15, 7, np.uint8)}, "7"),
        ({"nodes_truenodeids": [16] * 15}, "leads to 16"),
        ({"tree_roots": [15]}, "root is 31"),
    ],
)
def test_refusals_5(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        epkit("TreeEnsemble", data(1), opset=5, **ensemble5(1) | changes)
