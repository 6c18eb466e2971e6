"""The benchmark's models in small sizes: every node runs on the device, in every type; PyTorch computes the same."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from benchmarks import cuda, cuda_device, cuda_models, cuda_rows, cuda_watch
from benchmarks.cuda_cases import Case
from benchmarks.cuda_models import Sizes
from cuda_standin import StandIn

import epkit

SMALL = Sizes(2, 64, 4, 128, groups=2, words=96, picture=32, patch=16)
MODELS: dict[str, Callable[[Path, str], Path]] = {
    "resnet": lambda folder, kind: cuda_models.resnet(folder, kind, 2, width=4, picture=32),
    "mobilenet": lambda folder, kind: cuda_models.mobilenet(folder, kind, 1, picture=32),
    "bert": lambda folder, kind: cuda_models.bert(folder, kind, 2, sizes=SMALL, length=12),
    "vit": lambda folder, kind: cuda_models.vit(folder, kind, 2, sizes=SMALL),
    "prefill": lambda folder, kind: cuda_models.llama(folder, kind, 12, 0, sizes=SMALL),
    "decode": lambda folder, kind: cuda_models.llama(folder, kind, 1, 12, sizes=SMALL),
    "decode4": lambda folder, kind: cuda_models.llama(folder, kind, 1, 12, bits=4, sizes=SMALL),
}


NEAR = {"fp32": 1e-5, "fp16": 1e-2, "bf16": 8e-2}
"""Distance from float32, relative: some ten roundings' worth, as the deepest has 53 layers with random weights."""


def wide(value: Any) -> Any:
    return np.asarray(value).astype(np.float64)


KINDS = [("decode4", "bf16")]
"""What is fast; every model in every type is marked slow."""


def test_what_is_timed_is_the_captured_graph(
    gpu: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cuda_device, "memory_held", lambda: 0)
    monkeypatch.setattr(cuda_device, "release", lambda: None)
    path = MODELS["bert"](tmp_path, "fp32")
    feeds = cuda_models.feeds_of(onnx.load(path, load_external_data=False))
    want = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, feeds)[0]
    timed = cuda_device.OnDevice(path, "fp32", "extended", feeds)
    copies = gpu.copies_in
    for _ in range(3):
        (found,) = timed.run()
    np.testing.assert_allclose(found.array._data, want, rtol=1e-3, atol=1e-4)
    assert gpu.graph_launches == 3 and gpu.copies_in == copies and gpu.copies_out == 0
    assert timed.host_seconds(1) > 0
    timed.close()


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        pytest.param(name, kind, marks=[] if (name, kind) in KINDS else [pytest.mark.slow])
        for name in MODELS
        for kind in ("fp32", "fp16", "bf16")
    ],
)
def test_a_model_runs_on_the_device_alone(gpu: StandIn, tmp_path: Path, name: str, kind: str) -> None:
    path, single = MODELS[name](tmp_path, kind), MODELS[name](tmp_path, "fp32")
    model = onnx.load(path, load_external_data=False)
    feeds = cuda_models.feeds_of(model)
    plain = {n: x.astype(np.float32) if x.dtype.kind in "fV" else x for n, x in feeds.items()}
    want = onnxruntime.InferenceSession(single, providers=["CPUExecutionProvider"]).run(["y"], plain)[0]
    level = "extended" if kind == "fp32" else "all"
    with epkit.load(path, ["cuda"], fallback="error", optimise=level, capture=True) as session:
        for _ in range(4):
            found = session.run(None, feeds)["y"]
    away = np.linalg.norm(wide(found) - wide(want)) / np.linalg.norm(wide(want))
    assert away < NEAR[kind]
    assert gpu.implicit_reads == 0 and gpu.graph_launches == 2


def test_work_is_counted(tmp_path: Path) -> None:
    path = cuda_models.bert(tmp_path, "fp16", 2, sizes=SMALL, length=12)
    work = cuda_models.work_of(onnx.load(path, load_external_data=False))
    tokens, each = 2 * 12, 4 * 64 * 64 + 2 * 64 * 128
    assert work.flop == 2 * (2 * tokens * each + 4 * tokens * 64 * 12)
    vectors = 4 * 64 + 128 + 64 + 4 * 64
    assert work.weights == 2 * 2 * (each + vectors)
    assert work.moved == work.weights + 2 * 2 * tokens * 64


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in MODELS if name != "decode4"])
def test_torch_computes_the_same(tmp_path: Path, name: str) -> None:
    import torch
    from benchmarks.cuda_torch import Graph, as_torch

    path = MODELS[name](tmp_path, "fp32")
    feeds = cuda_models.feeds_of(onnx.load(path, load_external_data=False))
    want = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, feeds)
    graph = Graph(path, "cpu")
    with torch.inference_mode():
        found = graph(*(as_torch(feeds[name]) for name in graph.inputs))
    for have, value in zip(found, want, strict=True):
        np.testing.assert_allclose(have.numpy(), value, rtol=1e-3, atol=1e-3 * float(np.abs(value).max()))


WORKER = """
import json, sys, time
print("a library says something")
for job in range(int(sys.argv[1]), 10):
    if job == 1: sys.exit("the device is lost")
    if job == 7: time.sleep(60)
    cells = [f"m{job % 5}", "fp16", "partly" if job < 5 else "whole", "", "", "", "peers", ""]
    print(json.dumps({"job": job, "cells": [] if job == 8 else cells}), flush=True)
"""


def test_rows_come_as_they_are_measured_whatever_happens_to_their_process() -> None:
    told: list[list[str]] = []
    names = [(f"m{row}", "fp16") for row in range(5)]
    worker = (sys.executable, "-c", WORKER)
    rows = cuda_watch.Watch(names, time.monotonic() + 60, 4.0, told.append, worker).run()
    assert [cells[2] for cells in rows] == ["whole", "whole", "partly", "partly", "whole"]
    assert rows[2][6] == "peers, with torch.compile: ended after 4 s without a word"
    assert [cells[2] for cells in told][:2] == ["partly", "the process ended: the device is lost"]
    late = cuda_watch.Watch(names, time.monotonic(), 4.0, told.append, worker).run()
    assert [cells[2] for cells in late] == ["not reached"] * 5


def test_a_test_run_that_hangs_is_ended_with_all_that_it_started(tmp_path: Path) -> None:
    told = tmp_path / "child"
    sleep = f"import os, time; open({str(told)!r}, 'w').write(str(os.getpid())); time.sleep(600)"
    child = f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {sleep!r}])"
    wait = f"while not __import__('os').path.exists({str(told)!r}): time.sleep(0.01)"
    text, _ = cuda.tested([sys.executable, "-uc", f"{child}\n{wait}\nprint('2 passed'); time.sleep(600)"], 5)
    assert text == "stopped after 5 s; before: 2 passed"
    status = Path("/proc") / told.read_text() / "stat"
    while status.exists() and status.read_text().rsplit(")", 1)[1].split()[0] != "Z":
        time.sleep(0.01)  # it is on its way out, or this never ends
    assert cuda.tested([sys.executable, "-c", "raise SystemExit('no | module')"], 30)[0] == "no / module"


def small(folder: Path, kind: str) -> Path:
    """Two linear layers."""
    builder = cuda_models.Builder(folder, kind, 64)
    x = builder.node("Relu", builder.linear(builder.input("x", (2, 8)), 8, 8))
    builder.output(builder.linear(x, 8, 8), "y", (2, 8))
    return builder.save("small")


def test_a_row_without_and_with_the_peer_that_compiles(
    gpu: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cuda_device, "memory_held", lambda: 0)
    monkeypatch.setattr(cuda_device, "release", lambda: None)
    monkeypatch.setattr(
        gpu, "private_memory", lambda pool=None: nullcontext(SimpleNamespace(total_bytes=lambda: 1000))
    )
    monkeypatch.setattr(cuda_rows, "ROUNDS", 1)
    told: list[list[str]] = []

    class Peer:
        def __init__(self, *given: Any) -> None:
            self.run = lambda: None

        def eager(self) -> Any:
            return self.run, 500

        def compiled(self) -> Any:
            raise ValueError("no compiler")

    monkeypatch.setattr(cuda_rows, "find_spec", lambda name: name)  # also where there is no torch
    monkeypatch.setattr(cuda_rows, "Torch", Peer)
    case = Case("small", "fp32", small)
    limits = cuda_rows.Limits({"fp32": 1e12}, 1e11)
    for compiled in (False, True):
        cuda_rows.measure(case, tmp_path, limits, told.append, compiled=compiled)
    assert all(cells[0] == "small" and float(cells[2]) > 0 and float(cells[3]) > 0 for cells in told)
    assert "torch eager" in told[0][6] and "torch.compile" not in told[0][6]
    assert "torch.compile: ValueError" in told[1][6]
    assert told[1][7] == "2.00" and gpu.implicit_reads == 0
