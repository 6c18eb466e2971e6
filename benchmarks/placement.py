"""Priority against cost: models on OpenCL and the CPU, by the times that ``epkit tune`` measures."""

from __future__ import annotations

import os
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from tests.models.catalogue import CATALOGUE
from tests.models.fetch import model_path

import epkit
from epkit.api import make_settings
from epkit.diagnose.tune import tune

from .measure import alternate, machine

RESULTS = Path(__file__).parent / "results" / "placement.md"
WANTED = ("silero_vad_16k_op15", "paraphrase-MiniLM-L3-v2", "yolov8n")
DEVICE = "opencl"


def main() -> None:
    """Measure, print and write the table."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        os.environ["EPKIT_CACHE_DIR"] = folder
        for package in CATALOGUE:
            for model in package.models:
                if model.stem in WANTED:
                    rows.append(row(model.stem, model_path(package, model), next(iter(model.inputs()))))
                    print(rows[-1], flush=True)
    RESULTS.write_text(table(rows), encoding="utf-8")


def row(name: str, path: Path, feeds: Any) -> str:
    """One line of the table."""
    tune(path, make_settings([DEVICE, "cpu"], "cpu", "basic", None, (), None, None), feeds)
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
    ratios = [f"{seconds[key] / seconds['cpu']:.2f}" for key in ("priority", "cost")]
    return f"| {name} | " + " | ".join([*cells, *ratios]) + " |"


def table(rows: list[str]) -> str:
    """Everything as Markdown."""
    return "\n".join(
        [
            "# Priority and cost",
            "",
            f"`python -m benchmarks placement`: {DEVICE} before the CPU, after `epkit tune`; medians of 9 alternating",
            f"rounds, ms (nodes on {DEVICE}, copies between devices). {machine()}.",
            "",
            "| model | CPU alone | priority | cost | priority / CPU | cost / CPU |",
            "|" + "---|" * 6,
            *rows,
            "",
        ]
    )
