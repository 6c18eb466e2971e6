"""Where the nodes of a graph are drawn: layers by longest path, crossings reduced by barycentres.

Sugiyama, Tagawa and Toda, "Methods for Visual Understanding of Hierarchical System Structures" (1981).
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)

SWEEPS = 4


@dataclass(frozen=True)
class Layout(Generic[Key]):
    """Column (a fraction) and layer of each node; the number of columns and layers."""

    places: Mapping[Key, tuple[float, int]]
    columns: int
    layers: int


def lay_out(order: Sequence[Key], producers: Mapping[Key, Sequence[Key]]) -> Layout[Key]:
    """Place nodes, given in topological order, below those whose results they read."""
    layer: dict[Key, int] = {}
    users: dict[Key, list[Key]] = {node: [] for node in order}
    for node in order:
        layer[node] = max((layer[p] + 1 for p in producers[node]), default=0)
        for producer in producers[node]:
            users[producer].append(node)
    for node in reversed(order):  # what begins a branch stands just above where it is used
        if not producers[node] and users[node]:
            layer[node] = min(layer[user] for user in users[node]) - 1
    layer = {node: at - min(layer.values()) for node, at in layer.items()} if layer else {}
    rows: list[list[Key]] = [[] for _ in range(max(layer.values(), default=-1) + 1)]
    for node in order:
        rows[layer[node]].append(node)
    x: dict[Key, float] = {}
    for row in rows:
        _spread(row, {node: float(index - (len(row) - 1) / 2) for index, node in enumerate(row)}, x)
    for sweep in range(SWEEPS):
        neighbours = producers if sweep % 2 == 0 else users
        for row in rows if sweep % 2 == 0 else reversed(rows):
            wanted = {node: _mean([x[n] for n in neighbours[node]], x[node]) for node in row}
            row.sort(key=lambda node: (wanted[node], x[node]))
            _spread(row, wanted, x)
    left = min(x.values(), default=0.0)
    width = max(x.values(), default=0.0) - left
    return Layout({node: (x[node] - left, layer[node]) for node in order}, round(width) + 1, len(rows))


def _mean(values: Sequence[float], default: float) -> float:
    return sum(values) / len(values) if values else default


def _spread(row: Sequence[Key], wanted: Mapping[Key, float], x: dict[Key, float]) -> None:
    """Put a row's nodes where they want to be, at least one column apart, without drifting to a side."""
    at: list[float] = []
    for node in row:
        at.append(max(wanted[node], at[-1] + 1) if at else wanted[node])
    drift = _mean([place - wanted[node] for place, node in zip(at, row, strict=True)], 0.0)
    for place, node in zip(at, row, strict=True):
        x[node] = place - drift
