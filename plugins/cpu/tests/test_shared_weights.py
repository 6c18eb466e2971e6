"""Packed weights of equal constants are there once in a process, until the last session closes."""

from __future__ import annotations

import ctypes
import gc
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import epkit
from epkit.testing.models import model
from epkit_cpu import shared
from epkit_cpu.native import chosen_isa

pytestmark = pytest.mark.skipif(not chosen_isa(), reason="the package was built without a compiler")

SIZE = 4096  # so much that what else a process does is little beside it
BYTES = 4 * SIZE * SIZE
X = np.random.default_rng(1).standard_normal((2, SIZE), np.float32)


def products(weight: np.ndarray[Any, Any], operator: str = "Relu") -> onnx.ModelProto:
    graph = model(f"g (float[N, {SIZE}] x) => (float[N, {SIZE}] y) {{ p = MatMul(x, w)  y = {operator}(p) }}")
    graph.graph.initializer.append(numpy_helper.from_array(weight, "w"))
    return graph


@pytest.fixture(autouse=True)
def nothing_left() -> Any:
    """Before and after: the table is empty."""
    gc.collect()
    assert not shared._entries
    yield
    gc.collect()
    assert not shared._entries


def anonymous() -> int:
    """Bytes of this process that no file stands behind, and that malloc does not keep for later."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    lines = Path("/proc/self/smaps_rollup").read_text(encoding="utf-8").splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("Anonymous:"))


def right(
    session: epkit.Session, weight: np.ndarray[Any, Any], kind: Any = lambda y: np.maximum(y, 0)
) -> bool:
    wanted = kind(X.astype(np.float64) @ weight)
    return bool(np.allclose(session(x=X)["y"], wanted, rtol=1e-3, atol=1e-3))


@pytest.fixture(scope="module")
def weight() -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).standard_normal((SIZE, SIZE), np.float32)


def test_sessions_of_one_file_hold_its_weights_once(tmp_path: Path, weight: np.ndarray[Any, Any]) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(products(weight), path)
    epkit.load(path, ["cpu"]).close()  # what loading needs anyway
    before = anonymous()
    first = epkit.load(path, ["cpu"])
    one = anonymous() - before
    others = [epkit.load(path, ["cpu"]) for _ in range(4)]
    five = anonymous() - before
    assert all(right(session, weight) for session in (first, *others))
    for session in (first, *others[1:]):
        session.close()
    assert right(others[0], weight)
    assert sum(map(len, shared._entries.values())) == 1
    others[0].close()
    none = anonymous() - before
    if "libasan" not in Path("/proc/self/maps").read_text(encoding="utf-8"):  # it keeps what is freed
        assert one > 0.9 * BYTES  # packed weights
        assert five < one + 0.5 * BYTES
        assert none < 0.5 * BYTES


def test_two_models_with_equal_weights_share_them(tmp_path: Path, weight: np.ndarray[Any, Any]) -> None:
    """One from a file, one from memory, another operator behind the product."""
    onnx.save(products(weight), tmp_path / "model.onnx")
    with (
        epkit.load(tmp_path / "model.onnx", ["cpu"]) as first,
        epkit.load(products(weight, "Neg").SerializeToString(), ["cpu"]) as second,
    ):
        assert sum(map(len, shared._entries.values())) == 1
        assert right(first, weight)
        assert right(second, weight, np.negative)


@pytest.mark.parametrize("change", [lambda w: w.__setitem__((5, 7), 9.0), lambda w: np.negative(w, out=w)])
def test_other_weights_of_the_same_shape_stay_apart(
    tmp_path: Path, weight: np.ndarray[Any, Any], change: Any
) -> None:
    """Also where the few elements that are looked at first are the same."""
    other = weight.copy()
    change(other)
    for name, array in (("first", weight), ("second", other)):
        onnx.save(products(array), tmp_path / f"{name}.onnx")
    with (
        epkit.load(tmp_path / "first.onnx", ["cpu"]) as first,
        epkit.load(tmp_path / "second.onnx", ["cpu"]) as second,
    ):
        assert right(first, weight)
        assert right(second, other)


def test_memory_that_can_be_written_is_told_apart_by_its_digest(weight: np.ndarray[Any, Any]) -> None:
    """What was packed is found again only for the bytes that it was packed from."""
    calls = []

    @shared.shared
    def pack(kernel: int, attributes: bytes, arrays: shared.Arrays) -> shared.Array:
        calls.append(kernel)
        return np.concatenate([array.reshape(-1) for array in arrays if array is not None])

    own = weight[:64].copy()
    first = pack(1, b"", [own, None])
    assert pack(1, b"", [own.copy(), None]) is first
    own[3, 3] += 1
    assert pack(1, b"", [own, None]) is not first
    assert pack(1, b"other", [weight[:64], None]) is not first
    assert pack(2, b"", [weight[:64], None]) is not first
    assert pack(1, b"", [-np.zeros((64, 64), np.float32)]) is not pack(
        1, b"", [np.zeros((64, 64), np.float32)]
    )
    assert len(calls) == 6
