"""Nodes of tree ensembles by the ids that versions 1 to 4 of the operators give them: their tree's and their own."""

from __future__ import annotations

from typing import Any

import numpy as np


def node_index(tree: Any, node: Any) -> SortedIndex | DenseIndex:
    """The index of nodes; a table if their ids are about as many as they."""
    if len(tree) and min(tree.min(), node.min()) >= 0:
        width = int(node.max()) + 1
        if (int(tree.max()) + 1) * width <= 4 * len(tree) + 1024:
            return DenseIndex(tree, node, width)
    return SortedIndex(tree, node)


class DenseIndex:
    """The position of a node by its tree's and its own id, as a table of all pairs."""

    def __init__(self, tree: Any, node: Any, width: int) -> None:
        self._width = width
        keys = tree * width + node
        self._place = np.full((int(tree.max()) + 1) * width, -1)
        self._place[keys] = np.arange(len(keys))
        if len(keys) and (self._place[keys] != np.arange(len(keys))).any():
            SortedIndex(tree, node)  # which says what is there twice

    def find(self, tree: Any, node: Any, what: str) -> Any:
        outside = (tree < 0) | (node < 0) | (node >= self._width) | (tree >= len(self._place) // self._width)
        at = self._place[np.where(outside, 0, tree * self._width + node)]
        known = ~outside & (at >= 0)
        if not known.all():
            first = int(np.flatnonzero(~known)[0])
            raise ValueError(f"{what}: tree {int(tree[first])} has no node {int(node[first])}")
        return at


class SortedIndex:
    """The position of a node by its tree's and its own id."""

    def __init__(self, tree: Any, node: Any) -> None:
        self._trees, tree_rank = np.unique(tree, return_inverse=True)
        self._nodes, node_rank = np.unique(node, return_inverse=True)
        keys = tree_rank * len(self._nodes) + node_rank
        self._order = np.argsort(keys, kind="stable")
        self._keys = keys[self._order]
        if (self._keys[1:] == self._keys[:-1]).any():
            twice = int(self._order[1:][self._keys[1:] == self._keys[:-1]][0])
            raise ValueError(f"node {int(node[twice])} of tree {int(tree[twice])} is there twice")

    def find(self, tree: Any, node: Any, what: str) -> Any:
        if not len(tree):
            return np.zeros(0, dtype=np.int64)
        tree_rank = np.minimum(np.searchsorted(self._trees, tree), len(self._trees) - 1)
        node_rank = np.minimum(np.searchsorted(self._nodes, node), len(self._nodes) - 1)
        keys = tree_rank * len(self._nodes) + node_rank
        at = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        known = (self._trees[tree_rank] == tree) & (self._nodes[node_rank] == node) & (self._keys[at] == keys)
        if not known.all():
            first = int(np.flatnonzero(~known)[0])
            raise ValueError(f"{what}: tree {int(tree[first])} has no node {int(node[first])}")
        return self._order[at]
