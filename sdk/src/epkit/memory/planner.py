"""Offsets: greedy by size. Largest values first, each at the tightest gap among those alive with it.

After Pisarchyk and Lee, "Efficient Memory Management for Deep Neural Net Inference" (2020), section 5.2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir

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
    """

    places: Mapping[ir.Value, Place]
    size: int
    lower_bound: int
    unshared: int

    def __str__(self) -> str:
        return (
            f"arena {self.size:,} bytes for {len(self.places)} values "
            f"(lower bound {self.lower_bound:,}, without reuse {self.unshared:,})"
        )


EMPTY_PLAN = MemoryPlan({}, 0, 0, 0)


def plan_memory(alive: Sequence[Lifetime], sizes: Mapping[ir.Value, int], alignment: int) -> MemoryPlan:
    """Offsets for the values whose size is known (bytes).

    Others are left to be allocated when they appear.
    """
    known = [item for item in alive if sizes.get(item.value, 0) > 0]
    rounded = {item.value: -(-sizes[item.value] // alignment) * alignment for item in known}
    placed: list[tuple[Lifetime, Place]] = []
    for item in sorted(known, key=lambda item: (-rounded[item.value], item.start)):
        neighbours = sorted(
            (place for other, place in placed if other.start <= item.end and item.start <= other.end),
            key=lambda place: place.offset,
        )
        placed.append((item, Place(_best_gap(neighbours, rounded[item.value]), rounded[item.value])))
    return MemoryPlan(
        {item.value: place for item, place in placed},
        max((place.offset + place.nbytes for _, place in placed), default=0),
        _most_alive(known, rounded),
        sum(rounded.values()),
    )


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
