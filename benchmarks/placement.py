"""Priority against cost: models on OpenCL and the CPU, by the times that ``epkit tune`` measures."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from tests.models.catalogue import CATALOGUE
from tests.models.fetch import model_path

import epkit
from epkit import knobs
from epkit.api import make_settings
from epkit.backend.registry import default
from epkit.diagnose.tune import tune
from epkit.partition.claims import Claims
from epkit.partition.cost_policy import divisions
from epkit.partition.costs import Costs, CostStore
from epkit.partition.edges import edges_of
from epkit.pipeline import stages
from epkit.settings import Settings

from .measure import alternate, machine

RESULTS = Path(__file__).parent / "results" / "placement.md"
WANTED = ("silero_vad_16k_op15", "paraphrase-MiniLM-L3-v2", "yolov8n")
DEVICE = "opencl"


def main(arguments: Sequence[str] = ()) -> None:
    """Measure, print and write the table. Names choose models, and nothing is written."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        os.environ["EPKIT_CACHE_DIR"] = folder
        for package in CATALOGUE:
            for model in package.models:
                if model.stem in (arguments or WANTED):
                    rows.append(row(model.stem, model_path(package, model), next(iter(model.inputs()))))
                    print(rows[-1], flush=True)
    if not arguments:
        RESULTS.write_text(table(rows), encoding="utf-8")


def row(name: str, path: Path, feeds: Any) -> str:
    """One line of the table."""
    settings = make_settings([DEVICE, "cpu"], "cpu", "all", None, (), None, None)
    tune(path, settings, feeds)
    predicted = predictions(path, settings)
    sessions = {
        "cpu": epkit.load(path, ["cpu"]),
        "priority": epkit.load(path, [DEVICE, "cpu"]),
        "cost": epkit.load(path, [DEVICE, "cpu"], policy="cost"),
    }
    seconds = alternate({key: partial(s.run, None, feeds) for key, s in sessions.items()}, rounds=9)
    shares = [session.placement.counts() for session in sessions.values()]
    transfers = [session.placement.transfers for session in sessions.values()]
    for session in sessions.values():
        session.close()
    cells = [
        f"{seconds[key] * 1e3:.1f} ({share.get(DEVICE, 0)} on {DEVICE}, {moved} copies)"
        for key, share, moved in zip(sessions, shares, transfers, strict=True)
    ]
    cells += [predicted.get(key, "-") for key in ("cpu", "priority", "cost")]
    ratios = [f"{seconds[key] / seconds['cpu']:.2f}" for key in ("priority", "cost")]
    return f"| {name} | " + " | ".join([*cells, *ratios]) + " |"


def predictions(path: Path, settings: Settings) -> dict[str, str]:
    """What the cost policy expects of the divisions that it compares, ms."""
    steps = stages(path, replace(settings, policy="cost"), default)
    try:
        claims = next(value for name, value in steps if name == "claim")
        assert isinstance(claims, Claims)
        store = CostStore(knobs.CACHE_DIR.get())
        tables = {rank: table for rank, bound in enumerate(claims.bounds) if (table := store.load(bound))}
        costs = Costs(tables, claims.model.opset_imports)
        graph = claims.model.graph
        found = divisions(edges_of(graph), claims.offers[graph], claims.bounds, costs)
    finally:
        steps.close()
    last = len(claims.bounds) - 1
    names = {"priority": found[0], "cost": min(found, key=lambda division: division.predicted)}
    names.update(("cpu", division) for division in found if set(division.labels.values()) == {last})
    return {name: f"{division.predicted * 1e3:.1f}" for name, division in names.items()}


def table(rows: list[str]) -> str:
    """Everything as Markdown."""
    return "\n".join(
        [
            "# Priority and cost",
            "",
            f"`python -m benchmarks placement`: {DEVICE} before the CPU, after `epkit tune`; medians of 9 alternating",
            f"rounds, ms (nodes on {DEVICE}, copies between devices). Predicted: by the times of nodes, scaled to what",
            "they take together, and of copies; the cheapest division so found is run by `tune`, too, and taken only",
            f"if it is faster than each provider alone. {machine()}.",
            "",
            "| model | CPU alone | priority | cost | predicted: CPU | priority | the cheapest "
            "| priority / CPU | cost / CPU |",
            "|" + "---|" * 9,
            *rows,
            "",
        ]
    )
