"""The benchmark's command from end to end, with a stand-in for the GPU and a clock of its own."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from benchmarks import cuda, cuda_rows, cuda_watch
from benchmarks.cuda_cases import Case, cases
from cuda_standin import StandIn
from test_cuda_benchmark import small

import epkit_cuda.device
from epkit.backend import Devices


class Event:
    """Of a device on which everything takes a millisecond."""

    def record(self) -> None:
        return None

    def synchronize(self) -> None:
        return None


@pytest.fixture
def pretended(gpu: StandIn, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    """What the benchmark asks CuPy itself for."""
    fake = ModuleType("cupy")
    pool = SimpleNamespace(total_bytes=lambda: 1000, free_all_blocks=lambda: None)
    more: dict[str, Any] = {name: getattr(gpu.xp, name) for name in ("zeros", "empty", "copyto")}
    more |= {"get_default_memory_pool": lambda: pool}
    more |= {"cuda": SimpleNamespace(Event=Event, get_elapsed_time=lambda start, end: 1.0)}
    for name, value in more.items():
        setattr(fake, name, value)
    monkeypatch.setitem(sys.modules, "cupy", fake)
    monkeypatch.setattr(epkit_cuda.device, "open_machine", lambda index: gpu)
    memory = SimpleNamespace(total_bytes=lambda: 1000)
    monkeypatch.setattr(gpu, "private_memory", lambda pool=None: nullcontext(memory))
    for name, value in (("PEAK_SIZE", 16), ("COPIED", 64), ("ROUNDS", 1)):
        monkeypatch.setattr(cuda_rows, name, value)
    return gpu


def fails(folder: Path, kind: str) -> Path:
    raise ValueError("no such model | today")


def test_the_whole_command(
    pretended: StandIn,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    rows = [
        Case("small", "fp32", small),
        Case("fails", "fp16", fails, peers=False),
        Case("again", "fp16", small, peers=False),
    ]
    monkeypatch.setattr(cuda_rows, "cases", lambda: iter(rows))
    monkeypatch.setattr(cuda_rows, "find_spec", lambda name: None)  # no peers
    monkeypatch.setattr(sys, "argv", ["cuda_rows", "0", "600"])
    cuda_rows.main()
    told = capsys.readouterr()
    assert not told.err
    found = [json.loads(line) for line in told.out.splitlines()]
    assert [item["job"] for item in found] == list(range(6)) and all(not item["cells"] for item in found[3:])
    assert found[0]["cells"][6] == "no peer" and "%" in found[0]["cells"][4]
    assert found[1]["cells"][2] == "ValueError: no such model | today"

    kept = tmp_path / "cuda.md"
    seen: list[int] = []
    keep = cuda.keep

    def kept_so_far(head: str, tests: Any, rows: Any) -> str:
        seen.append(len(rows))
        return keep(head, tests, rows)

    monkeypatch.setattr(cuda, "keep", kept_so_far)
    (tmp_path / "rows.py").write_text(f"print({told.out!r}, flush=True)")
    monkeypatch.setattr(cuda, "RESULTS", kept)
    monkeypatch.setattr(cuda, "cases", lambda: iter(rows))
    monkeypatch.setattr(cuda, "TESTS", (("own tests", [sys.executable, "-c", "print('7 passed')"], 60),))
    monkeypatch.setattr(cuda, "devices", lambda: Devices((epkit_cuda.device.describe(pretended),), "", ""))
    made: list[Any] = []

    def watch(names: Any, end: float, patience: float, tell: Callable[[list[str]], None]) -> Any:
        made.append((end - time.monotonic(), patience))
        worker = (sys.executable, str(tmp_path / "rows.py"))
        return cuda_watch.Watch(names, end, patience, tell, worker)

    monkeypatch.setattr(cuda, "Watch", watch)
    monkeypatch.setattr(sys, "argv", ["benchmarks", "cuda", "--minutes", "10"])
    cuda.main()
    out, text = capsys.readouterr().out, kept.read_text()
    assert seen == [1, 2, 3, 3] and 0 < made[0][0] <= 600 - cuda.SPARE and made[0][1] == 150
    assert "own tests: 7 passed" in out and out.rstrip().endswith(text.rstrip()) and "a stand-in" in text
    table = [line for line in text.splitlines() if line.startswith(("| small", "| fails", "| again"))]
    assert len(table) == 3 and "no such model / today" in table[1] and "not reached" not in text


def test_nothing_is_begun_that_would_not_be_done_in_time(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now, begun = [0.0], []

    def measure(case: Case, folder: Path, limits: Any, tell: Any, *, compiled: bool) -> None:
        begun.append((now[0], compiled))
        now[0] += 40 if compiled else 4
        tell([case.name, case.precision, "1", "", "", "", "", ""])

    monkeypatch.setattr(cuda_rows, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(cuda_rows, "measured_limits", lambda: None)
    monkeypatch.setattr(cuda_rows, "find_spec", lambda name: name)
    monkeypatch.setattr(cuda_rows, "measure", measure)
    count = len(list(cases()))
    for seconds, plain, compiling in ((100, 23, 0), (600, count, 9)):
        now[0] = 0.0
        begun.clear()
        monkeypatch.setattr(sys, "argv", ["cuda_rows", "0", str(seconds)])
        cuda_rows.main()
        assert [sum(kind is way for _, kind in begun) for way in (False, True)] == [plain, compiling]
        assert now[0] <= seconds
        assert all(start <= seconds - (45 if kind else 10) for start, kind in begun)
    assert all(json.loads(line) for line in capsys.readouterr().out.splitlines())
