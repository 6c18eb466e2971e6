"""The native engine at the session's door: new shapes, what belongs to whom, errors, Python between native steps."""

from __future__ import annotations

import gc
import sys

import numpy as np
import pytest
from engine_session import Array, chain, make, normal, programs
from onnx import helper, numpy_helper

import epkit
from epkit.errors import OptionError, RunError
from epkit_cpu.compile import NativeProgram
from epkit_cpu.native import isas

pytestmark = pytest.mark.skipif(not isas(), reason="the package was built without a compiler")


def test_new_shapes_do_not_leave_the_engine(isa: str) -> None:
    model, _ = chain(isa)
    with epkit.load(model) as session:
        for rows in (1, 5, 3, 200, 7):
            x = normal(rows, 64)
            w = numpy_helper.to_array(model.graph.initializer[0])
            np.testing.assert_allclose(session(x=x)["y"], np.tanh(x @ w), rtol=1e-3, atol=1e-4)
        assert 0 < session.memory.arenas[0].peak < 10_000_000


def test_results_belong_to_the_caller() -> None:
    nodes = [
        helper.make_node("Reshape", ["x", "shape"], ["same"]),
        helper.make_node("Reshape", ["w", "shape"], ["weight"]),
        helper.make_node("Relu", ["x"], ["y"]),
        helper.make_node("Reshape", ["y", "shape"], ["z"]),
    ]
    x = normal(40, 40)
    model = make(nodes, {"x": x}, ["same", "weight", "y", "z"], {"shape": np.array([-1]), "w": normal(3, 2)})
    with epkit.load(model, optimise="none") as session:
        first = session(x=x)
        arrays = [x, *first.values()]
        for i, a in enumerate(arrays):
            assert not any(np.shares_memory(a, b) for b in arrays[:i])
        for a in first.values():
            a[...] = -1
        assert (session(x=x)["weight"] != -1).any()
    gc.collect()
    assert first["y"].sum() == -x.size  # also after the session is gone


def test_sizes_that_overflow_are_errors() -> None:
    nodes = [helper.make_node("ConstantOfShape", ["s"], ["y"])]
    s = np.array([2**40, 2**40])
    with epkit.load(make(nodes, {"s": s}, ["y"], {})) as session:
        with pytest.raises(RunError):
            session(s=s)
        assert session(s=np.array([2, 3]))["y"].shape == (2, 3)


def test_more_memory_than_there_is_is_an_error() -> None:
    nodes = [helper.make_node("Expand", ["x", "s"], ["y"])]
    s = np.array([2**45])
    with epkit.load(make(nodes, {"x": normal(1), "s": s}, ["y"], {})) as session:
        with pytest.raises(epkit.EpkitError):
            session(x=normal(1), s=s)


def test_python_steps_are_between_native_ones() -> None:
    """DFT has no native kernel: the loop comes back for it and goes on."""
    nodes = [
        helper.make_node("Abs", ["x"], ["a"]),
        helper.make_node("DFT", ["a"], ["f"], axis=1),
        helper.make_node("Neg", ["f"], ["y"]),
    ]
    x = normal(1, 600, 1)
    with epkit.load(make(nodes, {"x": x}, ["y"], {})) as session:
        (program,) = programs(session)
        assert [bool(step.kernel) for step in program.steps] == [True, False, True]
        found = session(x=x)["y"]
        spectrum = np.fft.fft(np.abs(x[..., 0]))
        np.testing.assert_allclose(found[..., 0], -spectrum.real, rtol=1e-3, atol=1e-3)


def test_an_instruction_set_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EPKIT_CPU_ISA", "avx9000")
    with pytest.raises(OptionError, match="avx9000") as caught:
        epkit.load(chain("")[0])
    assert all(isa in caught.value.remedy for isa in isas())


def test_without_the_engine_everything_still_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EPKIT_CPU_ISA", "none")
    model, feeds = chain("")
    with epkit.load(model) as session:
        assert not any(isinstance(p, NativeProgram) for p in session._engine.compiled.programs.values())
        assert session.run(None, feeds)["y"].shape == (64, 64)


@pytest.mark.parametrize(
    "bad",
    [
        {"x": np.zeros((2, 3), np.float64)},
        {"x": np.zeros(3, np.float32)},
        {"x": np.zeros((2, 5), np.float32)},
        {"z": np.zeros((2, 3), np.float32)},
        {},
    ],
)
def test_the_shortcut_refuses_what_the_long_way_refuses(bad: dict[str, Array]) -> None:
    nodes = [helper.make_node("Relu", ["x"], ["y"], name="relu")]
    model = make(nodes, {"x": normal(2, 3)}, ["y"], {})
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 3
    with epkit.load(model) as session:
        with pytest.raises(epkit.EpkitError):
            session.run(None, bad)
        strided = np.asfortranarray(normal(4, 3))
        assert np.array_equal(session(x=strided)["y"], np.maximum(strided, 0))
    assert sys.getrefcount(strided) < 5
