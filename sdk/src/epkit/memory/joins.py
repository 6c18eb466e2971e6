"""Values that lie within others: what a Concat reads, written straight into its result."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from ..backend.program import MemoryStep
from .lifetimes import Lifetime


@dataclass(frozen=True)
class Join:
    """A value that consists of others, one after the other."""

    whole: ir.Value
    parts: tuple[ir.Value, ...]


@dataclass(frozen=True)
class Within:
    """Where a value lies within another (bytes)."""

    whole: ir.Value
    offset: int


def joins_of(steps: Iterable[MemoryStep]) -> tuple[Join, ...]:
    """The joins of steps, in their order."""
    return tuple(Join(step.writes[0], step.reads) for step in steps if step.joins and len(step.writes) == 1)


def lay_within(
    joins: Sequence[Join], alive: Sequence[Lifetime], sizes: Mapping[ir.Value, int], alignment: int
) -> dict[ir.Value, Within]:
    """The parts that can lie within their whole: of known size, aligned, read into one place of one whole only."""
    managed = {item.value for item in alive}
    found: dict[ir.Value, Within] = {}
    for join in joins:
        lengths = _lengths(join, sizes)
        if join.whole not in managed or not lengths:
            continue
        offset = 0
        for part, length in zip(join.parts, lengths, strict=True):
            once = join.parts.count(part) == 1 and part not in found
            if part in managed and once and offset % alignment == 0:
                found[part] = Within(join.whole, offset)
            offset += length
    return found


def _lengths(join: Join, sizes: Mapping[ir.Value, int]) -> list[int]:
    """The bytes of the parts, of which one may be in other memory, so that its size is what is left; empty: unknown."""
    rest = sizes.get(join.whole, 0) - sum(sizes.get(part, 0) for part in join.parts)
    missing = sum(part not in sizes for part in join.parts)
    if missing > 1 or rest < 0 or (rest > 0 and not missing):
        return []
    return [sizes.get(part, rest) for part in join.parts]


def outermost(value: ir.Value, within: Mapping[ir.Value, Within]) -> tuple[ir.Value, int]:
    """The value that lies within no other, and where in it."""
    offset = 0
    while value in within:
        offset += within[value].offset
        value = within[value].whole
    return value, offset


def merged(alive: Sequence[Lifetime], within: Mapping[ir.Value, Within]) -> list[Lifetime]:
    """The lifetimes of the outermost values: from the first write to the last read of anything within."""
    start: dict[ir.Value, int] = {}
    end: dict[ir.Value, int] = {}
    for item in alive:
        whole, _ = outermost(item.value, within)
        start[whole] = min(start.get(whole, item.start), item.start)
        end[whole] = max(end.get(whole, item.end), item.end)
    return [Lifetime(value, first, end[value]) for value, first in start.items()]
