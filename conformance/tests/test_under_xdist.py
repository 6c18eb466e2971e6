"""The suite under pytest-xdist: a hang and a crash cost one case each, and the report has all results."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PLUGIN = """
import os, time
import numpy as np
from epkit.backend import Device, Devices, KernelProvider, hookimpl, kernel

@kernel("Relu", since=6, types={"T": {"float32"}})
def relu(x):
    time.sleep(3600)

@kernel("Neg", since=6, types={"T": {"float32"}})
def neg(x):
    os.abort()

@kernel("Abs", since=6, types={"T": {"float32"}})
def absolute(x):
    return np.abs(x)

class Stuck(KernelProvider):
    name = "stuck"
    version = "1.0"
    kernels = (relu, neg, absolute)

    def devices(self):
        return Devices((Device("stuck:0", "toy"),))

@hookimpl
def epkit_providers():
    return [Stuck]
"""


def install(site: Path) -> None:
    """A plugin where Python finds it, as pip would leave it."""
    (site / "epkit_stuck.py").write_text(PLUGIN)
    metadata = site / "epkit_stuck-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: epkit-stuck\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[epkit.providers]\nstuck = epkit_stuck\n")


@pytest.mark.slow  # each process builds the whole catalogue
def test_a_hang_and_a_crash_cost_one_case_each(tmp_path: Path) -> None:
    install(tmp_path)
    wanted = "test_case[level2/published/"
    cases = [f"{wanted}{name}]" for name in ("relu", "neg", "abs", "add")]
    paths = f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-n",
        "1",
        "-p",
        "no:cacheprovider",
        "--provider",
        "stuck",
    ]
    command += ["--conformance-timeout", "3", "--conformance-report", "made", "--pyargs"]
    command += [f"epkit_conformance.suite.test_provider::{case}" for case in cases]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "1 passed, 1 refused, 1 crashed, 1 hung" in done.stdout, done.stdout + done.stderr
    report = json.loads((tmp_path / "made" / "report.json").read_text())
    states = {entry["name"]: entry["result"]["state"] for entry in report["entries"]}
    assert states == {
        "published/relu": "hung",
        "published/neg": "crashed",
        "published/abs": "passed",
        "published/add": "refused",
    }
    assert report["only"] and not (tmp_path / "made" / "certificate.json").exists()
