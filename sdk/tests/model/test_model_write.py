"""Writing: what was read comes back the same, all or nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx.numpy_helper
import onnx_ir as ir
import pytest
from model_samples import CONTROL_FLOW, with_weights

from epkit.errors import InvalidModelError, ModelError
from epkit.model.check import check
from epkit.model.read import read
from epkit.model.write import write

ARRAYS = {
    "w": np.random.default_rng(0).standard_normal((40, 50)).astype(np.float32),
    "b": np.arange(1001, dtype=np.float32)[1:],
    "s": np.array([3, 4]),
}
MODEL = with_weights(ARRAYS)


@pytest.mark.parametrize("external", [False, True])
def test_round_trip(tmp_path: Path, external: bool) -> None:
    model = check(read(MODEL)).model
    path = tmp_path / "out.onnx"
    write(model, path, external_data=external)
    assert sorted(p.name for p in tmp_path.iterdir()) == (
        ["out.onnx", "out.onnx.data"] if external else ["out.onnx"]
    )
    onnx.checker.check_model(path, full_check=True)
    for tensor in onnx.load(path).graph.initializer:
        np.testing.assert_array_equal(onnx.numpy_helper.to_array(tensor), ARRAYS[tensor.name])
    again = read(path).model.graph.initializers
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(again[name].const_value.numpy(), array)
        np.testing.assert_array_equal(model.graph.initializers[name].const_value.numpy(), array)


def test_onto_the_file_that_it_was_read_from(tmp_path: Path) -> None:
    path = tmp_path / "out.onnx"
    write(check(read(MODEL)).model, path, external_data=True)
    model = read(path).model
    write(model, path, external_data=True)
    np.testing.assert_array_equal(read(path).model.graph.initializers["w"].const_value.numpy(), ARRAYS["w"])
    np.testing.assert_array_equal(model.graph.initializers["w"].const_value.numpy(), ARRAYS["w"])


@pytest.mark.parametrize("suffix", [".onnxtxt", ".onnx.txt", ".textproto", ".json", ".onnx"])
def test_formats(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"out{suffix}"
    write(check(read(CONTROL_FLOW)).model, path)
    assert [node.op_type for node in check(read(path)).model.graph] == ["Neg", "If"]
    assert path.read_bytes().isascii() == (suffix != ".onnx")


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "out.onnx"
    write(check(read(MODEL)).model, path)
    before = path.read_bytes()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(ModelError, match="No space left") as error:
        write(check(read(CONTROL_FLOW)).model, path)
    assert error.value.where.file == str(path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["out.onnx"]


def test_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot be written"):
        write(check(read(MODEL)).model, tmp_path / "missing" / "out.onnx")


def test_versions_that_a_file_cannot_hold(tmp_path: Path) -> None:
    model = check(read(CONTROL_FLOW)).model
    node = model.graph[0]
    node.version = 13  # Neg has the same meaning in 13 and 17
    write(model, tmp_path / "a.onnx")
    node.version = 6
    with pytest.raises(InvalidModelError, match="cannot say both"):
        write(model, tmp_path / "b.onnx")
    assert isinstance(model, ir.Model)
