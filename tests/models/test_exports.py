"""Small models as exporters wrote them: what onnxruntime computes, and what the framework itself computed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

import epkit

from .checkered import registry
from .compare import largest_error

FOLDER = Path(__file__).parent / "exports"
NAMES = sorted(path.stem for path in FOLDER.glob("*.onnx"))

TOLERANCE = {
    "onnxruntime-bert-float16": 2e-2,  # numbers of 3 digits, rounded by each layer
    "onnxruntime-gpt2-float16": 2e-2,
    "onnxruntime-session-qdq": 1e-2,  # the peer's QLinearSoftmax takes 1 / (1 / 255) for 254: a code too low
}


def archive(name: str) -> list[tuple[dict[str, Any], dict[int, Any]]]:
    """The inputs by name and the framework's outputs by position, for each size."""
    sets: dict[int, tuple[dict[str, Any], dict[int, Any]]] = {}
    with np.load(FOLDER / f"{name}.npz") as arrays:
        for key, array in arrays.items():
            number, kind, of = key.split(".", 2)
            feeds, outputs = sets.setdefault(int(number), ({}, {}))
            if kind == "in":
                feeds[of] = array.astype(object) if array.dtype.kind == "U" else array
            else:
                outputs[int(of)] = array
    return [sets[number] for number in sorted(sets)]


def test_there_are_exports_of_each_kind() -> None:
    exporters = {name.split("-")[0] for name in NAMES}
    assert exporters == {
        *("torch", "sklearn", "tf2onnx", "jax2onnx", "onnxmltools", "catboost", "ndonnx", "paddle2onnx"),
        "onnxruntime",
    }
    assert all((FOLDER / f"{name}.npz").exists() for name in NAMES)


def peer_of(path: Path) -> onnxruntime.InferenceSession:
    """What the file says: not rewritten, and each tensor quantised whole, not in a part for each thread."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("providers", [["cpu"], ["null", "checkered", "cpu"]], ids="/".join)
@pytest.mark.parametrize("level", ["none", "all"])
@pytest.mark.parametrize("name", NAMES)
def test_exported_model(name: str, level: str, providers: list[str]) -> None:
    path = FOLDER / f"{name}.onnx"
    peer = peer_of(path)
    names = [output.name for output in peer.get_outputs()]
    with epkit.load(path, providers, optimise=level, registry=registry()) as session:
        for feeds, outputs in archive(name):
            found = session.run(None, feeds)
            expected = dict(zip(names, peer.run(None, feeds), strict=True))
            assert largest_error(found, expected) <= TOLERANCE.get(name, 1e-3)
            for position, array in outputs.items():
                np.testing.assert_allclose(found[names[position]], array, rtol=1e-3, atol=1e-4)
