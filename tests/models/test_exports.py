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
    assert exporters == {"torch", "sklearn", "tf2onnx", "jax2onnx", "onnxmltools", "catboost", "ndonnx"}
    assert all((FOLDER / f"{name}.npz").exists() for name in NAMES)


@pytest.mark.parametrize("providers", [["cpu"], ["null", "checkered", "cpu"]], ids="/".join)
@pytest.mark.parametrize("level", ["none", "all"])
@pytest.mark.parametrize("name", NAMES)
def test_exported_model(name: str, level: str, providers: list[str]) -> None:
    path = FOLDER / f"{name}.onnx"
    peer = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [output.name for output in peer.get_outputs()]
    with epkit.load(path, providers, optimise=level, registry=registry()) as session:
        for feeds, outputs in archive(name):
            found = session.run(None, feeds)
            expected = dict(zip(names, peer.run(None, feeds), strict=True))
            assert largest_error(found, expected) <= 1e-3
            for position, array in outputs.items():
                np.testing.assert_allclose(found[names[position]], array, rtol=1e-3, atol=1e-4)
