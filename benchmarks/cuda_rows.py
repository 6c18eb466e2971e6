"""Measures rows of the CUDA benchmark, one after the other, and prints each as a line of JSON.

    python -m benchmarks.cuda_rows FIRST SECONDS

A process of its own: what an error, a hang or a lost device does in one row, it does not do to the others. First come
all rows without the peer that compiles for minutes, then all with it; FIRST counts these jobs.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from .cuda_cases import PRECISIONS, Case, cases
from .cuda_models import Work, feeds_of, work_of
from .cuda_peers import Run, Torch, onnxruntime_peer
from .cuda_watch import DEVICE_LOST
from .measure import alternate

ROUNDS = 20
COMPILING = 45
"""Seconds: no compilation by a peer is begun later than that before the end."""

PEAK_SIZE, COPIED = 8192, 1 << 30
"""Rows of the matrices, and bytes, that say what the device can do."""

ROW = 10
"""Seconds: nor is a row."""


@dataclass(frozen=True)
class Limits:
    """What the device can do, measured in this run.

    Attributes:
        flops: FLOP/s of a large product, by precision.
        bandwidth: bytes/s of a large copy, read and written.
    """

    flops: dict[str, float]
    bandwidth: float

    def seconds(self, work: Work, precision: str) -> float:
        """The least time for some work. Williams et al., "Roofline" (2009)."""
        return max(work.flop / self.flops[precision], work.moved / self.bandwidth)


def measured_bandwidth() -> float:
    """Bytes/s of a copy on the device, those read and those written."""
    import cupy

    source, target = cupy.zeros(COPIED, np.uint8), cupy.empty(COPIED, np.uint8)
    return 2.0 * COPIED / best_seconds(lambda: cupy.copyto(target, source))


def measured_peak(precision: str) -> float:
    """FLOP/s of the library's product of two large matrices, in this run, on this GPU."""
    from epkit_cuda.device import open_machine
    from epkit_cuda.kernels.products import ROUNDED

    gpu, dtype = open_machine(0), ROUNDED.get(precision, np.dtype(np.float32))
    values = np.random.default_rng(0).standard_normal((PEAK_SIZE, PEAK_SIZE), np.float32).astype(dtype)
    with gpu.using(gpu.stream()):
        a, b = (gpu.xp.asarray(values) for _ in range(2))
        out = gpu.xp.empty(values.shape, dtype)
        return 2.0 * PEAK_SIZE**3 / best_seconds(lambda: gpu.multiply(a, b, out, precision))


def best_seconds(run: Callable[[], object]) -> float:
    """The least of ten, by events of the device, after two that do not count."""
    import cupy

    found = []
    for _ in range(12):
        start, end = cupy.cuda.Event(), cupy.cuda.Event()
        start.record()
        run()
        end.record()
        end.synchronize()
        found.append(cupy.cuda.get_elapsed_time(start, end) / 1e3)
    return float(min(found[2:]))


@dataclass
class Row:
    """What is known of a row so far.

    Attributes:
        run: ours.
        subjects: the peers by name.
        fixed: the cells that no peer changes: host time, session time, memory.
        notes: what there is to say beside the ratios.
    """

    case: Case
    work: Work
    run: Run
    subjects: dict[str, Run]
    fixed: tuple[str, str, str]
    notes: list[str]

    def cells(self, limits: Limits | None) -> list[str]:
        """Measure everything in turn: the cells of the table."""
        for run in (self.run, *self.subjects.values()):
            for _ in range(3):
                run()
        seconds = alternate({"epkit": self.run, **self.subjects}, ROUNDS)
        mine = seconds.pop("epkit")
        ratios = [f"{name} {found / mine:.2f}" for name, found in seconds.items()] + self.notes
        share = "" if limits is None else f"{limits.seconds(self.work, self.case.precision) / mine:.0%}"
        host, session, memory = self.fixed
        name = (self.case.name, self.case.precision)
        return [
            *name,
            f"{1e3 * mine:.3f}",
            session,
            share,
            host,
            ", ".join(ratios) or "no peer",
            memory,
        ]


def measure(
    case: Case, folder: Path, limits: Limits | None, tell: Callable[[list[str]], None], *, compiled: bool
) -> None:
    """One row: every subject in turn, inputs and results on the device; ``compiled``: with the peer that compiles."""
    from .cuda_device import OnDevice, release

    release()
    path = case.make(folder, case.kind)
    model = onnx.load(path, load_external_data=False)
    feeds = feeds_of(model)
    ours = OnDevice(path, case.precision, case.level, feeds)
    held, host = ours.memory(), f"{1e6 * ours.host_seconds(ROUNDS):.0f}"
    row = Row(case, work_of(model), ours.run, {}, (host, session_milliseconds(ours), ""), [])
    if case.peers:
        row.subjects |= (
            attempt(row.notes, "onnxruntime", lambda: onnxruntime_peer(path, feeds, case.precision)) or {}
        )
    if case.peers and find_spec("torch"):
        torch = attempt(row.notes, "torch", lambda: Torch(path, feeds, case.precision))
        eager = None if torch is None else attempt(row.notes, "torch eager", torch.eager)
        if eager is not None:
            row.subjects["torch eager"] = eager[0]
            row.fixed = (*row.fixed[:2], f"{held / max(1, eager[1]):.2f}")
        found = (
            attempt(row.notes, "torch.compile", torch.compiled) if torch is not None and compiled else None
        )
        if found is not None:
            row.subjects["torch.compile"] = found
    tell(row.cells(limits))
    ours.close()


def attempt(notes: list[str], name: str, make: Callable[[], Any]) -> Any:
    """What is made; None, and a note, if a peer fails."""
    try:
        return make()
    except Exception as error:
        notes.append(f"{name}: {type(error).__name__}: {str(error).splitlines()[:1]}"[:120])
        return None


def session_milliseconds(ours: Any) -> str:
    """Of a run through the session, inputs and results on the device; what went wrong otherwise."""
    try:
        for _ in range(4):
            ours.through_session()
        return f"{1e3 * alternate({'session': ours.through_session}, ROUNDS)['session']:.3f}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"[:80]


def measured_limits() -> Limits | None:
    """What the device can do; None if that could not be measured."""
    try:
        return Limits({name: measured_peak(name) for name in PRECISIONS}, measured_bandwidth())
    except Exception as error:
        print(f"the limits were not measured: {type(error).__name__}: {error}", file=sys.stderr)
        return None


def main() -> None:
    """Rows from the one given on, until the time is over."""
    first, end = int(sys.argv[1]), time.monotonic() + float(sys.argv[2])

    def tell(job: int, cells: list[str]) -> None:
        print(json.dumps({"job": job, "cells": cells}), flush=True)

    limits, rows = measured_limits(), list(cases())
    jobs = [(case, compiled) for compiled in (False, True) for case in rows]
    for job, (case, compiled) in list(enumerate(jobs))[first:]:
        if time.monotonic() > end - (COMPILING if compiled else ROW):
            return
        if compiled and not (case.peers and find_spec("torch")):
            tell(job, [])
            continue
        try:
            with tempfile.TemporaryDirectory() as folder:
                measure(case, Path(folder), limits, lambda cells, n=job: tell(n, cells), compiled=compiled)  # type: ignore[misc]
        except Exception as error:
            text = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            tell(job, [] if compiled else [case.name, case.precision, text, "", "", "", "", ""])
            if "cud" in type(error).__module__.lower():  # the device may be lost to this process
                sys.exit(DEVICE_LOST)


if __name__ == "__main__":
    main()
