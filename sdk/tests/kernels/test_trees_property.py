"""Generated tree ensembles against onnxruntime."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from ml_oracle import agree

FEATURES = 3
MODES = ("BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT", "BRANCH_EQ", "BRANCH_NEQ")

numbers = st.sampled_from([-1.5, -1.0, -0.0, 0.0, 0.5, 1.0, 2.0])
# exact in float32 whatever the order of the sum, so that no label hangs on a rounding
weights = st.integers(-64, 64).map(lambda n: n / 64)
leaf = st.tuples(st.just("leaf"), weights, st.integers(0, 3))
branch_of = st.tuples(st.sampled_from(MODES), st.integers(0, FEATURES - 1), numbers, st.booleans())
trees = st.recursive(leaf, lambda child: st.tuples(st.just("node"), branch_of, child, child), max_leaves=12)
forests = st.lists(trees, min_size=1, max_size=6)
cells = st.sampled_from([-1.5, -1.0, 0.0, 0.25, 0.5, 1.0, 2.0, float("nan")])
tables = st.lists(st.lists(cells, min_size=FEATURES, max_size=FEATURES), min_size=1, max_size=8)


def attributes(forest: list[Any], prefix: str, columns: int, dense: bool) -> dict[str, Any]:
    """The attributes nodes_* and PREFIX_*; leaves vote for every column or (not dense) for one."""
    names = ("treeids", "nodeids", "modes", "featureids", "values", "missing_value_tracks_true")
    nodes: dict[str, list[Any]] = {name: [] for name in (*names, "truenodeids", "falsenodeids")}
    votes: dict[str, list[Any]] = {name: [] for name in ("treeids", "nodeids", "ids", "weights")}

    def add(tree: int, node: Any) -> int:
        own = sum(t == tree for t in nodes["treeids"])
        kind, mode_or_weight, *_ = node
        row = mode_or_weight if kind == "node" else ("LEAF", 0, 0.0, False)
        position = len(nodes["treeids"])
        for name, value in zip(names, (tree, own, *row), strict=True):
            nodes[name].append(int(value) if name.startswith("missing") else value)
        nodes["truenodeids"].append(0)
        nodes["falsenodeids"].append(0)
        if kind == "node":
            nodes["truenodeids"][position] = add(tree, node[2])
            nodes["falsenodeids"][position] = add(tree, node[3])
            return own
        for column in range(columns) if dense else [node[2] % columns]:
            vote = (tree, own, column, mode_or_weight * (1 + column % 2))
            for name, value in zip(votes, vote, strict=True):
                votes[name].append(value)
        return own

    for tree, root in enumerate(forest):
        add(tree, root)
    return {f"nodes_{k}": v for k, v in nodes.items()} | {f"{prefix}_{k}": v for k, v in votes.items()}


@settings(max_examples=60, deadline=None)
@given(
    forest=forests,
    rows=tables,
    targets=st.integers(1, 3),
    aggregate=st.sampled_from(["SUM", "AVERAGE", "MIN", "MAX"]),
    dtype=st.sampled_from([np.float32, np.float64]),
    dense=st.booleans(),
)
def test_regressors(forest: Any, rows: Any, targets: int, aggregate: str, dtype: Any, dense: bool) -> None:
    x = np.array(rows, dtype)
    given = attributes(forest, "target", targets, dense)
    agree("TreeEnsembleRegressor", x, **given, n_targets=targets, aggregate_function=aggregate)


@settings(max_examples=60, deadline=None)
@given(
    forest=forests,
    rows=tables,
    classes=st.integers(2, 4),
    transform=st.sampled_from(["NONE", "SOFTMAX", "LOGISTIC"]),
    with_base=st.booleans(),
    dense=st.booleans(),
)
def test_classifiers(
    forest: Any, rows: Any, classes: int, transform: str, with_base: bool, dense: bool
) -> None:
    """Sparse votes are left to the cases in test_trees where onnxruntime reads what it never wrote."""
    base = [0.25 * i for i in range(classes)] if with_base and (dense or classes > 2) else []
    given = attributes(forest, "class", classes, dense)
    labels = [f"class {i}" for i in range(classes)]
    agree(
        "TreeEnsembleClassifier", np.array(rows, np.float32), outputs=2, **given,
        classlabels_strings=labels, base_values=base, post_transform=transform,
    )  # fmt: skip
