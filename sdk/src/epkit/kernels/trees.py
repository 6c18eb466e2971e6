"""Decision trees: classifiers, regressors and their common successor TreeEnsemble."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ._forest import MEMBER, MODES, Branches, Forest, Votes, collect, make_forest
from ._ml import (
    DOMAIN,
    TRANSFORMS,
    as_float,
    as_rows,
    class_labels,
    pick,
    prepared_once,
    to_single,
    transform,
    two_scores,
)
from ._tree_nodes import node_index
from .operator import op

AGGREGATES = ("AVERAGE", "SUM", "MIN", "MAX")
"""The aggregate functions; the position is the code that TreeEnsemble 5 uses."""


def _same_length(**arrays: Any) -> None:
    lengths = {name: len(array) for name, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"these attributes must be of one length: {lengths}")


def exclusive(floats: Any, tensor: Any, name: str) -> Any:
    if floats is not None and len(floats) and tensor is not None and tensor.size:
        raise ValueError(f"only one of {name} and {name}_as_tensor may be given")
    return tensor if tensor is not None and tensor.size else (floats or ())


def _flags(tracks: Any, count: int) -> Any:
    """Which of ``count`` nodes send missing values to their true branch."""
    flags = np.asarray(tracks if tracks is not None and len(tracks) else np.zeros(count), dtype=np.int64)
    _same_length(nodes_missing_value_tracks_true=flags, nodes_modes=range(count))
    return flags == 1


def _mode_codes(modes: Any) -> Any:
    """The codes of branch modes, -1 for leaves."""
    codes = {name: code for code, name in enumerate(MODES[:MEMBER])} | {"LEAF": -1}
    words = getattr(modes, "words", None)  # of a list that is kept as numbers, see model/long_lists.py
    unknown = set(words or modes) - set(codes)
    if unknown:
        raise ValueError(f"nodes_modes must be of {', '.join(codes)}, not {sorted(unknown)[0]!r}")
    if words:
        return np.array([codes[word] for word in words])[modes.array]
    return np.fromiter(map(codes.__getitem__, modes), dtype=np.int64, count=len(modes))


@dataclass(frozen=True)
class Ensemble:
    """A forest and what the classifier's rules ask of its votes."""

    forest: Forest
    sure: Any
    """Which columns get a vote in every row, if the others never do; else None."""
    one_class: bool
    positive: bool
    """Whether all votes are for one class; whether none is negative."""


@prepared_once
def make_ensemble(
    xp: Any,
    dtype: Any,
    reduction: str,
    columns: int,
    mark_voters: bool,
    nodes_treeids: Any,
    nodes_nodeids: Any,
    nodes_modes: Any,
    nodes_featureids: Any,
    nodes_values: Any,
    nodes_truenodeids: Any,
    nodes_falsenodeids: Any,
    nodes_missing: Any,
    vote_treeids: Any,
    vote_nodeids: Any,
    vote_ids: Any,
    vote_weights: Any,
) -> Ensemble:
    """The forest of versions 1 to 4, where nodes and leaves share the attributes ``nodes_*``.

    A tree's root is its first node. Votes of inner nodes are ignored (old converters left some). With
    ``mark_voters``, if it is not sure that all columns with votes get one in every row, there are twice
    the columns: the second half counts the votes.
    """
    _same_length(
        nodes_treeids=nodes_treeids,
        nodes_nodeids=nodes_nodeids,
        nodes_modes=nodes_modes,
        nodes_featureids=nodes_featureids,
        nodes_values=nodes_values,
        nodes_truenodeids=nodes_truenodeids,
        nodes_falsenodeids=nodes_falsenodeids,
    )
    _same_length(treeids=vote_treeids, nodeids=vote_nodeids, ids=vote_ids, weights=vote_weights)
    tree, node, feature, true_id, false_id, vote_tree, vote_node, column = (
        np.asarray(ids, dtype=np.int64)
        for ids in (
            nodes_treeids,
            nodes_nodeids,
            nodes_featureids,
            nodes_truenodeids,
            nodes_falsenodeids,
            vote_treeids,
            vote_nodeids,
            vote_ids,
        )
    )
    mode = _mode_codes(nodes_modes)
    leaf, inner = mode == -1, np.flatnonzero(mode != -1)
    leaves = int(leaf.sum())
    number = np.where(leaf, np.cumsum(leaf) - 1, leaves + np.cumsum(~leaf) - 1)
    index = node_index(tree, node)
    branches = Branches(
        leaves=leaves,
        mode=mode[inner],
        feature=feature[inner],
        threshold=np.asarray(nodes_values, dtype=dtype)[inner],
        if_true=number[index.find(tree[inner], true_id[inner], "nodes_truenodeids")],
        if_false=number[index.find(tree[inner], false_id[inner], "nodes_falsenodeids")],
        missing_is_true=_flags(nodes_missing, len(mode))[inner],
    )
    voter = number[index.find(vote_tree, vote_node, "the nodeids of the weights")]
    at_leaf = voter < leaves
    votes = Votes(voter[at_leaf], column[at_leaf], np.asarray(vote_weights, dtype=dtype)[at_leaf])
    roots = number[np.sort(np.unique(tree, return_index=True)[1])]
    sure = None
    if mark_voters:
        sure, certain = _sure_columns(tree[leaf], votes, columns)
        if not certain:
            votes = Votes(
                np.concatenate([votes.leaf, votes.leaf]),
                np.concatenate([votes.column, votes.column + columns]),
                np.concatenate([votes.weight, np.ones_like(votes.weight)]),
            )
            columns, sure = 2 * columns, None
    forest = make_forest(xp, branches, [], roots, votes, columns, reduction)
    one_class, positive = len(np.unique(column)) == 1, bool((np.asarray(vote_weights) >= 0).all())
    return Ensemble(forest, sure, one_class, positive)


def _sure_columns(tree_of_leaf: Any, votes: Votes, columns: int) -> tuple[Any, bool]:
    """Which columns get a vote in every row, and whether the others never do."""
    trees, rank = np.unique(tree_of_leaf, return_inverse=True)
    inside = (votes.column >= 0) & (votes.column < columns)
    pairs = np.unique(votes.leaf[inside] * columns + votes.column[inside])
    voters = rank[pairs // columns] * columns + pairs % columns
    codes, counts = np.unique(voters, return_counts=True)
    whole = counts == np.bincount(rank, minlength=len(trees))[codes // columns]
    sure, ever = np.zeros(columns, dtype=bool), np.zeros(columns, dtype=bool)
    sure[codes[whole] % columns] = True
    ever[codes % columns] = True
    return sure, bool((sure == ever).all())


@op("TreeEnsembleRegressor", domain=DOMAIN, since=(1, 3))
def tree_ensemble_regressor(
    xp: Any,
    x: Any,
    *,
    aggregate_function: str = "SUM",
    base_values: Any = None,
    base_values_as_tensor: Any = None,
    n_targets: int = 1,
    nodes_falsenodeids: Any = (),
    nodes_featureids: Any = (),
    nodes_missing_value_tracks_true: Any = None,
    nodes_modes: Any = (),
    nodes_nodeids: Any = (),
    nodes_treeids: Any = (),
    nodes_truenodeids: Any = (),
    nodes_values: Any = None,
    nodes_values_as_tensor: Any = None,
    post_transform: str = "NONE",
    target_ids: Any = (),
    target_nodeids: Any = (),
    target_treeids: Any = (),
    target_weights: Any = None,
    target_weights_as_tensor: Any = None,
) -> Any:
    """Y[n, t] = post_transform(base[t] + aggregate of the weights for t of the leaves that row n reaches).

    Version 3 added the tensor attributes, for doubles; version 5 deprecates the operator.
    """
    x = as_float(xp, as_rows(xp, x))
    reduction = _reduction(aggregate_function)
    ensemble = make_ensemble(
        xp,
        x.dtype,
        reduction,
        n_targets,
        False,
        nodes_treeids,
        nodes_nodeids,
        nodes_modes,
        nodes_featureids,
        exclusive(nodes_values, nodes_values_as_tensor, "nodes_values"),
        nodes_truenodeids,
        nodes_falsenodeids,
        nodes_missing_value_tracks_true,
        target_treeids,
        target_nodeids,
        target_ids,
        exclusive(target_weights, target_weights_as_tensor, "target_weights"),
    )
    base = exclusive(base_values, base_values_as_tensor, "base_values")
    scores = _aggregate(xp, ensemble.forest, x, aggregate_function, base)
    return to_single(xp, transform(xp, scores, post_transform))


def _reduction(aggregate: str) -> str:
    if aggregate not in AGGREGATES:
        raise ValueError(f"aggregate_function must be one of {', '.join(AGGREGATES)}, not {aggregate!r}")
    return "SUM" if aggregate == "AVERAGE" else aggregate


def _aggregate(xp: Any, forest: Forest, x: Any, aggregate: str, base: Any = ()) -> Any:
    """The scores of regressors; a target that gets no vote has the score 0 before ``base`` is added."""
    if len(base) not in (0, forest.columns):
        raise ValueError(f"base_values has {len(base)} values for {forest.columns} targets")
    scores = collect(xp, forest, x, _reduction(aggregate))
    if aggregate == "AVERAGE":
        scores = scores / max(1, forest.roots.shape[0])
    elif aggregate in ("MIN", "MAX"):
        scores = xp.where(xp.isinf(scores), 0.0, scores)
    return scores + xp.asarray(np.asarray(base, dtype=x.dtype)) if len(base) else scores


@op("TreeEnsembleClassifier", domain=DOMAIN, since=(1, 3))
def tree_ensemble_classifier(
    xp: Any,
    x: Any,
    *,
    base_values: Any = None,
    base_values_as_tensor: Any = None,
    class_ids: Any = (),
    class_nodeids: Any = (),
    class_treeids: Any = (),
    class_weights: Any = None,
    class_weights_as_tensor: Any = None,
    classlabels_int64s: Any = None,
    classlabels_strings: Any = None,
    nodes_falsenodeids: Any = (),
    nodes_featureids: Any = (),
    nodes_missing_value_tracks_true: Any = None,
    nodes_modes: Any = (),
    nodes_nodeids: Any = (),
    nodes_treeids: Any = (),
    nodes_truenodeids: Any = (),
    nodes_values: Any = None,
    nodes_values_as_tensor: Any = None,
    post_transform: str = "NONE",
) -> Any:
    """Y[n] = the class of the greatest score, Z[n, c] = post_transform(base[c] + votes for c in n's leaves).

    Two classes follow rules of their own, see ``_binary``. Version 3 added the tensor attributes, for
    doubles; version 5 deprecates the operator.
    """
    labels = class_labels(classlabels_int64s, classlabels_strings)
    weights = exclusive(class_weights, class_weights_as_tensor, "class_weights")
    x = as_float(xp, as_rows(xp, x))
    base = np.asarray(exclusive(base_values, base_values_as_tensor, "base_values"), dtype=x.dtype)
    ensemble = make_ensemble(
        xp,
        x.dtype,
        "SUM",
        len(labels),
        True,
        nodes_treeids,
        nodes_nodeids,
        nodes_modes,
        nodes_featureids,
        exclusive(nodes_values, nodes_values_as_tensor, "nodes_values"),
        nodes_truenodeids,
        nodes_falsenodeids,
        nodes_missing_value_tracks_true,
        class_treeids,
        class_nodeids,
        class_ids,
        weights,
    )
    scores = collect(xp, ensemble.forest, x, "SUM")
    if ensemble.sure is None:
        scores, voted = scores[:, : len(labels)], scores[:, len(labels) :] > 0
    else:
        voted = xp.broadcast_to(xp.asarray(ensemble.sure), scores.shape)
    if len(labels) > 2:
        index, scores = _multiclass(xp, scores, voted, base)
        scores = transform(xp, scores, post_transform)
    elif len(labels) == 2:
        index, scores = _binary(xp, scores, voted, base, ensemble, post_transform)
    else:
        index, scores = _single(xp, scores, base)
        scores = transform(xp, scores, post_transform)
        labels = labels if labels.dtype == object else np.array([0, 1])
        index = index if labels.dtype != object else xp.zeros_like(index)
    return pick(xp, labels, index), to_single(xp, scores)


def _multiclass(xp: Any, scores: Any, voted: Any, base: Any) -> tuple[Any, Any]:
    """The first class with the greatest score, among those with a vote or a base value."""
    if len(base):
        if len(base) != scores.shape[1]:
            raise ValueError(f"base_values has {len(base)} values for {scores.shape[1]} classes")
        scores = scores + xp.asarray(base)
        return xp.argmax(scores, axis=1), scores
    return xp.argmax(xp.where(voted, scores, -xp.inf), axis=1), scores


def _single(xp: Any, scores: Any, base: Any) -> tuple[Any, Any]:
    """One class only: the label is 1 where its score is positive, else 0, as onnxruntime has it."""
    if len(base) > 1:
        raise ValueError(f"base_values has {len(base)} values for one class")
    scores = scores + float(base[0]) if len(base) else scores
    return xp.astype(scores[:, 0] > 0, xp.int64), scores


def _binary(
    xp: Any, scores: Any, voted: Any, base: Any, ensemble: Ensemble, post_transform: str
) -> tuple[Any, Any]:
    """Two classes, by the rules of onnxruntime, which converters rely on.

    The positive weight p is class 1's score where it has a vote, else class 0's. The label is class 1 where
    p > 0; but where all votes are for one class and none is negative they are
    probabilities, and it is class 1 where p > 0.5. A row without a vote for class 1 has the one score p,
    which is expanded to two.
    """
    if len(base) > 2:
        raise ValueError(f"base_values has {len(base)} values for two classes")
    probabilities = ensemble.one_class and ensemble.positive
    first, second, has_first, has_second = scores[:, 0], scores[:, 1], voted[:, 0], voted[:, 1]
    alone = ~has_second if len(base) < 2 else xp.zeros_like(has_second)
    if len(base) == 1:
        first = first + float(base[0])
    elif len(base) == 2:  # the base value of class 0 and the score of class 1 are not used together
        second = xp.where(has_second, first + float(base[1]), second)
        first = xp.where(has_second, -second, first + float(base[0]))
    zero = xp.zeros_like(first)
    weight = xp.where(has_second, second, xp.where(has_first, first, zero))
    index = xp.astype(weight > (0.5 if probabilities else 0.0), xp.int64)
    # a class without a vote shows the score 0, whatever its base value
    pair = xp.stack([xp.where(has_first, first, zero), xp.where(has_second, second, zero)], axis=1)
    result = transform(xp, pair, post_transform)
    if bool(xp.any(alone)):
        if ensemble.one_class or not len(base):
            alone_scores = two_scores(xp, first, post_transform, complement=probabilities)
        else:
            alone_scores = transform(xp, xp.stack([first, zero], axis=1), post_transform)
        result = xp.where(alone[:, None], alone_scores, result)
    return index, result


@op("TreeEnsemble", domain=DOMAIN, since=5)
def tree_ensemble(
    xp: Any,
    x: Any,
    *,
    aggregate_function: int = 1,
    leaf_targetids: Any,
    leaf_weights: Any,
    membership_values: Any = None,
    n_targets: int = 1,
    nodes_falseleafs: Any,
    nodes_falsenodeids: Any,
    nodes_featureids: Any,
    nodes_missing_value_tracks_true: Any = None,
    nodes_modes: Any,
    nodes_splits: Any,
    nodes_trueleafs: Any,
    nodes_truenodeids: Any,
    post_transform: int = 0,
    tree_roots: Any,
) -> Any:
    """Y[n, t] = post_transform(aggregate of the weights for t of the leaves that row n reaches)."""
    if not 0 <= aggregate_function < len(AGGREGATES):
        raise ValueError(f"aggregate_function must be in [0, {len(AGGREGATES)}), not {aggregate_function}")
    if not 0 <= post_transform < len(TRANSFORMS):
        raise ValueError(f"post_transform must be in [0, {len(TRANSFORMS)}), not {post_transform}")
    rows = as_float(xp, as_rows(xp, x))
    aggregate = AGGREGATES[aggregate_function]
    forest = make_forest5(
        xp,
        rows.dtype,
        _reduction(aggregate),
        n_targets,
        leaf_targetids,
        leaf_weights,
        membership_values,
        nodes_falseleafs,
        nodes_falsenodeids,
        nodes_featureids,
        nodes_missing_value_tracks_true,
        nodes_modes,
        nodes_splits,
        nodes_trueleafs,
        nodes_truenodeids,
        tree_roots,
    )
    scores = _aggregate(xp, forest, rows, aggregate)
    with np.errstate(over="ignore"):
        return xp.astype(transform(xp, scores, TRANSFORMS[post_transform]), x.dtype)


@prepared_once
def make_forest5(
    xp: Any,
    dtype: Any,
    reduction: str,
    columns: int,
    leaf_targetids: Any,
    leaf_weights: Any,
    membership_values: Any,
    nodes_falseleafs: Any,
    nodes_falsenodeids: Any,
    nodes_featureids: Any,
    nodes_missing: Any,
    nodes_modes: Any,
    nodes_splits: Any,
    nodes_trueleafs: Any,
    nodes_truenodeids: Any,
    tree_roots: Any,
) -> Forest:
    """The forest of version 5, where leaves have attributes of their own."""
    _same_length(
        nodes_modes=nodes_modes,
        nodes_splits=nodes_splits,
        nodes_featureids=nodes_featureids,
        nodes_truenodeids=nodes_truenodeids,
        nodes_trueleafs=nodes_trueleafs,
        nodes_falsenodeids=nodes_falsenodeids,
        nodes_falseleafs=nodes_falseleafs,
    )
    _same_length(leaf_targetids=leaf_targetids, leaf_weights=leaf_weights)
    leaves, mode = len(leaf_targetids), np.asarray(nodes_modes, dtype=np.int64)
    unknown = mode[(mode < 0) | (mode > MEMBER)]
    if unknown.size:
        raise ValueError(f"nodes_modes must be in [0, {MEMBER}], not {int(unknown[0])}")
    branches = Branches(
        leaves=leaves,
        mode=mode,
        feature=np.asarray(nodes_featureids, dtype=np.int64),
        threshold=np.asarray(nodes_splits, dtype=dtype),
        if_true=_branch(nodes_truenodeids, nodes_trueleafs, leaves, len(mode)),
        if_false=_branch(nodes_falsenodeids, nodes_falseleafs, leaves, len(mode)),
        missing_is_true=_flags(nodes_missing, len(mode)),
    )
    votes = Votes(
        np.arange(leaves), np.asarray(leaf_targetids, dtype=np.int64), np.asarray(leaf_weights, dtype=dtype)
    )
    roots = leaves + np.asarray(tree_roots, dtype=np.int64)
    members = _member_sets(membership_values, int((mode == MEMBER).sum()), dtype)
    return make_forest(xp, branches, members, roots, votes, columns, reduction)


def _branch(ids: Any, leafs: Any, leaves: int, nodes: int) -> Any:
    """Where a branch leads, leaves first."""
    to, is_leaf = np.asarray(ids, dtype=np.int64), np.asarray(leafs, dtype=np.int64) != 0
    bad = to[(to < 0) | (to >= np.where(is_leaf, leaves, nodes))]
    if bad.size:
        raise ValueError(f"a branch leads to {int(bad[0])}, but there are {nodes} nodes and {leaves} leaves")
    return np.where(is_leaf, to, leaves + to)


def _member_sets(values: Any, count: int, dtype: Any) -> Any:
    """The sets of the membership nodes: values delimited by NaN."""
    values = np.asarray(() if values is None else values, dtype=dtype)
    ends = np.flatnonzero(np.isnan(values))
    sets = [part[~np.isnan(part)] for part in np.split(values, ends)] if values.size else []
    if sets and not sets[-1].size:
        sets.pop()  # nothing after the last delimiter
    if len(sets) != count:
        raise ValueError(f"membership_values has {len(sets)} sets for {count} BRANCH_MEMBER nodes")
    return sets
