"""``epkit tune``: measures nodes and copies on every provider, for the cost policy."""

from __future__ import annotations

from typing import Annotated

import typer

from . import _render
from ._options import (
    FALLBACK,
    OPTIMISE,
    Debug,
    Dim,
    Fallback,
    Fix,
    Json,
    Model,
    Optimise,
    Providers,
    Seed,
    make_settings,
    parse_sizes,
)


def tune(
    model: Model,
    provider: Providers = None,
    fallback: Fallback = FALLBACK,
    optimise: Optimise = OPTIMISE,
    fix: Fix = None,
    given: Annotated[
        list[str] | None,
        typer.Option("--input", "-i", metavar="[NAME=]FILE", help="an input: .npy, .npz or .pb; repeat"),
    ] = None,
    dim: Dim = None,
    seed: Seed = 0,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Measure what each node costs on each provider; loads with --policy cost use it."""
    from .. import knobs
    from ..diagnose.tune import tune as measure
    from ._inputs import cases
    from ._load import open_session

    settings = make_settings(provider, fallback, optimise, fix)
    with open_session(model, settings) as session:
        feeds = cases(session, given or (), None, parse_sizes(dim, "--dim"), seed)[0].feeds
    with _render.progress() as bar:
        task = bar.add_task("running the fallback")
        found = measure(
            model,
            settings,
            feeds,
            tell=lambda done, total, what: bar.update(task, completed=done, total=total, description=what),
        )
    if as_json:
        _render.emit(
            [
                {
                    "provider": t.provider,
                    "measured": t.measured,
                    "failed": t.failed,
                    "seconds": t.table.seconds,
                }
                for t in found
            ]
        )
        return
    rows: list[list[_render.Cell]] = [
        [
            tuned.provider,
            tuned.measured,
            len(tuned.failed),
            len(tuned.table.seconds),
            _render.milliseconds(tuned.table.to_device.latency),
            _render.milliseconds(tuned.table.to_host.latency),
        ]
        for tuned in found
    ]
    columns = ["provider", ">measured", ">failed", ">known in all", ">copy in", ">copy out"]
    _render.table(columns, rows)
    for tuned in found:
        _render.warn(f"{tuned.provider} cannot run {node} alone: {why}" for node, why in tuned.failed.items())
    _render.note(f"kept in {knobs.CACHE_DIR.get()}; used by --policy cost")
