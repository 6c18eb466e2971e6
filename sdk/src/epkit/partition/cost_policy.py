"""Policy *cost*: the division of nodes among providers with the least estimated time, transfers included.

For two providers the best division is a minimum cut, and is found exactly. For more, pairs of providers
exchange nodes as long as that helps (the swap moves of Boykov, Veksler and Zabih, 2001). Values are copied
once to each memory that reads them, and two devices exchange through the host, as the runtime does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import onnx_ir as ir

from ..backend.bound import Bound
from ..backend.claim import Claim
from ..backend.subgraph import constant_of
from .costs import Costs
from .edges import Edges
from .min_cut import FOREVER, MinCut
from .offers import Offer

HOST = -1
GAIN = 0.1
"""What a division that was only predicted has to save of the time of one provider alone: nodes are measured one by one,
where a provider that has them all runs several in one pass, and measurements differ from one time to the next."""
Labels = dict[ir.Node, int]


@dataclass(frozen=True)
class Division:
    """One way to divide a graph, and what a run of it takes (seconds).

    Attributes:
        labels: for each node that somebody claims, the provider (an index) that has it.
        predicted: by the times of nodes and copies.
        measured: by `epkit tune`, as a whole; None if it was not.
    """

    labels: Labels
    predicted: float
    measured: float | None

    @property
    def is_pure(self) -> bool:
        """True if one provider has all."""
        return len(set(self.labels.values())) == 1


def best_labels(edges: Edges, offers: Sequence[Offer], bounds: Sequence[Bound], costs: Costs) -> Labels:
    """For each node that somebody claims, the provider (an index) that should have it."""
    found = divisions(edges, offers, bounds, costs)
    if not found:
        return {}
    if all(division.measured is not None for division in found):
        return min(found, key=lambda division: division.measured or 0.0).labels
    best = min(found, key=lambda division: division.predicted)
    alone = min(filter(_is_pure, found), key=lambda division: division.predicted, default=best)
    return best.labels if best.predicted < (1 - GAIN) * alone.predicted else alone.labels


def _is_pure(division: Division) -> bool:
    return division.is_pure


def divisions(
    edges: Edges, offers: Sequence[Offer], bounds: Sequence[Bound], costs: Costs
) -> tuple[Division, ...]:
    """Those worth a thought: everything on one provider, the order of preference, and the cheapest by prediction.

    Where everything on one provider was measured, the times of its nodes are first scaled to what they take together:
    alone, a node takes longer than within what a provider compiles as one.
    """
    problem = _Problem(edges, offers, bounds, costs)
    if not problem.choices:
        return ()
    starts = [{node: ranks[0] for node, ranks in problem.choices.items()}]
    starts += [
        {node: rank if rank in ranks else ranks[0] for node, ranks in problem.choices.items()}
        for rank in range(1, len(offers))
    ]
    for labels in starts:
        if len(ranks := set(labels.values())) == 1 and (measured := costs.measured(labels)) is not None:
            problem.scale(ranks.pop(), measured / problem.total(labels))
    cheapest = min(map(problem.improved, starts), key=problem.total)
    distinct = {tuple(labels.values()): labels for labels in (*starts, cheapest)}
    return tuple(
        Division(labels, problem.total(labels), costs.measured(labels)) for labels in distinct.values()
    )


@dataclass(frozen=True)
class _Use:
    """A value, who makes it, who reads it, and whether it is a result of the graph."""

    value: ir.Value
    maker: ir.Node | None
    readers: tuple[ir.Node, ...]
    result: bool


class _Problem:
    def __init__(self, edges: Edges, offers: Sequence[Offer], bounds: Sequence[Bound], costs: Costs) -> None:
        self.bounds, self.costs, self.edges = bounds, costs, edges
        self.claims: dict[tuple[ir.Node, int], Claim] = {}
        self.groups: dict[int, list[tuple[ir.Node, ...]]] = {}
        for rank, offer in enumerate(offers):
            alone = {claim.nodes[0] for claim in offer.claims if len(claim.nodes) == 1}
            for claim in sorted(offer.claims, key=lambda item: len(item.nodes)):
                for node in claim.nodes:
                    self.claims.setdefault((node, rank), claim)
                if len(claim.nodes) > 1 and alone.isdisjoint(claim.nodes):
                    self.groups.setdefault(rank, []).append(claim.nodes)
        self.choices: dict[ir.Node, tuple[int, ...]] = {}
        for node in edges.order:
            ranks = tuple(rank for rank in range(len(offers)) if (node, rank) in self.claims)
            if ranks:
                self.choices[node] = ranks
        self.seconds = {
            (node, rank): costs.node(rank, node, self.claims[node, rank])
            for node, ranks in self.choices.items()
            for rank in ranks
        }
        self.uses = tuple(self._uses())

    def _uses(self) -> list[_Use]:
        graphs = {node.graph for node in self.edges.order}
        results = {value for graph in graphs if graph is not None for value in graph.outputs}
        made = {value: node for node in self.edges.order for value in node.outputs}
        read = self.edges.readers
        values = dict.fromkeys((*made, *read))
        return [
            _Use(value, made.get(value), tuple(read.get(value, ())), value in results)
            for value in values
            if constant_of(value) is None
        ]

    def scale(self, rank: int, factor: float) -> None:
        """Multiply the times of a provider's nodes."""
        self.seconds |= {key: time * factor for key, time in self.seconds.items() if key[1] == rank}

    def place(self, rank: int | None) -> int:
        """The memory of a provider; the host's for the runtime."""
        return HOST if rank is None or self.bounds[rank].device.host_memory else rank

    def total(self, labels: Labels) -> float:
        """Estimated seconds of one run."""
        time = sum(self.seconds[node, rank] for node, rank in labels.items())
        for use in self.uses:
            home = self.place(labels.get(use.maker)) if use.maker is not None else HOST
            wanted = {self.place(labels.get(node)) for node in use.readers}
            wanted |= {HOST} if use.result else set()
            away = wanted - {home}
            if away and home != HOST:
                time += self.costs.to_host(home, use.value)
            time += sum(self.costs.to_device(place, use.value) for place in away if place != HOST)
        return time

    def improved(self, labels: Labels) -> Labels:
        """Let pairs of providers exchange nodes until no exchange helps."""
        ranks = sorted({rank for ranks in self.choices.values() for rank in ranks})
        best, seconds = labels, self.total(labels)
        improving = True
        while improving:
            improving = False
            for first, second in combinations(ranks, 2):
                tried = self.swapped(best, first, second)
                time = self.total(tried)
                if time < seconds * (1 - 1e-9):
                    best, seconds, improving = tried, time, True
        return best

    def swapped(self, labels: Labels, first: int, second: int) -> Labels:
        """The best division of what two providers have between them; all other nodes stay."""
        cut = MinCut()
        points = {}
        for node, rank in labels.items():
            if rank in (first, second):
                points[node] = cut.point()
                prices = (self.seconds.get((node, one), None) for one in (first, second))
                cut.price(
                    points[node], *(FOREVER if price is None else _nanoseconds(price) for price in prices)
                )
        for rank in (first, second):
            for group in self.groups.get(rank, ()):
                for one, other in zip(group, group[1:], strict=False):
                    if one in points and other in points:
                        cut.pay(points[one], points[other], FOREVER)
                        cut.pay(points[other], points[one], FOREVER)
        for use in self.uses:
            self._pay_for(cut, use, labels, points, (first, second))
        sides = cut.on_second_side()
        return {
            node: (second if sides[points[node]] else first) if node in points else rank
            for node, rank in labels.items()
        }

    def _pay_for(
        self, cut: MinCut, use: _Use, labels: Labels, points: dict[ir.Node, int], pair: tuple[int, int]
    ) -> None:
        """Copies of one value. A point "read on this side" stands for all its readers together."""
        moving = [points[node] for node in use.readers if node in points]
        maker = points.get(use.maker) if use.maker is not None else None
        if not moving and maker is None:
            return
        staying = {self.place(labels.get(node)) for node in use.readers if node not in points}
        staying |= {HOST} if use.result else set()
        home = None if maker is not None else self.place(labels.get(use.maker) if use.maker else None)
        for side, rank in enumerate(pair):
            place = self.place(rank)
            if place == HOST:
                continue
            copy_in = _nanoseconds(self.costs.to_device(rank, use.value))
            copy_out = _nanoseconds(self.costs.to_host(rank, use.value))
            if moving and place not in staying and home != place:
                self._if_any(cut, moving, maker, side, copy_in)
            if maker is not None:
                if staying - {place}:
                    cut.price(maker, *((copy_out, 0) if side == 0 else (0, copy_out)))
                elif moving:
                    self._if_any(cut, moving, maker, 1 - side, copy_out)

    def _if_any(self, cut: MinCut, readers: list[int], maker: int | None, side: int, cost: int) -> None:
        """Pay if any reader is on ``side`` and the maker (if it moves at all) is on the other."""
        some = cut.point()
        for reader in readers:
            cut.pay(*((reader, some) if side == 0 else (some, reader)), FOREVER)
        other = maker
        if other is None:
            cut.price(some, *((cost, 0) if side == 0 else (0, cost)))
        else:
            cut.pay(*((some, other) if side == 0 else (other, some)), cost)


def _nanoseconds(seconds: float) -> int:
    return max(0, round(seconds * 1e9))
