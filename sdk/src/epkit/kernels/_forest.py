"""Decision forests as flat arrays, walked by all rows of all trees at once, one level a step.

The leaves are numbered first, the inner nodes after them. An inner node compares a feature with its
threshold; the comparison has four outcomes, and ``child[4 * node + outcome]`` is where each leads. So all
branch modes, missing values and leaves (which lead to themselves) are one and the same step, and a set of
members is a search tree.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ._bounds import bounded

NAN, LESS, GREATER, EQUAL = range(4)
"""Outcomes of a comparison: (x <= t) + 2 (x >= t)."""

MODES = ("BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT", "BRANCH_EQ", "BRANCH_NEQ", "BRANCH_MEMBER")
"""Branch modes; the position is the code that TreeEnsemble 5 uses."""

MEMBER = MODES.index("BRANCH_MEMBER")

_ACCEPTS = np.array(
    # nan,less, greater, equal
    [
        [0, 1, 0, 1],
        [0, 1, 0, 0],
        [0, 0, 1, 1],
        [0, 0, 1, 0],
        [0, 0, 0, 1],
        [1, 1, 1, 0],
    ],
    dtype=bool,
)

_BLOCK = 1 << 16
"""About so many (tree, row) pairs are walked together: few enough for the cache."""

_DENSE = 1 << 22
"""Up to so many votes are stored as a table even where most are absent."""


@dataclass(frozen=True)
class Branches:
    """The inner nodes in host memory; children below ``leaves`` are leaves, others inner nodes."""

    leaves: int
    mode: Any
    feature: Any
    threshold: Any
    if_true: Any
    if_false: Any
    missing_is_true: Any


@dataclass(frozen=True)
class Votes:
    """Leaf ``leaf[i]`` votes for ``column[i]`` with ``weight[i]``."""

    leaf: Any
    column: Any
    weight: Any


@dataclass(frozen=True)
class Forest:
    """The forest on the array namespace's device."""

    leaves: int
    columns: int
    features: int
    feature: Any
    threshold: Any
    child: Any
    roots: Any
    table: Any
    starts: Any
    votes: Votes | None


def make_forest(
    xp: Any, branches: Branches, members: Any, roots: Any, votes: Votes, columns: int, reduction: str
) -> Forest:
    """The flat arrays of a forest.

    ``members`` are the sets of the BRANCH_MEMBER nodes, in their order. Several votes of a leaf for one
    column are reduced here.

    Raises:
        ValueError: on children, features or columns that do not exist, and on cycles.
    """
    _check(branches, roots, votes, columns)
    child, feature, threshold = _outcomes(branches, members)
    table, starts = _vote_table(branches.leaves, votes, columns, threshold.dtype, reduction)
    if table is None:
        order = np.argsort(votes.leaf, kind="stable")
        votes = Votes(*(xp.asarray(part[order]) for part in (votes.leaf, votes.column, votes.weight)))
    return Forest(
        leaves=branches.leaves,
        columns=columns,
        features=int(feature.max(initial=-1)) + 1,
        feature=xp.asarray(feature),
        threshold=xp.asarray(threshold),
        child=xp.asarray(child),
        roots=xp.asarray(roots),
        table=None if table is None else xp.asarray(table),
        starts=None if starts is None else xp.asarray(starts),
        votes=votes if table is None else None,
    )


def _check(branches: Branches, roots: Any, votes: Votes, columns: int) -> None:
    total = branches.leaves + len(branches.mode)
    for what, index, limit in (
        ("a node's true branch", branches.if_true, total),
        ("a node's false branch", branches.if_false, total),
        ("a tree's root", roots, total),
        ("a leaf's target or class", votes.column, columns),
        ("a feature", branches.feature, np.iinfo(np.int64).max),
    ):
        bad = index[(index < 0) | (index >= limit)]
        if bad.size:
            raise ValueError(f"{what} is {int(bad[0])}, outside [0, {limit})")
    _check_acyclic(branches)


def _check_acyclic(branches: Branches) -> None:
    """Every inner node is taken once all of its parents are; on a cycle some never are."""
    inner = len(branches.mode)
    own = np.arange(branches.leaves, branches.leaves + inner)
    if all(((to < branches.leaves) | (to > own)).all() for to in (branches.if_true, branches.if_false)):
        return  # every edge leads forward, as nearly all exporters write it
    edges = np.stack([branches.if_true, branches.if_false], axis=1) - branches.leaves
    waits = np.bincount(edges[edges >= 0], minlength=inner)
    ready = np.flatnonzero(waits == 0)
    taken = 0
    while ready.size:
        taken += ready.size
        below = edges[ready].ravel()
        below = below[below >= 0]
        np.subtract.at(waits, below, 1)
        below = np.unique(below)
        ready = below[waits[below] == 0]
    if taken < inner:
        raise ValueError("the nodes of a tree form a cycle")


def _outcomes(branches: Branches, members: Any) -> tuple[Any, Any, Any]:
    """``child``, ``feature`` and ``threshold`` of all nodes, leaves first."""
    comparing = branches.mode != MEMBER
    mode = np.where(comparing, branches.mode, 0)
    accepts = _ACCEPTS[mode]
    accepts[:, NAN] |= branches.missing_is_true
    feature, threshold = branches.feature, branches.threshold
    unordered = np.isnan(threshold)
    if unordered.any():
        accepts[unordered, LESS:] = (mode[unordered] == MODES.index("BRANCH_NEQ"))[:, None]
        threshold = np.where(unordered, 0, threshold)
    inner = np.where(accepts, branches.if_true[:, None], branches.if_false[:, None])
    if not comparing.all():
        inner, feature, threshold = _expand_members(branches, inner, feature, threshold, members)
    stay = np.repeat(np.arange(branches.leaves)[:, None], 4, axis=1)
    none = np.zeros(branches.leaves)
    return (
        np.concatenate([stay, inner], dtype=np.int64).ravel(),
        np.concatenate([none, feature], dtype=np.int64, casting="unsafe"),
        np.concatenate([none, threshold], dtype=branches.threshold.dtype, casting="unsafe"),
    )


def _expand_members(
    branches: Branches, inner: Any, feature: Any, threshold: Any, members: Any
) -> tuple[Any, Any, Any]:
    """Each membership node becomes a balanced search tree over its set (an empty set: always false)."""
    children, limits, features = inner.tolist(), threshold.tolist(), feature.tolist()
    for node, values in zip(np.flatnonzero(branches.mode == MEMBER).tolist(), members, strict=True):
        yes, no = int(branches.if_true[node]), int(branches.if_false[node])
        missing = yes if branches.missing_is_true[node] else no
        ordered = np.unique(values).tolist()
        children[node] = [missing, no, no, no]
        todo = [(node, 0, len(ordered))]
        while todo:
            at, low, high = todo.pop()
            if low == high:
                continue
            middle = (low + high) // 2
            limits[at] = ordered[middle]
            children[at] = [missing, no, no, yes]
            for side, part in ((LESS, (low, middle)), (GREATER, (middle + 1, high))):
                if part[0] < part[1]:
                    children[at][side] = branches.leaves + len(children)
                    todo.append((len(children), *part))
                    children.append([])
                    limits.append(0.0)
                    features.append(features[node])
    return np.array(children), np.array(features), np.array(limits)


_IDENTITY = {"SUM": 0.0, "MIN": np.inf, "MAX": -np.inf}


def _vote_table(leaves: int, votes: Votes, columns: int, dtype: Any, reduction: str) -> tuple[Any, Any]:
    """The votes as a table [leaves, columns] if that is not wasteful, else where each leaf's votes start."""
    if leaves * columns > max(_DENSE, 4 * len(votes.leaf)):
        return None, np.searchsorted(np.sort(votes.leaf), np.arange(leaves + 1))
    table = np.full((leaves, columns), _IDENTITY[reduction], dtype=dtype)
    into = {"SUM": np.add, "MIN": np.minimum, "MAX": np.maximum}[reduction]
    into.at(table, (votes.leaf, votes.column), votes.weight)
    return (table[:, 0] if columns == 1 else table), None


def collect(xp: Any, forest: Forest, x: Any, reduction: str) -> Any:
    """The votes of all trees for rows x [N, F], reduced by SUM, MIN or MAX: [N, columns], in x's type.

    They are added in the order of the trees, as onnxruntime does: a forest's vote is often close to a tie.
    Where no tree votes, the reduction's identity (0, inf, -inf) is left.
    """
    if x.shape[1] < forest.features:
        raise ValueError(f"X has {x.shape[1]} features, but a node reads feature {forest.features - 1}")
    result = xp.full(bounded((x.shape[0], forest.columns), x), _IDENTITY[reduction], dtype=x.dtype)
    height = max(1, min(4096, 16 * _BLOCK // forest.columns))
    for start in range(0, x.shape[0], height):
        rows = x[start : start + height]
        width = max(1, _BLOCK // (rows.shape[0] * forest.columns))
        part = result[start : start + height]
        for tree in range(0, forest.roots.shape[0], width):
            leaf = _leaves(xp, forest, rows, forest.roots[tree : tree + width])
            with np.errstate(over="ignore", invalid="ignore"):
                _add_votes(xp, forest, leaf, part, reduction)
    return result


def _leaves(xp: Any, forest: Forest, rows: Any, roots: Any) -> Any:
    """The leaf of every tree and row: [trees, rows]."""
    trees, count = roots.shape[0], rows.shape[0]
    values = xp.reshape(rows, (-1,))
    node = xp.repeat(roots, count)
    offset = xp.tile(xp.arange(count, dtype=xp.int64) * rows.shape[1], trees)
    found = place = None
    while True:
        walking = node >= forest.leaves
        left = int(xp.count_nonzero(walking))
        if left == 0:
            break
        if 2 * left < node.shape[0]:  # most have arrived: go on with the others only
            if found is None or place is None:
                found, place = node, xp.arange(node.shape[0])
            else:
                found[place] = node
            keep = xp.nonzero(walking)[0]
            node, offset, place = node[keep], offset[keep], place[keep]
        value = xp.take(values, xp.take(forest.feature, node) + offset)
        limit = xp.take(forest.threshold, node)
        outcome = xp.astype(value <= limit, xp.int8) + 2 * xp.astype(value >= limit, xp.int8)
        node = xp.take(forest.child, 4 * node + outcome)
    if found is not None:
        found[place] = node
        node = found
    return xp.reshape(node, (trees, count))


def _add_votes(xp: Any, forest: Forest, leaf: Any, result: Any, reduction: str) -> None:
    """Reduce the votes of the leaves [trees, rows] into result [rows, columns]."""
    if forest.votes is not None:
        _scatter_votes(xp, forest, leaf, result, reduction)
        return
    votes = xp.take(forest.table, leaf, axis=0)
    if forest.columns == 1:
        votes = votes[:, :, None]
    if reduction == "SUM":
        votes[0, ...] += result
        # a sum along the only axis would be pairwise
        result[...] = xp.sum(votes, axis=0) if result.size > 1 else xp.cumulative_sum(votes, axis=0)[-1, ...]
    elif reduction == "MIN":
        result[...] = xp.minimum(result, xp.min(votes, axis=0))
    else:
        result[...] = xp.maximum(result, xp.max(votes, axis=0))


def _scatter_votes(xp: Any, forest: Forest, leaf: Any, result: Any, reduction: str) -> None:
    """The same where most leaves vote for few of very many columns."""
    assert forest.votes is not None
    row = xp.tile(xp.arange(leaf.shape[1]), leaf.shape[0])
    leaf = xp.reshape(leaf, (-1,))
    at, end = xp.take(forest.starts, leaf), xp.take(forest.starts, leaf + 1)
    into = {"SUM": xp.add, "MIN": xp.minimum, "MAX": xp.maximum}[reduction]
    while True:
        keep = xp.nonzero(at < end)[0]
        if keep.shape[0] == 0:
            return
        at, end, row = at[keep], end[keep], row[keep]
        into.at(result, (row, xp.take(forest.votes.column, at)), xp.take(forest.votes.weight, at))
        at = at + 1
