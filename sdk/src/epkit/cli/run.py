"""``epkit run``: runs a model, compares with expected outputs, shows the time and where it went."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from . import _render
from ._options import (
    FALLBACK,
    OPTIMISE,
    POLICY,
    Debug,
    Dim,
    Fallback,
    Fix,
    Json,
    Model,
    Optimise,
    Pin,
    Placement,
    Policy,
    Providers,
    Seed,
    make_settings,
    parse_sizes,
)


def run(
    model: Model,
    provider: Providers = None,
    fallback: Fallback = FALLBACK,
    optimise: Optimise = OPTIMISE,
    fix: Fix = None,
    policy: Policy = POLICY,
    placement: Placement = None,
    pin: Pin = None,
    cache: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="keep optimised models and compiled programs here")
    ] = None,
    given: Annotated[
        list[str] | None,
        typer.Option("--input", "-i", metavar="[NAME=]FILE", help="an input: .npy, .npz or .pb; repeat"),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="ONNX test data: test_data_set_0, or a folder of such"),
    ] = None,
    dim: Dim = None,
    seed: Seed = 0,
    rtol: Annotated[float, typer.Option(help="tolerated relative difference from expected outputs")] = 1e-3,
    atol: Annotated[float, typer.Option(help="tolerated absolute difference from expected outputs")] = 1e-5,
    output: Annotated[Path | None, typer.Option(metavar="FILE.npz", help="write the outputs")] = None,
    profile: Annotated[
        Path | None, typer.Option(metavar="TRACE.json", help="write a trace of one more run, for Perfetto")
    ] = None,
    repeat: Annotated[int, typer.Option(min=1, help="number of runs")] = 1,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Run a model, on inputs that are given or invented."""
    from ._files import write_npz
    from ._inputs import cases
    from ._load import open_session
    from ._outcome import run_cases, trace
    from ._report import print_json, print_text

    settings = replace(make_settings(provider, fallback, optimise, fix, policy, placement, pin), cache=cache)
    start = time.perf_counter()
    with open_session(model, settings) as session:
        load_seconds = time.perf_counter() - start
        found = cases(session, given or (), data, parse_sizes(dim, "--dim"), seed)
        if output is not None and len(found) > 1:
            raise typer.BadParameter(
                "name one test_data_set with --data to write its outputs", param_hint="--output"
            )
        outcomes = run_cases(session, found, repeat, rtol, atol)
        recorded = None if profile is None else trace(session, found[0], profile)
        if output is not None:
            write_npz(output, outcomes[0].outputs)
        (print_json if as_json else print_text)(session, load_seconds, outcomes, recorded)
    if not as_json:
        _say_written(output, profile)
    if any(outcome.passed is False for outcome in outcomes):
        raise typer.Exit(1)


def _say_written(output: Path | None, profile: Path | None) -> None:
    if output is not None:
        _render.note(f"the outputs are in {output}")
    if profile is not None:
        _render.note(f"the trace is in {profile}; open it at https://ui.perfetto.dev")
