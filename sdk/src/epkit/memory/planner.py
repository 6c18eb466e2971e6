"""Offsets: values one after the other, each at the tightest gap among those alive with it.

After Pisarchyk and Lee, "Efficient Memory Management for Deep Neural Net Inference" (2020), section 5.2: largest
values first. Where that leaves holes, other orders are tried.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import onnx_ir as ir

from .joins import Join, lay_within, merged, outermost
from .lifetimes import Lifetime


@dataclass(frozen=True)
class Place:
    """A value's bytes within the arena."""

    offset: int
    nbytes: int


@dataclass(frozen=True)
class MemoryPlan:
    """Where each value lies in one arena.

    Attributes:
        size: bytes of the arena.
        lower_bound: the most bytes alive at any step; no plan can be smaller.
        unshared: the sum of all values, what it would take without reuse.
        within: for values that lie within another: which.
    """

    places: Mapping[ir.Value, Place]
    size: int
    lower_bound: int
    unshared: int
    within: Mapping[ir.Value, ir.Value] = field(default_factory=dict)

    def __str__(self) -> str:
        return (
            f"arena {self.size:,} bytes for {len(self.places)} values "
            f"(lower bound {self.lower_bound:,}, without reuse {self.unshared:,})"
        )


EMPTY_PLAN = MemoryPlan({}, 0, 0, 0)


def plan_memory(
    alive: Sequence[Lifetime], sizes: Mapping[ir.Value, int], alignment: int, joins: Sequence[Join] = ()
) -> MemoryPlan:
    """Offsets for the values whose size is known (bytes).

    Others are left to be allocated when they appear. The parts of a join lie within its whole, where they can.
    """
    every = [item for item in alive if sizes.get(item.value, 0) > 0]
    within = lay_within(joins, every, sizes, alignment)
    known = merged(every, within)
    rounded = {item.value: -(-sizes[item.value] // alignment) * alignment for item in known}
    least = _most_alive(known, rounded)
    best: dict[ir.Value, Place] = {}
    size = -1
    for order in ORDERS:
        places = _placed(sorted(known, key=lambda item: order(item, rounded[item.value])), rounded)
        needed = max((place.offset + place.nbytes for place in places.values()), default=0)
        if size < 0 or needed < size:
            best, size = places, needed
        if size == least:
            break
    unshared = sum(-(-sizes[item.value] // alignment) * alignment for item in every)
    for part in within:
        whole, offset = outermost(part, within)
        best[part] = Place(best[whole].offset + offset, sizes[part])
    inner = {value: place.whole for value, place in within.items()}
    return MemoryPlan(best, size, least, unshared, inner)


ORDERS: tuple[Callable[[Lifetime, int], tuple[int, int]], ...] = (
    lambda item, nbytes: (-nbytes, item.start),
    lambda item, nbytes: (-nbytes * (item.end - item.start + 1), item.start),
    lambda item, nbytes: (item.start - item.end, -nbytes),
    lambda item, nbytes: (item.start, -nbytes),
)
"""In which values are placed: the first that comes down to the lower bound is kept, else the best."""


def _placed(order: Sequence[Lifetime], sizes: Mapping[ir.Value, int]) -> dict[ir.Value, Place]:
    """Each value at the tightest gap among those alive with it. Places go by number: long-lived values meet each
    other at many steps.
    """
    made: list[Place] = []
    alive_at: dict[int, list[int]] = {}
    for index, item in enumerate(order):
        steps = range(item.start, item.end + 1)
        met: set[int] = set().union(*(alive_at.get(step, ()) for step in steps))
        neighbours = sorted((made[other] for other in met), key=lambda place: place.offset)
        nbytes = sizes[item.value]
        made.append(Place(_best_gap(neighbours, nbytes), nbytes))
        for step in steps:
            alive_at.setdefault(step, []).append(index)
    return {item.value: place for item, place in zip(order, made, strict=True)}


def _best_gap(neighbours: Sequence[Place], nbytes: int) -> int:
    """The offset of the smallest gap between the neighbours that holds ``nbytes``, else the end."""
    best, best_size, cursor = -1, 0, 0
    for place in neighbours:
        gap = place.offset - cursor
        if gap >= nbytes and (best < 0 or gap < best_size):
            best, best_size = cursor, gap
        cursor = max(cursor, place.offset + place.nbytes)
    return best if best >= 0 else cursor


def _most_alive(alive: Sequence[Lifetime], sizes: Mapping[ir.Value, int]) -> int:
    changes: dict[int, int] = {}
    for item in alive:
        changes[item.start] = changes.get(item.start, 0) + sizes[item.value]
        changes[item.end + 1] = changes.get(item.end + 1, 0) - sizes[item.value]
    most = now = 0
    for step in sorted(changes):
        now += changes[step]
        most = max(most, now)
    return most
