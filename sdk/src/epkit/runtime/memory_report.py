"""What a session says of its memory."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ..backend.program import ProgramMemory
from ..memory.arena import ArenaStatistics

if TYPE_CHECKING:
    from ..memory.planner import MemoryPlan


@dataclass(frozen=True)
class MemoryReport:
    """Memory of a session's values (weights apart).

    Attributes:
        arenas: what each device's arena holds, used at most, and how often it was reused.
        plans: the plans of all graphs, those learnt for shapes that came up included.
    """

    arenas: tuple[ArenaStatistics, ...]
    plans: tuple[MemoryPlan, ...]

    def __str__(self) -> str:
        lines = [
            f"{a.device}: peak {a.peak:,} bytes, in use {a.in_use:,}, {a.allocations} "
            f"allocations, {a.reused} reuses"
            + (f"; programs: lower bound {a.lower_bound:,}, spared {a.spared:,}" if a.lower_bound else "")
            for a in self.arenas
        ]
        return "\n".join([*lines, *(f"  {plan}" for plan in self.plans if plan.places)])


def with_program(arena: ArenaStatistics, held: ProgramMemory) -> ArenaStatistics:
    """The statistics of an arena and of memory that a program manages beside it."""
    return replace(
        arena,
        held=arena.held + held.held,
        peak=arena.peak + held.peak,
        allocations=arena.allocations + held.allocations,
        reused=arena.reused + held.reused,
        lower_bound=arena.lower_bound + held.lower_bound,
        spared=arena.spared + held.spared,
    )
