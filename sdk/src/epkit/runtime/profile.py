"""What ran where, and for how long: the dispatch record of one or more runs."""

from __future__ import annotations

import os
from collections import defaultdict
from dataclasses import dataclass, field

from ..trace import Recorder


@dataclass(frozen=True)
class Row:
    """One line of the profile's table: an operator on a provider. Times in milliseconds, over all runs.

    ``counters`` holds what the device counted (``RunContext.measure``).
    """

    provider: str
    operator: str
    calls: int
    total_ms: float
    share: float
    counters: dict[str, float] = field(default_factory=dict)

    def counted(self) -> tuple[str, str, str]:
        """Cycles, utilisation and bytes moved as text, "" where they are unknown."""
        found = self.counters
        peak = found.get("peak_macs", 0.0)
        return (
            f"{found['cycles']:,.0f}" if "cycles" in found else "",
            f"{found.get('macs', 0.0) / peak:.1%}" if peak else "",
            f"{found['bytes']:,.0f}" if "bytes" in found else "",
        )


COUNTED = ("cycles", "utilisation", "bytes")
"""Columns of a table in which any row has counters."""


class Profile:
    """Pass one to ``RunOptions(profile=...)``; it may serve several runs.

    Opens in Perfetto after ``save``.
    """

    def __init__(self) -> None:
        self.recorder = Recorder()

    def dispatched(self) -> dict[str, str]:
        """Which provider ran each node, by node name, as the runtime saw it happen.

        Control flow that the runtime ran itself is not among them; the nodes of its bodies are. Where a provider ran
        it whole, they are as far as the provider reported them.
        """
        found: dict[str, str] = {}
        reported = {event.name for event in self.recorder.events if event.category == "node"}
        for event in self.recorder.events:
            if event.category == "partition":
                nodes, inside = event.details["nodes"], event.details.get("inside", ())
                assert isinstance(nodes, tuple) and isinstance(inside, tuple)
                ran = (*nodes, *(name for name in inside if name in reported))
                found.update(dict.fromkeys(ran, str(event.details["provider"])))
        return found

    def rows(self) -> list[Row]:
        """Time by operator and provider, largest first.

        Partitions that report no nodes stand for themselves.
        """
        calls: dict[tuple[str, str], int] = defaultdict(int)
        spent: dict[tuple[str, str], int] = defaultdict(int)
        counted: dict[tuple[str, str], dict[str, float]] = defaultdict(dict)
        detailed = {e.details["partition"] for e in self.recorder.events if e.category == "node"}
        for event in self.recorder.events:
            whole = event.category == "partition" and event.details["partition"] not in detailed
            if event.category in ("node", "transfer") or whole:
                key = (str(event.details["provider"]), str(event.details.get("operator", event.name)))
                calls[key] += 1
                spent[key] += event.duration
                _sum(counted[key], event.details.get("counters"))
        total = sum(spent.values()) or 1
        rows = [Row(*key, calls[key], time / 1e6, time / total, counted[key]) for key, time in spent.items()]
        return sorted(rows, key=lambda row: -row.total_ms)

    def table(self, top: int = 15) -> str:
        """The first rows as text; with columns for cycles, utilisation and bytes where a device counts them."""
        rows = self.rows()[:top]
        lines = [f"{'ms':>10}  {'share':>6}  {'calls':>6}  provider    operator"]
        for row in rows:
            lines.append(
                f"{row.total_ms:10.3f}  {row.share:6.1%}  {row.calls:6}  {row.provider:<10}  {row.operator}"
            )
        if any(row.counters for row in rows):
            cells = [COUNTED, *(row.counted() for row in rows)]
            lines = [
                f"{cycles:>14}  {share:>11}  {moved:>14}{line}"
                for (cycles, share, moved), line in zip(cells, lines, strict=True)
            ]
        return "\n".join(lines)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a Chrome trace (JSON)."""
        self.recorder.save(path)


def _sum(total: dict[str, float], counters: object) -> None:
    if isinstance(counters, dict):
        for name, value in counters.items():
            total[name] = total.get(name, 0.0) + value
