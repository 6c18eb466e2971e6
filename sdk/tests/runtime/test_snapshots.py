"""Sessions that begin from a snapshot: they run at once, and know all that others know when somebody asks."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import epkit
from epkit import RunOptions, Session
from epkit.backend import Notice, hookimpl
from epkit.backend.registry import Registry
from epkit.errors import InputError, ModelError, RunError
from epkit.model import seal
from epkit.runtime.profile import Profile

SIZE = 96
X = np.linspace(-1, 1, 5 * SIZE, dtype=np.float32).reshape(5, SIZE)
ROWS = np.array([0, 3, 3, 7, 1])


def model(scale: float = 1.0) -> onnx.ModelProto:
    """Two products with weights, and a table that is only gathered from."""
    text = f"""
        <ir_version: 10, opset_import: ["" : 18]>
        g (float[n,{SIZE}] x, int64[n] rows) => (float[n,{SIZE}] y, float[n,{SIZE}] t) {{
            a = MatMul (x, w)  b = Relu (a)  t = Gather (table, rows)  c = MatMul (b, v)  y = Add (c, t)
        }}"""
    proto: onnx.ModelProto = onnx.parser.parse_model(text)
    rng = np.random.default_rng(0)
    for name, shape in (("w", (SIZE, SIZE)), ("v", (SIZE, SIZE)), ("table", (8, SIZE))):
        weight = (scale * rng.standard_normal(shape)).astype(np.float32)
        proto.graph.initializer.append(numpy_helper.from_array(weight, name))
    return proto


def expected(scale: float = 1.0) -> dict[str, Any]:
    w, v, table = (numpy_helper.to_array(item).astype(np.float64) for item in model(scale).graph.initializer)
    rows = table[ROWS]
    return {"y": np.maximum(X @ w, 0) @ v + rows, "t": rows}


def check(session: Session, scale: float = 1.0, options: RunOptions | None = None) -> None:
    found = session.run(None, {"x": X, "rows": ROWS}, options)
    for name, value in expected(scale).items():
        np.testing.assert_allclose(found[name], value, rtol=1e-4, atol=1e-4)


def is_snapshot(session: Session) -> bool:
    return [event.name for event in session.load_trace.events] == ["snapshot"]


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """A model and a cache that has a snapshot of it."""
    monkeypatch.setattr("epkit.model.seal.SETTLED_NS", -1)
    path, cache = tmp_path / "model.onnx", tmp_path / "cache"
    onnx.save(model(), path)
    with epkit.load(path, ["cpu"], cache=cache) as session:
        assert not is_snapshot(session)
        check(session)
    return path, cache


def test_a_snapshot_runs_and_tells_what_the_model_tells(files: tuple[Path, Path]) -> None:
    path, cache = files
    with epkit.load(path, ["cpu"]) as plain, epkit.load(path, ["cpu"], cache=cache) as session:
        assert is_snapshot(session)
        assert (session.name, session.inputs, session.outputs) == (plain.name, plain.inputs, plain.outputs)
        assert (session.metadata, session.warnings, session.providers) == (
            plain.metadata,
            plain.warnings,
            plain.providers,
        )
        check(session)
        assert session.memory.arenas[0].held > 0
        (only,) = session.run(["t"], {"x": X, "rows": ROWS}).items()
        np.testing.assert_array_equal(only[1], expected()["t"].astype(np.float32))
        assert str(session.placement) == str(plain.placement)
        check(session)


QUESTIONS: dict[str, Callable[[Session], Any]] = {
    "placement": lambda session: session.placement.counts() == {"cpu": 5},
    "profile": lambda session: check(session, options=RunOptions(profile=Profile())),
    "lists": lambda session: session.run(None, {"x": X.tolist(), "rows": ROWS}),
}


@pytest.mark.parametrize("question", QUESTIONS)
def test_whatever_is_asked_wakes_the_session_once(files: tuple[Path, Path], question: str) -> None:
    path, cache = files
    with epkit.load(path, ["cpu"], cache=cache) as session:
        check(session)
        QUESTIONS[question](session)
        check(session)
        QUESTIONS[question](session)


def test_errors_are_those_of_other_sessions(files: tuple[Path, Path]) -> None:
    path, cache = files
    with epkit.load(path, ["cpu"], cache=cache) as session:
        with pytest.raises(InputError, match="no input 'z'"):
            session.run(None, {"x": X, "rows": ROWS, "z": X})
        with pytest.raises(InputError, match="no output"):
            session.run(["z"], {"x": X, "rows": ROWS})
        with pytest.raises(RunError, match="Gather") as caught:
            session.run(None, {"x": X, "rows": ROWS + 100})
        assert caught.value.where.node
        check(session)
    with pytest.raises(RunError, match="closed"):
        check(session)
    assert session.placement.counts()


def test_neither_onnx_nor_the_pipeline_is_imported(files: tuple[Path, Path]) -> None:
    path, cache = files
    np.savez(path.with_suffix(".npz"), x=X, rows=ROWS)
    code = f"""
import sys, numpy as np, epkit
with epkit.load({str(path)!r}, ["cpu"], cache={str(cache)!r}) as session:
    session.run(None, dict(np.load({str(path.with_suffix(".npz"))!r})))
print(*(name for name in ("onnx", "onnx_ir", "ml_dtypes", "epkit.pipeline", "hashlib") if name in sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_addresses_are_those_of_the_process(tmp_path: Path) -> None:
    """Steps of float16 call kernels of float32 by their addresses, which each process has at other places."""
    proto = onnx.parser.parse_model("""
        <ir_version: 10, opset_import: ["" : 18]>
        g (float16[1,3,9,9] x) => (float16[1,8,7,7] y) { c = Conv (x, w)  y = Exp (c) }
    """)
    weight = np.random.default_rng(0).standard_normal((8, 3, 3, 3)) / 8
    proto.graph.initializer.append(numpy_helper.from_array(weight.astype(np.float16), "w"))
    onnx.save(proto, tmp_path / "m.onnx")
    past = time.time() - 60
    os.utime(tmp_path / "m.onnx", (past, past))
    code = f"""
import numpy as np, epkit
x = np.linspace(-1, 1, 243, dtype=np.float16).reshape(1, 3, 9, 9)
with epkit.load({str(tmp_path / "m.onnx")!r}, ["cpu"], cache={str(tmp_path / "cache")!r}) as session:
    print(session.load_trace.events[-1].name, session.run(None, {{"x": x}})["y"].tobytes().hex())
"""
    time.sleep(2.1 - (time.time() - (tmp_path / "m.onnx").stat().st_ctime))  # only a settled file is known
    told = [
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout.split()
        for _ in range(3)
    ]
    assert [first for first, _ in told] == ["cache", "snapshot", "snapshot"]
    assert told[0][1] == told[1][1] == told[2][1]


def test_another_file_under_the_name_is_another_model(files: tuple[Path, Path]) -> None:
    path, cache = files
    times = path.stat().st_mtime_ns
    with epkit.load(path, ["cpu"], cache=cache) as old:
        onnx.save(model(2.0), path)
        os.utime(path, ns=(times, times))
        with epkit.load(path, ["cpu"], cache=cache) as new:
            assert not is_snapshot(new)
            check(new, 2.0)
        check(old)
        assert old.placement.counts() == {"cpu": 5}  # the graph comes from the cache, not from the file
        check(old)


def test_a_session_outlives_its_cache_and_says_what_it_has_lost(files: tuple[Path, Path]) -> None:
    path, cache = files
    with epkit.load(path, ["cpu"], cache=cache) as session:
        onnx.save(model(2.0), path)
        for file in cache.iterdir():
            file.unlink()
        check(session)
        with pytest.raises(ModelError, match="has changed since"):
            str(session.placement)
        check(session)


def test_a_cache_that_was_copied_is_read_in_whole_once(
    files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, cache = files
    copied = path.parent / "copied"
    shutil.copytree(cache, copied)
    read: list[str] = []

    def digest_of(file: Path) -> str:
        read.append(file.suffix)
        return original(file)

    original = seal.digest_of
    monkeypatch.setattr(seal, "digest_of", digest_of)
    for expected_reads in ([".onnx", ".data"], [], []):
        read.clear()
        with epkit.load(path, ["cpu"], cache=copied) as session:
            assert is_snapshot(session) == (expected_reads == [])
            check(session)
        assert read == expected_reads


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize("damage", [flip, cut, Path.unlink])
@pytest.mark.parametrize("suffix", [".session", ".program", ".data", ".known"])
def test_a_damaged_snapshot_is_made_again(
    files: tuple[Path, Path], suffix: str, damage: Callable[[Path], Any]
) -> None:
    path, cache = files
    (file,) = cache.glob(f"*{suffix}")
    damage(file)
    with epkit.load(path, ["cpu"], cache=cache) as session:
        assert not is_snapshot(session)
        check(session)
    with epkit.load(path, ["cpu"], cache=cache) as session:
        assert is_snapshot(session)
        check(session)


@pytest.mark.parametrize(
    "change",
    [
        {"optimise": "basic"},
        {"fix": {"n": 5}},
        {"policy": "cost"},
        {"placement": {"op:Gather": "cpu"}},
        {"memory": {"cpu": 1 << 30}},
        {"on_failure": "fallback"},
        {"providers": [("cpu", {"threads": 1})]},
        {"limits": epkit.Limits(nodes=1000)},
    ],
)
def test_other_sessions_have_other_snapshots_or_none(
    files: tuple[Path, Path], change: dict[str, Any]
) -> None:
    path, cache = files
    with epkit.load(path, **{"providers": ["cpu"], "cache": cache, **change}) as session:
        assert not is_snapshot(session)
        check(session)
    with epkit.load(path, ["cpu"], cache=cache) as session:
        assert is_snapshot(session)


def test_who_observes_is_told(files: tuple[Path, Path]) -> None:
    path, cache = files
    notices: list[str] = []

    class Observer:
        @hookimpl
        def epkit_notice(self, notice: Notice) -> None:
            notices.append(notice.kind)

    registry = Registry()
    with epkit.load(path, ["cpu"], cache=cache, registry=registry) as early:
        assert is_snapshot(early)
        registry.add_extension(Observer())
        check(early)
        with epkit.load(path, ["cpu"], cache=cache, registry=registry) as session:
            assert not is_snapshot(session)
            check(session)
    assert notices == ["run", "partition", "load", "run"]


def test_steps_that_fall_back_to_python_wake_the_session(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine's tensors have eight dimensions at most; the portable kernels take more."""
    monkeypatch.setattr("epkit.model.seal.SETTLED_NS", -1)
    proto = onnx.parser.parse_model("""
        <ir_version: 10, opset_import: ["" : 18]>
        g (float[a] x, int64[r] shape) => (y) { n = Neg (x)  s = Reshape (n, shape)  y = Expand (s, shape) }
    """)
    onnx.save(proto, tmp_path / "m.onnx")
    shape = np.array([2, *[1] * 9, 3])
    for again in (False, True):
        with epkit.load(tmp_path / "m.onnx", ["cpu"], cache=tmp_path / "cache") as session:
            assert is_snapshot(session) == again
            for _ in range(2):
                y = session.run(None, {"x": np.arange(6, dtype=np.float32), "shape": shape})["y"]
                np.testing.assert_array_equal(y, -np.arange(6, dtype=np.float32).reshape(shape))


def test_threads_run_while_one_wakes_the_session(files: tuple[Path, Path]) -> None:
    path, cache = files
    problems: list[BaseException] = []
    with epkit.load(path, ["cpu"], cache=cache) as session:
        stop = threading.Event()

        def work() -> None:
            try:
                while not stop.is_set():
                    check(session)
            except BaseException as error:
                problems.append(error)

        workers = [threading.Thread(target=work) for _ in range(3)]
        for worker in workers:
            worker.start()
        places = [session.placement.counts() for _ in range(3)]
        stop.set()
        for worker in workers:
            worker.join()
    assert not problems
    assert places == [{"cpu": 5}] * 3


def _use(path: str, cache: str) -> None:
    for _ in range(3):
        with epkit.load(path, ["cpu"], cache=cache) as session:
            check(session)


def test_several_processes_fill_one_cache(tmp_path: Path) -> None:
    path, cache = tmp_path / "model.onnx", tmp_path / "cache"
    onnx.save(model(), path)
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_use, args=(str(path), str(cache))) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0]
    assert not list(cache.glob(".*"))
