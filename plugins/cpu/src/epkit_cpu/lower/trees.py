"""Tree ensembles of ``ai.onnx.ml``. A forest is checked and laid flat once, by the portable kernels' own code.

What that code refuses stays with the portable kernel, whose error says why; so do labels of text, integer inputs,
and the post transforms PROBIT and SOFTMAX_ZERO.
"""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np

from epkit.kernels._forest import Forest
from epkit.kernels._ml import DOMAIN, TRANSFORMS
from epkit.kernels.trees import AGGREGATES, Ensemble, exclusive, make_ensemble, make_forest5

from .step import Lowering, Operand, Step, View, longs

Array = np.ndarray[Any, Any]

REDUCTIONS = ("SUM", "MIN", "MAX")
NATIVE_TRANSFORMS = ("NONE", "SOFTMAX", "LOGISTIC")
LIMIT = np.iinfo(np.int32).max
REFUSALS = (ValueError, TypeError, OverflowError, KeyError)
"""What the portable kernels raise for attributes that make no forest."""

NODES = ("treeids", "nodeids", "modes", "featureids", "values", "truenodeids", "falsenodeids")


def classifier(view: View) -> Step | None:
    """TreeEnsembleClassifier with whole numbers as labels."""
    attributes, dtype = view.attributes, _dtype(view)
    labels = np.asarray(attributes.get("classlabels_int64s", ()), np.int64)
    if dtype is None or not labels.size or attributes.get("classlabels_strings"):
        return None
    try:
        ensemble = _ensemble(attributes, dtype, "class", "SUM", len(labels), mark_voters=True)
        base = _floats(attributes, "base_values", dtype)
    except REFUSALS:
        return None
    if base.size not in ({0, len(labels)} if len(labels) > 2 else range(len(labels) + 1)):
        return None
    sure = None if ensemble.sure is None else ensemble.sure.astype(np.uint8)
    transform = str(attributes.get("post_transform", "NONE"))
    flags = (int(ensemble.one_class), int(ensemble.positive))
    return _step(view, ensemble.forest, "SUM", transform, base, flags=flags, sure=sure, labels=labels)


def regressor(view: View) -> Step | None:
    """TreeEnsembleRegressor."""
    attributes, dtype = view.attributes, _dtype(view)
    aggregate = str(attributes.get("aggregate_function", "SUM"))
    if dtype is None or aggregate not in AGGREGATES:
        return None
    targets = int(attributes.get("n_targets", 1))
    try:
        ensemble = _ensemble(attributes, dtype, "target", _reduction(aggregate), targets, mark_voters=False)
        base = _floats(attributes, "base_values", dtype)
    except REFUSALS:
        return None
    if base.size not in (0, targets):
        return None
    transform = str(attributes.get("post_transform", "NONE"))
    return _step(view, ensemble.forest, aggregate, transform, base)


def ensemble5(view: View) -> Step | None:
    """TreeEnsemble, version 5: the result has X's type."""
    attributes, dtype = view.attributes, _dtype(view)
    aggregate, transform = attributes.get("aggregate_function", 1), attributes.get("post_transform", 0)
    if dtype is None or aggregate not in range(len(AGGREGATES)) or transform not in range(len(TRANSFORMS)):
        return None
    optional = ("membership_values", "nodes_missing_value_tracks_true")
    names = (
        *("leaf_targetids", "leaf_weights", "membership_values", "nodes_falseleafs", "nodes_falsenodeids"),
        *("nodes_featureids", "nodes_missing_value_tracks_true", "nodes_modes", "nodes_splits"),
        *("nodes_trueleafs", "nodes_truenodeids", "tree_roots"),
    )
    name, targets = AGGREGATES[aggregate], int(attributes.get("n_targets", 1))
    try:
        given = [attributes.get(key) if key in optional else attributes[key] for key in names]
        forest = make_forest5(np, dtype, _reduction(name), targets, *given)
    except REFUSALS:
        return None
    return _step(view, forest, name, TRANSFORMS[transform], np.zeros(0, dtype))


def _dtype(view: View) -> Any:
    kind = view.type(0)
    return np.dtype(kind) if kind in ("float32", "float64") else None


def _reduction(aggregate: str) -> str:
    return "SUM" if aggregate == "AVERAGE" else aggregate


def _floats(attributes: dict[str, Any], name: str, dtype: Any = None) -> Any:
    """Numbers given as floats or, since version 3, as a tensor."""
    given = exclusive(attributes.get(name), attributes.get(f"{name}_as_tensor"), name)
    return given if dtype is None else np.asarray(given, dtype)


def _ensemble(
    attributes: dict[str, Any], dtype: Any, prefix: str, reduction: str, columns: int, *, mark_voters: bool
) -> Ensemble:
    """The forest of versions 1 to 4."""
    nodes = {name: attributes.get(f"nodes_{name}", ()) for name in NODES}
    nodes["values"] = _floats(attributes, "nodes_values")
    votes = [attributes.get(f"{prefix}_{name}", ()) for name in ("treeids", "nodeids", "ids")]
    missing = attributes.get("nodes_missing_value_tracks_true")
    weights = _floats(attributes, f"{prefix}_weights")
    once = inspect.unwrap(make_ensemble)  # the portable kernels keep what they make
    made: Ensemble = once(
        np, dtype, reduction, columns, mark_voters, *nodes.values(), missing, *votes, weights
    )
    return made


def _step(
    view: View,
    forest: Forest,
    aggregate: str,
    transform: str,
    base: Array,
    *,
    flags: tuple[int, int] = (0, 0),
    sure: Array | None = None,
    labels: Array | None = None,
) -> Step | None:
    """The forest as ops/trees.cpp reads it."""
    votes = forest.table if forest.votes is None else forest.votes.weight
    # absent votes of MIN and MAX are infinite; the order of comparisons with NaN is NumPy's own
    sound = not np.isnan(votes).any() if aggregate in ("MIN", "MAX") else np.isfinite(votes).all()
    entries = 0 if forest.votes is None else len(forest.votes.leaf)
    if max(len(forest.feature), forest.features, entries) > LIMIT or not (sound and np.isfinite(base).all()):
        return None
    if forest.columns == 1 and transform in TRANSFORMS and transform != "PROBIT":
        transform = "NONE"  # of a single score
    if transform not in NATIVE_TRANSFORMS:
        return None
    reduction = REDUCTIONS.index(_reduction(aggregate))
    packed = longs(
        forest.columns,
        forest.features,
        reduction,
        int(aggregate == "AVERAGE"),
        0 if labels is None else len(labels),
        NATIVE_TRANSFORMS.index(transform),
        *flags,
    )
    inputs = (view.input(0), *_tables(forest), base if base.size else None, sure, labels)
    return view.step("trees", packed, inputs)


def _tables(forest: Forest) -> tuple[Operand, ...]:
    """Nodes, roots, and the votes as a table or as entries."""
    inner = slice(forest.leaves, None)
    dtype = np.dtype(
        [("threshold", forest.threshold.dtype), ("feature", np.int32), ("child", np.int32, (4,))], align=True
    )
    nodes = np.zeros(len(forest.feature) - forest.leaves, dtype)
    nodes["threshold"], nodes["feature"] = forest.threshold[inner], forest.feature[inner]
    nodes["child"] = _place(forest, forest.child).reshape(-1, 4)[inner]
    packed, roots = nodes.view(np.uint8), _place(forest, forest.roots)
    if forest.votes is None:
        return packed, roots, forest.table, None, None, None
    starts, column = forest.starts.astype(np.int32), forest.votes.column.astype(np.int32)
    return packed, roots, None, starts, column, forest.votes.weight


def _place(forest: Forest, node: Array) -> Array:
    """Inner nodes from 0 on; ~leaf for leaves."""
    return np.where(node < forest.leaves, ~node, node - forest.leaves).astype(np.int32)


TREES: dict[tuple[str, str], Lowering] = {
    (DOMAIN, "TreeEnsembleClassifier"): classifier,
    (DOMAIN, "TreeEnsembleRegressor"): regressor,
    (DOMAIN, "TreeEnsemble"): ensemble5,
}
