"""Grouping: neighbouring nodes of one provider become one region, and regions never form a cycle.

Nodes are scheduled so that runs of one provider stay together (list scheduling over the units), then
each unit joins the latest region of its provider that it can join without closing a cycle. Whether it
can is read from each region's set of ancestors, kept as a bit mask. Ties are broken by the order of the
nodes in the model, so the result is deterministic.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import onnx_ir as ir

from .edges import Edges
from .policy import Unit


@dataclass
class Region:
    """Nodes of one provider (index, None: the runtime itself), in an order that respects all edges."""

    provider: int | None
    nodes: list[ir.Node] = field(default_factory=list)


def group_regions(edges: Edges, units: Sequence[Unit]) -> list[Region]:
    """Convex regions in an order in which they can run. Units without a provider stand alone."""
    if (
        len({unit.provider for unit in units}) == 1
        and units[0].provider is not None
        and len(units) == len(edges.order)
    ):
        return [Region(units[0].provider, list(edges.order))]  # single nodes, all of one provider
    regions: list[Region] = []
    ancestors: list[int] = []
    home: dict[ir.Node, int] = {}
    latest: dict[int, list[int]] = {}
    for unit in _schedule(units, edges):
        needs = {home[p] for node in unit.nodes for p in edges.producers[node] if p in home}
        index = _joinable(unit, needs, latest, ancestors)
        if index is None:
            index = len(regions)
            regions.append(Region(unit.provider))
            ancestors.append(0)
            if unit.provider is not None:
                latest.setdefault(unit.provider, []).append(index)
        inside = set(unit.nodes)
        regions[index].nodes += sorted(inside, key=edges.order.__getitem__)
        home.update(dict.fromkeys(unit.nodes, index))
        _inherit(index, needs - {index}, ancestors)
    return [regions[index] for index in _topological(ancestors)]


def _schedule(units: Sequence[Unit], edges: Edges) -> Iterator[Unit]:
    """Units in dependency order; among those that are ready, one of the present provider goes first."""
    unit_of = {node: index for index, unit in enumerate(units) for node in unit.nodes}
    needs = [
        {unit_of[p] for node in unit.nodes for p in edges.producers[node]} - {index}
        for index, unit in enumerate(units)
    ]
    followers: list[list[int]] = [[] for _ in units]
    for index, required in enumerate(needs):
        for other in required:
            followers[other].append(index)
    ready: dict[int | None, list[int]] = {}
    for index, required in enumerate(needs):
        if not required:
            heapq.heappush(ready.setdefault(units[index].provider, []), index)
    current: int | None = None
    while any(ready.values()):
        if not ready.get(current):
            current = units[min(heap[0] for heap in ready.values() if heap)].provider
        index = heapq.heappop(ready[current])
        yield units[index]
        for follower in followers[index]:
            needs[follower].discard(index)
            if not needs[follower]:
                heapq.heappush(ready.setdefault(units[follower].provider, []), follower)


def _joinable(unit: Unit, needs: set[int], latest: dict[int, list[int]], ancestors: list[int]) -> int | None:
    """The latest region of the unit's provider from which no path leads to another region that it needs."""
    if unit.provider is None:
        return None
    for index in reversed(latest.get(unit.provider, ())):
        if not any(ancestors[other] >> index & 1 for other in needs if other != index):
            return index
    return None


def _inherit(index: int, needs: set[int], ancestors: list[int]) -> None:
    """Add what a region now needs to its ancestors, and to those of every region after it."""
    gained = 0
    for other in needs:
        gained |= ancestors[other] | 1 << other
    if gained & ~ancestors[index] == 0:
        return
    ancestors[index] |= gained
    for other, mask in enumerate(ancestors):
        if mask >> index & 1:
            ancestors[other] = mask | ancestors[index]


def _topological(ancestors: Sequence[int]) -> list[int]:
    """Region indices, each after its ancestors; the number of ancestors is such an order."""
    return sorted(range(len(ancestors)), key=lambda index: (ancestors[index].bit_count(), index))
