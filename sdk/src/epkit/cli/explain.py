"""``epkit explain``: who would run which nodes, and why not those that were asked before."""

from __future__ import annotations

import json
import os
import re
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..knobs import STOP_AFTER
from . import _render
from ._options import (
    FALLBACK,
    OPTIMISE,
    POLICY,
    Debug,
    Fallback,
    Fix,
    Json,
    Optimise,
    Pin,
    Placement,
    Policy,
    Providers,
    make_settings,
)

if TYPE_CHECKING:
    from ..partition.placement import Placement as Report
    from ..planning import Plan
    from ..settings import Settings
    from ._page import Measured


def explain(
    model: Annotated[Path | None, typer.Argument(metavar="MODEL", help="an ONNX file")] = None,
    provider: Providers = None,
    fallback: Fallback = FALLBACK,
    optimise: Optimise = OPTIMISE,
    fix: Fix = None,
    policy: Policy = POLICY,
    placement: Placement = None,
    pin: Pin = None,
    save: Annotated[
        Path | None, typer.Option(metavar="PLAN.json", help="save the placement, for run --placement")
    ] = None,
    html: Annotated[
        Path | None,
        typer.Option(metavar="PAGE.html", help="write the graph, coloured by provider, as a page"),
    ] = None,
    measure: Annotated[
        bool, typer.Option("--run", help="run once on invented inputs, and tell times in the page")
    ] = False,
    nodes: Annotated[bool, typer.Option("--nodes", help="list every node")] = False,
    rules: Annotated[
        bool,
        typer.Option(
            "--rules", help="list the optimiser's rules; with a MODEL, what they did, and nearly did"
        ),
    ] = False,
    stop_optimiser: Annotated[
        int | None,
        typer.Option("--stop-after", metavar="N", help="let the optimiser do only its first N changes"),
    ] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Show who would run what, and why not elsewhere. Nothing is compiled or run, unless --run is given."""
    from ..model.walk import all_graphs
    from ..optimize.optimise import Optimised
    from ..planning import Plan as Planned
    from ._load import stop_after
    from ._rules import show_all, show_applied

    if stop_optimiser is not None:
        os.environ[STOP_AFTER.name] = str(stop_optimiser)
    if model is None:
        if not rules:
            raise typer.BadParameter("name an ONNX file, or ask for --rules", param_hint="MODEL")
        show_all(as_json)
        return
    settings = make_settings(provider, fallback, optimise, fix, policy, placement, pin)
    if rules:
        optimised = stop_after(model, settings, "optimise")
        assert isinstance(optimised, Optimised)
        show_applied(model.name, optimised, as_json)
        return
    plan = stop_after(model, settings, "plan")
    assert isinstance(plan, Planned)
    graphs = all_graphs(plan.partitioned.model.graph)
    _render.warn(settings.pins.idle(node for graph in graphs for node in graph))
    if html is not None:
        from ._page import page

        html.write_text(page(model.name, plan, _measure(model, settings) if measure else None), "utf-8")
        _render.note(f"the graph is in {html}")
    if save is not None:
        save.write_text(json.dumps(plan.placement.to_dict(), indent=1), encoding="utf-8")
        _render.note(f"the placement is in {save}; use it: epkit run {model} --placement {save}")
    if as_json:
        _render.emit(_as_json(model.name, plan.placement))
        return
    _summary(model.name, plan.placement)
    _refusals(plan.placement)
    _advice(plan)
    if nodes:
        _nodes(plan.placement)


def _measure(model: Path, settings: Settings) -> Measured:
    from ..runtime.options import RunOptions
    from ..runtime.profile import Profile
    from ._inputs import cases
    from ._load import open_session
    from ._page import measured

    with open_session(model, settings) as session:
        feeds = cases(session)[0].feeds
        session.run(None, feeds)
        profile = Profile()
        session.run(None, feeds, RunOptions(profile=profile))
    return measured(profile)


@dataclass(frozen=True)
class Group:
    """Refusals by one provider for one reason, and the operators that they concern."""

    provider: str
    code: str
    reason: str
    operators: Mapping[str, int]

    @property
    def nodes(self) -> int:
        """How many nodes were refused."""
        return sum(self.operators.values())


def refusals(placement: Report) -> list[Group]:
    """The refusals grouped, largest first. Reasons that differ by the operator's name only are one."""
    found: dict[tuple[str, str, str], Counter[str]] = defaultdict(Counter)
    said: dict[tuple[str, str, str], str] = {}
    for node in placement.nodes:
        for refused in node.refused:
            general = re.sub(rf"\b{re.escape(node.operator)}\b", "this operator", refused.reason)
            key = (refused.provider, refused.code, general)
            found[key][node.operator] += 1
            said.setdefault(key, refused.reason)
    groups = [
        Group(
            provider,
            code,
            general if len(operators) > 1 else said[provider, code, general],
            dict(operators.most_common()),
        )
        for (provider, code, general), operators in found.items()
    ]
    return sorted(groups, key=lambda group: (-group.nodes, group.provider, group.code, group.reason))


def _summary(name: str, placement: Report) -> None:
    partitions = placement.partitions()
    _render.line(f"{name}: {len(placement.nodes)} nodes, {placement.transfers} transfers between memories")
    rows: list[list[_render.Cell]] = []
    for provider, count in placement.counts().items():
        own = [node for node in placement.nodes if node.provider == provider]
        operators = dict(Counter(node.operator for node in own).most_common())
        label = f"{provider} (fallback)" if any(node.fallback for node in own) else provider
        rows.append(
            [label, count, f"{count / len(placement.nodes):.0%}", partitions[provider], _listed(operators)]
        )
    _render.line()
    _render.table(["provider", ">nodes", ">share", ">partitions", "operators"], rows)


def _refusals(placement: Report) -> None:
    rows: list[list[_render.Cell]] = [
        [group.provider, group.nodes, group.code, group.reason, _listed(group.operators)]
        for group in refusals(placement)
    ]
    if rows:
        _render.heading("refused")
        _render.table(["by", ">nodes", "code", "reason", "operators"], rows)


def _advice(plan: Plan) -> None:
    from ..partition.advice import advise

    rows: list[list[_render.Cell]] = [
        [item.provider, item.nodes, item.text] for item in advise(plan.partitioned)[:10]
    ]
    if rows:
        _render.heading("advice")
        _render.table(["for", ">nodes", "what would let it run more"], rows)


def _listed(operators: Mapping[str, int]) -> str:
    return ", ".join(f"{operator}×{count}" for operator, count in operators.items())


def _nodes(placement: Report) -> None:
    _render.heading("nodes")
    rows = [
        [
            node.node,
            node.operator,
            node.partition,
            "; ".join(f"{r.provider}: {r.reason}" for r in node.refused),
        ]
        for node in placement.nodes
    ]
    _render.table(["node", "operator", "partition", "not elsewhere because"], rows)


def _as_json(name: str, placement: Report) -> dict[str, Any]:
    return {
        "model": name,
        "providers": placement.providers,
        **placement.to_dict(),
        "partitions": placement.partitions(),
        "refusals": [{**asdict(group), "nodes": group.nodes} for group in refusals(placement)],
    }
