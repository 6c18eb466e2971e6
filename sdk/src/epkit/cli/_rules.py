"""``epkit explain --rules``: the optimiser's rules, and what they did to a model."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from . import _render

if TYPE_CHECKING:
    from ..optimize.optimise import Optimised


def all_rules() -> list[dict[str, str]]:
    """Name, level, kind and mathematics of every pass and rule, in the order in which they are applied."""
    from ..optimize.fuse import Fusion
    from ..optimize.levels import LEVELS, Phase

    rows: list[dict[str, str]] = []
    seen: set[Phase] = set()
    for level, phases in LEVELS.items():
        for phase in phases:
            if phase in seen:
                continue
            seen.add(phase)
            for apply in phase.passes:
                name = apply.__name__
                if all(row["name"] != name for row in rows):
                    rows.append(
                        {"name": name, "level": level, "kind": "pass", "says": _first(apply.__doc__ or "")}
                    )
            for rule in phase.rules:
                kind = "fusion" if isinstance(rule, Fusion) else "rule"
                rows.append(
                    {"name": rule.name, "level": level, "kind": kind, "says": _first(rule.mathematics)}
                )
    return rows


def show_all(as_json: bool) -> None:
    """List the rules."""
    rows = all_rules()
    if as_json:
        _render.emit({"rules": rows})
        return
    _render.table(
        ["rule", "level", "kind", "says"], [[r["name"], r["level"], r["kind"], r["says"]] for r in rows]
    )


def show_applied(name: str, found: Optimised, as_json: bool) -> None:
    """List what was done to a model, numbered for --stop-after, and where a rule came close and refused."""
    if as_json:
        _render.emit({"model": name, **_as_json(found)})
        return
    counts = {each.name: each.changes for each in found.passes if each.changes}
    _render.line(f"{name}: level {found.level}, {found.nodes_before} nodes before")
    _render.line(", ".join(f"{rule}×{count}" for rule, count in counts.items()))
    _render.heading("applied")
    rows: list[list[_render.Cell]] = [
        [number, each.rule, each.node, each.changes] for number, each in enumerate(found.applied, 1)
    ]
    _render.table([">number", "rule", "node", ">changes"], rows)
    if found.missed:
        _render.heading("nearly")
        reasons = Counter((each.rule, each.reason) for each in found.missed)
        _render.table(["rule", "why not", ">times"], [[rule, why, n] for (rule, why), n in reasons.items()])


def _as_json(found: Optimised) -> dict[str, Any]:
    return {
        "level": found.level,
        "nodes_before": found.nodes_before,
        "applied": [{"rule": a.rule, "node": a.node, "changes": a.changes} for a in found.applied],
        "missed": [{"rule": m.rule, "node": m.node, "reason": m.reason} for m in found.missed],
    }


def _first(text: str) -> str:
    """The first sentence or line of a docstring."""
    return " ".join(text.strip().split("\n\n")[0].split())
