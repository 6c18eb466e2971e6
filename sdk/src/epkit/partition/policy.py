"""Claim resolution: which provider gets which nodes, when several claim the same.

Policy *priority*: the order in which the application named the providers. Policy *cost*: the claims of
the cheapest division (``cost_policy``) first, then that order. A claim of several nodes is taken whole or
not at all, and only if merging it leaves the graph acyclic.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from ..backend.bound import Bound
from ..backend.claim import Claim, Refusal
from .cost_policy import best_labels
from .costs import Costs
from .edges import Edges
from .offers import Offer


@dataclass(eq=False, slots=True)
class Unit:
    """Nodes that stay together. ``provider`` is an index into the session's providers; None: nobody."""

    provider: int | None
    nodes: tuple[ir.Node, ...]


@dataclass(frozen=True)
class Resolution:
    """Units in order of their first node, and the group claims that were turned down."""

    units: tuple[Unit, ...]
    turned_down: tuple[tuple[int, Refusal], ...]


DEARER = "elsewhere the whole model takes less time, by the cost policy"
"""Why a provider did not get a node that it claimed. (One that refuses by itself for its cost says why.)"""


def resolve_by_priority(edges: Edges, offers: Sequence[Offer]) -> Resolution:
    """Give each node to the first provider that claims it."""
    return _resolve(edges, _in_order(offers))


def resolve_by_cost(
    edges: Edges, offers: Sequence[Offer], bounds: Sequence[Bound], costs: Costs
) -> Resolution:
    """Give each node to the provider that makes the whole cheapest."""
    labels = best_labels(edges, offers, bounds, costs)
    everything = list(_in_order(offers))
    chosen = [
        (rank, claim) for rank, claim in everything if all(labels.get(node) == rank for node in claim.nodes)
    ]
    chosen.sort(key=lambda item: -len(item[1].nodes))
    resolution = _resolve(edges, [*chosen, *everything])
    owner = {node: unit.provider for unit in resolution.units for node in unit.nodes}
    dearer = [
        (rank, Refusal(node, "cost", DEARER))
        for rank, claim in everything
        for node in claim.nodes
        if owner[node] != rank
    ]
    return Resolution(resolution.units, tuple(dearer))


def _in_order(offers: Sequence[Offer]) -> Iterable[tuple[int, Claim]]:
    return ((rank, claim) for rank, offer in enumerate(offers) for claim in offer.claims)


def _resolve(edges: Edges, claims: Iterable[tuple[int, Claim]]) -> Resolution:
    """Accept the claims in their order, as far as those before them allow."""
    state = _State(edges)
    turned_down: list[tuple[int, Refusal]] = []
    for rank, claim in claims:
        problem = state.take(rank, claim)
        if problem:
            turned_down += [(rank, Refusal(node, "group", problem)) for node in claim.nodes]
    for node in edges.order:
        if node not in state.owner:
            state.add(Unit(None, (node,)))
    units = sorted(set(state.owner.values()), key=lambda unit: edges.order[unit.nodes[0]])
    return Resolution(tuple(units), tuple(turned_down))


class _State:
    def __init__(self, edges: Edges) -> None:
        self.edges = edges
        self.order = edges.order
        self.owner: dict[ir.Node, Unit] = {}
        self.last_grouped = -1
        """The position of the last node of any group: behind it no path leads back."""

    def add(self, unit: Unit) -> None:
        self.owner.update(dict.fromkeys(unit.nodes, unit))
        if len(unit.nodes) > 1:
            self.last_grouped = max(self.last_grouped, self.order[unit.nodes[-1]])

    def take(self, rank: int, claim: Claim) -> str:
        """Accept a claim, or say why not ("" also where a single node simply went to another)."""
        if len(claim.nodes) == 1:
            if claim.nodes[0] not in self.owner:
                self.owner[claim.nodes[0]] = Unit(rank, claim.nodes)
            return ""
        nodes = tuple(sorted(dict.fromkeys(claim.nodes), key=self.order.__getitem__))
        taken = [node for node in nodes if node in self.owner]
        if taken:
            return (
                f"claimed as a group of {len(nodes)}, but {taken[0].name} went elsewhere"
                if len(nodes) > 1
                else ""
            )
        if len(nodes) > 1 and (between := self._path_back(nodes)):
            return f"claimed as a group of {len(nodes)} that is not convex: {between} lies between its nodes"
        self.add(Unit(rank, nodes))
        return ""

    def _path_back(self, group: tuple[ir.Node, ...]) -> str:
        """The name of a node outside the group on a path that leaves it and comes back, or ""."""
        inside, end = set(group), max(self.order[group[-1]], self.last_grouped)
        seen: set[ir.Node] = set()
        pending = [user for node in group for user in self.edges.users[node] if user not in inside]
        while pending:
            node = pending.pop()
            # Edges only lead forward in the order, except through a group that was accepted before.
            members = self.owner[node].nodes if node in self.owner else (node,)
            if node in seen or self.order[node] > end:
                continue
            seen.update(members)
            for user in (user for member in members for user in self.edges.users[member]):
                if user in inside:
                    return str(node.name)
                pending.append(user)
        return ""
