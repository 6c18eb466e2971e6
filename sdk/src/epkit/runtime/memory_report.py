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
    """Memory of a session, in bytes.

    Attributes:
        arenas: for each device, what values of runs hold and have held at most, and how often memory was reused.
        plans: the core's plans of all graphs, those learnt for shapes that came up included.
        weights: of the model, where they were read: pages of its file, if it has one.
        packed: weights in the forms that programs made for themselves; sessions of one process share them.
        mapped: of these, pages of a file in the cache.
    """

    arenas: tuple[ArenaStatistics, ...]
    plans: tuple[MemoryPlan, ...]
    weights: int = 0
    packed: int = 0
    mapped: int = 0

    @property
    def planned(self) -> int:
        """Of the core's plans; programs that plan by themselves tell what they hold."""
        return sum(plan.size for plan in self.plans)

    @property
    def peak(self) -> int:
        """The most that values of runs held, over all devices."""
        return sum(arena.peak for arena in self.arenas)

    @property
    def lower_bound(self) -> int:
        """What no plan can do without: of the core's plans, and of the programs' latest run."""
        plans = sum(plan.lower_bound for plan in self.plans)
        return plans + sum(arena.lower_bound for arena in self.arenas)

    def __str__(self) -> str:
        lines = [
            f"{a.device}: peak {a.peak:,} bytes, in use {a.in_use:,}, {a.allocations} "
            f"allocations, {a.reused} reuses"
            + (f"; programs: lower bound {a.lower_bound:,}, spared {a.spared:,}" if a.lower_bound else "")
            for a in self.arenas
        ]
        mapped = f", {self.mapped:,} of them mapped" if self.mapped else ""
        lines.append(f"weights: {self.weights:,} bytes in the model, {self.packed:,} packed{mapped}")
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
