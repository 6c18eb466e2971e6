"""The page of ``epkit explain --html``: a graph coloured by provider, self-contained, without a network."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from string import Template

from ..model.walk import all_graphs
from ..partition.advice import advise
from ..partition.costs import nbytes_of
from ..partition.schedule import RunControl, Schedule, Transfer
from ..planning import Plan
from ..runtime.profile import Profile
from . import _render
from ._drawing import draw

PALETTE = ("#3b6fd4", "#d4713b", "#2f9e72", "#a04fc4", "#c43d5c", "#7a8a1f", "#1f8a9c", "#8a5a3c")


@dataclass(frozen=True)
class Measured:
    """What one run took: milliseconds by node, bytes and milliseconds by transferred value."""

    nodes: Mapping[str, float]
    partitions: Mapping[str, float]
    transfers: Mapping[str, tuple[int, float]]


def measured(profile: Profile) -> Measured:
    """The times of one run's profile."""
    nodes: dict[str, float] = {}
    partitions: dict[str, float] = {}
    transfers: dict[str, tuple[int, float]] = {}
    for event in profile.recorder.events:
        spent = event.duration / 1e6
        if event.category in ("node", "control"):
            nodes[event.name] = nodes.get(event.name, 0.0) + spent
        elif event.category == "partition":
            partitions[event.name] = partitions.get(event.name, 0.0) + spent
        elif event.category == "transfer":
            name, size = str(event.details["value"]), int(str(event.details["nbytes"]))
            old = transfers.get(name, (0, 0.0))
            transfers[name] = (old[0] + size, old[1] + spent)
    return Measured(nodes, partitions, transfers)


def page(name: str, plan: Plan, run: Measured | None = None) -> str:
    """The whole page."""
    placement = plan.placement
    colours = dict(zip(placement.counts(), PALETTE * 4, strict=False))
    rows = {(row.graph, row.node): row for row in placement.nodes}
    graphs = "\n".join(
        draw(graph, rows, colours, run.nodes if run else {})
        for graph in all_graphs(plan.partitioned.model.graph)
    )
    template = Template(resources.files(__package__).joinpath("page.html").read_text(encoding="utf-8"))
    return template.substitute(
        title=html.escape(name),
        summary=_summary(name, plan, run),
        legend=_legend(plan, colours),
        advice=_advice(plan),
        refusals=_refusals(plan),
        transfers=_transfers(plan, run),
        graphs=graphs,
    )


# ---- the panel ----


def _summary(name: str, plan: Plan, run: Measured | None) -> str:
    placement = plan.placement
    parts = [
        f"{len(placement.nodes)} nodes in {sum(placement.partitions().values())} partitions",
        f"{placement.transfers} transfers between memories",
    ]
    if run is not None:
        parts.append(f"one run: {sum(run.partitions.values()):.3g} ms in partitions")
        parts.append(f"{sum(t for _, t in run.transfers.values()):.3g} ms in copies")
    return "".join(f"<li>{html.escape(part)}</li>" for part in parts)


def _legend(plan: Plan, colours: Mapping[str, str]) -> str:
    placement = plan.placement
    counts, total = placement.counts(), max(1, len(placement.nodes))
    fallback = {node.provider for node in placement.nodes if node.fallback}
    items = []
    for provider, count in counts.items():
        note = " (fallback)" if provider in fallback else ""
        items.append(
            f'<li><i style="background:{colours[provider]}"></i><b>{html.escape(provider)}</b>{note}'
            f"<span>{count} nodes, {count / total:.0%}</span></li>"
        )
    bar = "".join(
        f'<i style="width:{100 * count / total:.2f}%;background:{colours[provider]}"></i>'
        for provider, count in counts.items()
    )
    return f'<div class="bar">{bar}</div><ul class="legend">{"".join(items)}</ul>'


def _advice(plan: Plan) -> str:
    found = advise(plan.partitioned)
    if not found:
        return "<p>Nothing to advise: no named provider refused a node that it could be made to take.</p>"
    rows = [
        f"<li><b>{item.nodes}</b> nodes, {html.escape(item.provider)}: {html.escape(item.text)}</li>"
        for item in found[:12]
    ]
    more = f"<li>and {len(found) - 12} more</li>" if len(found) > 12 else ""
    return f"<ul>{''.join(rows)}{more}</ul>"


def _refusals(plan: Plan) -> str:
    rows = plan.placement.reasons()
    if not rows:
        return "<p>No provider refused anything.</p>"
    lines = [(str(count), provider, operator, reason) for count, provider, operator, reason in rows[:60]]
    return _table(("nodes", "by", "operator", "reason"), lines)


def _transfers(plan: Plan, run: Measured | None) -> str:
    names = {-1: "host"} | {i: bound.device.name for i, bound in enumerate(plan.partitioned.bounds)}
    rows = []
    for item in _all_transfers(plan.schedule):
        size, spent = (run.transfers if run else {}).get(str(item.value.name), (nbytes_of(item.value), None))
        told = "" if spent is None else f"{spent:.3g} ms"
        route = f"{names[item.from_place]} → {names[item.to_place]}"
        rows.append((str(item.value.name), route, _render.memory(size), told))
    return (
        _table(("value", "way", "bytes", "time"), rows) if rows else "<p>Nothing moves between memories.</p>"
    )


def _all_transfers(schedule: Schedule) -> Iterable[Transfer]:
    for action in schedule.actions:
        if isinstance(action, Transfer):
            yield action
        elif isinstance(action, RunControl):
            for body in action.bodies.values():
                yield from _all_transfers(body)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    return f"<table><tr>{''.join(f'<th>{name}</th>' for name in head)}</tr>{lines}</table>"
