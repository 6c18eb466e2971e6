"""From when to when each value's memory is needed.

Steps come in order; each says what it reads, what it writes into memory from the core, and which results
it makes itself that may be views of what it read (a result may be named as both, where only the run shows
which). A value lives until the last read of itself or of anything that may be a view of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from ..backend.program import MemoryStep


@dataclass(frozen=True)
class Lifetime:
    """A value written into core memory at step ``start`` and needed up to and including step ``end``."""

    value: ir.Value
    start: int
    end: int


def lifetimes(steps: Sequence[MemoryStep], escaping: Iterable[ir.Value]) -> tuple[Lifetime, ...]:
    """Lifetimes of all values in core memory that do not leave the graph.

    Values that leave (``escaping``), or that an escaping value may be a view of, get memory of their own.
    """
    start: dict[ir.Value, int] = {}
    end: dict[ir.Value, int] = {}
    roots: dict[ir.Value, frozenset[ir.Value]] = {}
    for index, step in enumerate(steps):
        seen = frozenset().union(*(roots.get(value, frozenset()) for value in step.reads))
        end.update(dict.fromkeys(seen, index))
        roots.update(dict.fromkeys(step.aliases, seen))
        for value in step.writes:
            roots[value] = frozenset((value,)) | (seen if value in step.aliases else frozenset())
            start[value] = end[value] = index
    gone = frozenset().union(*(roots.get(value, frozenset()) for value in escaping))
    return tuple(Lifetime(value, first, end[value]) for value, first in start.items() if value not in gone)
