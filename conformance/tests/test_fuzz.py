"""Fuzzing finds what is wrong with a provider, makes it small, and writes down how to see it again."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import epkit
from epkit.backend import Device, Devices, KernelProvider, kernel, portable_kernels
from epkit_conformance.fuzz import main, search
from epkit_conformance.fuzz.finds import replay
from epkit_conformance.fuzz.nodes import KINDS, operators
from epkit_conformance.result import State
from epkit_conformance.runner import Limits


class Faulty(KernelProvider):
    """Ignores alpha, and dies of Sign."""

    name = "fuzz_faulty"
    version = "1.0"

    def devices(self) -> Devices:
        return Devices((Device("toy:0", "toy"),))


@kernel("LeakyRelu", since=6)
def _leaky_relu(x: Any, *, alpha: float = 0.01) -> Any:
    return np.where(x < 0, x * x.dtype.type(0.01), x)


@kernel("Sign", since=9)
def _sign(x: Any) -> Any:
    os.abort()


Faulty.kernels = (_leaky_relu, _sign, *portable_kernels(np, only={"Neg", "Add"}))


@pytest.fixture(autouse=True)
def _registered() -> None:
    epkit.register(Faulty)


def test_an_ignored_attribute_is_found_made_small_and_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["fuzz_faulty", "--examples", "80", "--only", "LeakyRelu", "Neg", "--out", str(tmp_path)]
    assert main(command) == 1
    found = {place.name.split("-", 1)[1]: place for place in tmp_path.iterdir()}
    assert all(name.startswith("failed-LeakyRelu-") for name in found), found
    place = next(iter(found.values()))
    model = onnx.load(place / "model.onnx")
    assert [node.op_type for node in model.graph.node] == ["LeakyRelu"]
    tensor = onnx.TensorProto()
    tensor.ParseFromString((place / "test_data_set_0" / "input_0.pb").read_bytes())
    values = onnx.numpy_helper.to_array(tensor).astype(np.float64)
    assert values.size == 1 and values.min() < 0
    assert (place / "test_data_set_0" / "output_0.pb").exists() and (place / "found_0.npy").exists()
    text = (place / "find.txt").read_text(encoding="utf-8")
    assert f"epkit conformance fuzz fuzz_faulty --replay {place}" in text
    assert replay(place, "fuzz_faulty").state is State.FAILED
    capsys.readouterr()
    assert main(["fuzz_faulty", "--replay", str(place)]) == 1
    assert "differs in 1 of 1" in capsys.readouterr().out
    assert main(["cpu", "--replay", str(place)]) == 0


def test_a_crash_is_a_find_and_the_search_goes_on() -> None:
    found = search("fuzz_faulty", examples=25, only=["Sign"], limits=Limits(seconds=10))
    assert {find.verdict.state for find in found.finds} == {State.CRASHED}
    assert any(find.trial.feeds["x0"].size <= 1 for find in found.finds)


def test_a_sound_provider_has_no_finds() -> None:
    found = search("cpu", examples=120, start=5)
    assert not [(find.title, find.verdict.detail) for find in found.finds]
    assert found.trials[State.PASSED] > 80


def test_what_is_refused_is_not_tried_for_ever() -> None:
    found = search("null", examples=150, only=["Neg", "Exp"])
    assert not found.finds
    assert found.trials[State.PASSED] > 0
    refused = {place for place, count in found.refused.items() if count}
    assert ("Exp", "float32") in refused and ("Neg", "float32") not in refused


def test_the_same_seed_tries_the_same() -> None:
    first, second = (search("null", examples=30, start=3) for _ in range(2))
    assert first.trials == second.trials and first.refused == second.refused


def test_there_is_a_strategy_for_most_common_operators() -> None:
    assert len(KINDS) > 90
    assert {"Conv", "MatMul", "Gemm", "Softmax", "Slice"} <= {operator for operator, _ in operators()}
