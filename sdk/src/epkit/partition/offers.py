"""One provider's answer for one graph, and what becomes of a control-flow node that a provider would run whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import onnx_ir as ir

from ..backend.bound import Bound
from ..backend.claim import Claim, Refusal
from ..model.walk import nodes_inside


@dataclass(frozen=True)
class Offer:
    """One provider's answer for one graph."""

    claims: tuple[Claim, ...]
    refusals: Mapping[ir.Node, Refusal]

    @cached_property
    def claimed(self) -> frozenset[ir.Node]:
        """All nodes in the claims."""
        return frozenset(node for claim in self.claims for node in claim.nodes)


def leave_bodies(
    offers: Mapping[ir.Graph, tuple[Offer, ...]], bounds: Sequence[Bound]
) -> dict[ir.Graph, tuple[Offer, ...]]:
    """The offers without claims of control-flow nodes in whose bodies a provider named earlier has claims.

    To run the node whole would take those nodes from a provider that the application prefers.
    """
    if len(bounds) < 2:
        return dict(offers)
    claimed = [
        frozenset[ir.Node]().union(*(row[rank].claimed for row in offers.values()))
        for rank in range(len(bounds))
    ]
    return {
        graph: tuple(_left(offer, rank, claimed, bounds) for rank, offer in enumerate(row))
        for graph, row in offers.items()
    }


def _left(offer: Offer, rank: int, claimed: Sequence[frozenset[ir.Node]], bounds: Sequence[Bound]) -> Offer:
    lost: dict[ir.Node, Refusal] = {}
    kept = []
    for claim in offer.claims:
        found = _preferred(claim, claimed[:rank])
        if found is None:
            kept.append(claim)
            continue
        inner, other = found
        reason = f"{bounds[rank].name} would run it whole, but {bounds[other].name} runs {inner.name} in it"
        lost.update((node, Refusal(node, "group", reason)) for node in claim.nodes)
    return Offer(tuple(kept), {**offer.refusals, **lost}) if lost else offer


def _preferred(claim: Claim, earlier: Sequence[frozenset[ir.Node]]) -> tuple[ir.Node, int] | None:
    """A node within the claimed ones that a provider named earlier claims."""
    for node in claim.nodes:
        for inner in nodes_inside(node):
            for rank, nodes in enumerate(earlier):
                if inner in nodes:
                    return inner, rank
    return None
