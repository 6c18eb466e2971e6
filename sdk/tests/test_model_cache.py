"""The cache of optimised models: used when nothing has changed, made anew when anything has."""

from __future__ import annotations

import multiprocessing
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import epkit
from epkit.testing.models import random_feeds, random_model


def model(weight: float = 2.0) -> onnx.ModelProto:
    """y = relu(x * w + 0) with a large weight, and something to clean up."""
    w = numpy_helper.from_array(np.full((64, 64), weight, np.float32), "w")
    nodes = [
        helper.make_node("Identity", ["x"], ["i"]),
        helper.make_node("Mul", ["i", "w"], ["m"]),
        helper.make_node("Relu", ["m"], ["y"]),
    ]
    x, y = (helper.make_tensor_value_info(name, 1, ["n", 64]) for name in "xy")
    graph = helper.make_graph(nodes, "g", [x], [y], [w])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


X = np.linspace(-1, 1, 64 * 64, dtype=np.float32).reshape(64, 64)


def load(source: Any, folder: Path, **options: Any) -> tuple[list[str], Any]:
    """The stages that a load ran, and the result of a run."""
    with epkit.load(source, ["cpu"], cache=folder, **options) as session:
        ran = [event.name for event in session.load_trace.events if event.category == "load"]
        return ran, session(x=X)["y"]


def from_cache(stages: list[str]) -> bool:
    return "optimise" not in stages and "check" not in stages


def test_the_second_load_neither_checks_nor_optimises(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(model(), path)
    for source in (path, path.read_bytes(), model()):
        stages, result = load(source, tmp_path / "cache")
        assert from_cache(stages) == (source is not path)
        np.testing.assert_array_equal(result, np.maximum(2 * X, 0))


@pytest.mark.parametrize(
    "change", [{"optimise": "none"}, {"optimise": "extended"}, {"fix": {"n": 64}}, {"providers": ["null"]}]
)
def test_other_settings_are_other_entries(tmp_path: Path, change: dict[str, Any]) -> None:
    assert not from_cache(load(model(), tmp_path)[0])
    options = {"providers": ["cpu"], **change}
    with epkit.load(model(), cache=tmp_path, **options) as session:
        assert "check" in [event.name for event in session.load_trace.events]
    assert from_cache(load(model(), tmp_path)[0])


def test_one_weight_changed_is_another_model(tmp_path: Path) -> None:
    load(model(), tmp_path)
    stages, result = load(model(3.0), tmp_path)
    assert not from_cache(stages)
    np.testing.assert_array_equal(result, np.maximum(3 * X, 0))


def test_a_file_that_nobody_wrote_to_is_not_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("epkit.model.seal.SETTLED_NS", -1)
    path, cache = tmp_path / "model.onnx", tmp_path / "cache"
    onnx.save(model(), path)
    first, second, third = (load(path, cache, policy=how)[0] for how in ("cost", "cost", "priority"))
    assert first.count("read") == 2  # the model, and the look into the cache
    assert second.count("read") == third.count("read") == 1
    assert load(path, cache)[0] == ["snapshot"]
    times = path.stat().st_mtime_ns
    onnx.save(model(3.0), path)
    os.utime(path, ns=(times, times))  # the same size and the same time of writing: the time of change tells
    stages, result = load(path, cache)
    assert not from_cache(stages)
    np.testing.assert_array_equal(result, np.maximum(3 * X, 0))


def test_a_file_written_just_now_is_read_again(tmp_path: Path) -> None:
    path, cache = tmp_path / "model.onnx", tmp_path / "cache"
    onnx.save(model(), path)
    load(path, cache)
    assert not list(cache.glob("*.known"))
    assert load(path, cache)[0].count("read") == 2


@pytest.mark.parametrize("anew", [True, False])
def test_external_data_are_read_again_if_somebody_wrote_to_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, anew: bool
) -> None:
    """The model file says nothing of its weights' file."""
    monkeypatch.setattr("epkit.model.seal.SETTLED_NS", -1)
    path, cache, weights = tmp_path / "model.onnx", tmp_path / "cache", tmp_path / "weights"
    onnx.save(model(), path, save_as_external_data=True, location="weights")
    times = weights.stat().st_mtime_ns
    for weight in (2.0, 3.0):
        if weight == 3.0:
            if anew:
                weights.unlink()
            weights.write_bytes(np.full((64, 64), weight, np.float32).tobytes())
            os.utime(weights, ns=(times, times))
        stages, result = load(path, cache)
        assert not from_cache(stages)
        np.testing.assert_array_equal(result, np.maximum(weight * X, 0))
        stages, result = load(path, cache)
        assert stages == ["snapshot"]
        np.testing.assert_array_equal(result, np.maximum(weight * X, 0))


def test_external_data_of_another_folder_are_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("epkit.model.seal.SETTLED_NS", -1)
    path, cache, other = tmp_path / "model.onnx", tmp_path / "cache", tmp_path / "other"
    onnx.save(model(), path, save_as_external_data=True, location="weights")
    other.mkdir()
    (other / "weights").write_bytes(np.full((64, 64), 3.0, np.float32).tobytes())
    for _ in range(2):
        np.testing.assert_array_equal(load(path, cache)[1], np.maximum(2 * X, 0))
        np.testing.assert_array_equal(load(path, cache, base_dir=other)[1], np.maximum(3 * X, 0))
    (tmp_path / "weights").unlink()
    with pytest.raises(epkit.EpkitError, match="missing"):
        load(path, cache)


def test_fused_operators_keep_their_version(tmp_path: Path) -> None:
    """Gelu came with opset 20, the model is of opset 18."""
    nodes = [
        helper.make_node("Constant", [], ["half"], value_float=0.5),
        helper.make_node("Constant", [], ["root"], value_float=2**0.5),
        helper.make_node("Constant", [], ["one"], value_float=1.0),
        helper.make_node("Div", ["x", "root"], ["d"]),
        helper.make_node("Erf", ["d"], ["e"]),
        helper.make_node("Add", ["e", "one"], ["a"]),
        helper.make_node("Mul", ["x", "a"], ["m"]),
        helper.make_node("Mul", ["m", "half"], ["y"]),
    ]
    x, y = (helper.make_tensor_value_info(name, 1, ["n", 64]) for name in "xy")
    proto = helper.make_model(
        helper.make_graph(nodes, "g", [x], [y]), opset_imports=[helper.make_opsetid("", 18)], ir_version=10
    )
    results = []
    for again in (False, True):
        with epkit.load(proto, ["cpu"], cache=tmp_path, optimise="extended") as session:
            assert [node.operator for node in session.placement.nodes] == ["Gelu"]
            assert from_cache([event.name for event in session.load_trace.events]) == again
            results.append(session(x=X)["y"])
    np.testing.assert_array_equal(*results)


def test_packed_weights_are_found_again(tmp_path: Path) -> None:
    """The CPU provider keeps what its kernels made of weights, and refuses it when a byte is another."""
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((64, 96)).astype(np.float32)
    w = numpy_helper.from_array(weight, "w")
    x, y = (helper.make_tensor_value_info(name, 1, ["n", size]) for name, size in (("x", 64), ("y", 96)))
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "g", [x], [y], [w])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    np.testing.assert_allclose(load(proto, tmp_path)[1], X @ weight, rtol=1e-4, atol=1e-4)
    (program,) = tmp_path.glob("*.program")
    whole = program.read_bytes()
    assert len(whole) > weight.nbytes
    flip(program)
    np.testing.assert_allclose(load(proto, tmp_path)[1], X @ weight, rtol=1e-4, atol=1e-4)
    assert program.read_bytes() == whole


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize("damage", [flip, cut, Path.unlink, lambda path: path.write_bytes(b"")])
@pytest.mark.parametrize("suffix", [".onnx", ".onnx.data", ".json"])
def test_a_damaged_entry_is_made_again(tmp_path: Path, suffix: str, damage: Callable[[Path], Any]) -> None:
    load(model(), tmp_path)
    (file,) = (p for p in tmp_path.iterdir() if "".join(p.suffixes) == suffix)
    damage(file)
    stages, result = load(model(), tmp_path)
    assert not from_cache(stages)
    np.testing.assert_array_equal(result, np.maximum(2 * X, 0))
    assert from_cache(load(model(), tmp_path)[0])


def _load_often(folder: str) -> None:
    for _ in range(4):
        _, result = load(model(), Path(folder))
        np.testing.assert_array_equal(result, np.maximum(2 * X, 0))


def test_writers_at_the_same_time(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_load_often, args=(str(tmp_path),)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert from_cache(load(model(), tmp_path)[0])
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("seed", range(6))
def test_any_model_computes_the_same_from_the_cache(tmp_path: Path, seed: int) -> None:
    proto, feeds = random_model(random.Random(seed), 14), random_feeds(seed)
    results = []
    for _ in range(2):
        with epkit.load(proto, ["cpu"], cache=tmp_path) as session:
            results.append(session.run(None, feeds))
    for name, value in results[0].items():
        np.testing.assert_array_equal(value, results[1][name])


def test_the_commands(tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from epkit.cli.app import app

    path, folder = tmp_path / "m.onnx", tmp_path / "cache"
    onnx.save(model(), path)
    told = CliRunner().invoke(app, ["compile", str(path), "-p", "cpu", "-o", str(folder)])
    assert told.exit_code == 0, told.output
    assert from_cache(load(path, folder)[0])
    told = CliRunner().invoke(app, ["run", str(path), "-p", "cpu", "--cache", str(folder)])
    assert told.exit_code == 0, told.output
