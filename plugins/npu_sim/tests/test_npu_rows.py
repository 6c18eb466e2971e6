"""Pools, reductions, Softmax and LayerNormalization."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import npu_reference as reference
import numpy as np
import onnx.reference
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from npu_node import Q, feeds_of, integers, on_npu, on_onnxruntime, qdq

from epkit.errors import PlacementError

FEW = settings(max_examples=12, deadline=None)


def real(q: Q) -> Any:
    return (q.array.astype(np.float64) - float(q.zero)) * float(np.float32(q.scale))


def standard(model: onnx.ModelProto, feeds: dict[str, Any]) -> Any:
    return onnx.reference.ReferenceEvaluator(model).run(None, feeds)[0]


@FEW
@given(
    st.integers(0, 10**6), st.sampled_from(["int8", "uint8"]), st.integers(1, 3), st.integers(1, 2),
    st.integers(0, 1), st.booleans(), st.booleans(),
)  # fmt: skip
def test_pools(seed: int, dtype: str, kernel: int, stride: int, pad: int, counted: bool, wide: bool) -> None:
    """The maximum exactly; the average within the one step that two roundings may differ by."""
    pad = min(pad, kernel - 1)
    rng = np.random.default_rng(seed)
    size = 9 if wide else 6
    x = Q(integers(rng, (2, 5, size, size), dtype), 0.05, 3, dtype)
    out = (size + 2 * pad - kernel) // stride + 1
    shape = {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "pads": [pad] * 4}
    model = qdq("MaxPool", [x], Q((2, 5, out, out), 0.05, 3, dtype), **shape)
    assert np.array_equal(on_npu(model, feeds_of([x])), standard(model, feeds_of([x])))
    model = qdq(
        "AveragePool", [x], Q((2, 5, out, out), 0.03, 7, dtype), **shape, count_include_pad=int(counted)
    )
    got, want = on_npu(model, feeds_of([x])), standard(model, feeds_of([x]))
    assert np.abs(got.astype(int) - want.astype(int)).max() <= 1


@pytest.mark.parametrize("op", ["MaxPool", "AveragePool"])
@pytest.mark.parametrize(
    ("size", "kernel", "stride", "pad"), [(6, 3, 2, 0), (7, 2, 3, 0), (5, 2, 3, 1), (5, 3, 3, 1)]
)
def test_windows_at_the_end_with_ceil_mode(op: str, size: int, kernel: int, stride: int, pad: int) -> None:
    """The last two have a window that would begin in the padding behind, which does not count. Shape inference
    says it does, and the provider believed it; now such a node is left to others.
    """
    x = Q(integers(np.random.default_rng(0), (1, 2, size, size), "int8"), 0.05, 3)
    shape = {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "pads": [pad] * 4, "ceil_mode": 1}
    out = -(-(size + 2 * pad - kernel) // stride) + 1 - pad
    model = qdq(op, [x], Q((1, 2, out, out), 0.05, 3), **shape)
    if pad:
        with pytest.raises(PlacementError, match="its windows give"):
            on_npu(model, feeds_of([x]))
    else:
        want = on_onnxruntime(model, feeds_of([x]), optimise=False)
        assert np.abs(on_npu(model, feeds_of([x])).astype(int) - want.astype(int)).max() <= 1


@pytest.mark.parametrize(
    ("op", "axes", "shape"),
    [("GlobalAveragePool", None, (2, 5, 1, 1)), ("ReduceMean", [1], (2, 1, 7, 3)), ("ReduceMean", [-1, 0], (1, 5, 7, 1)),
     ("ReduceSum", [2], (2, 5, 1, 3)), ("ReduceMax", [1, 2], (2, 1, 1, 3)), ("GlobalMaxPool", None, (2, 5, 1, 1))],
)  # fmt: skip
def test_reductions_equal_exact_fractions(op: str, axes: Any, shape: tuple[int, ...]) -> None:
    """The sum times a factor of 24 bits; away from ties that is the exact quotient, rounded half to even."""
    rng = np.random.default_rng(1)
    x = Q(integers(rng, (2, 5, 7, 3), "uint8"), 0.05, 9, "uint8")
    largest = "Max" in op
    y = Q(shape, 0.05 if largest else 0.037, 9 if largest else 100, "uint8")
    model = qdq(op, [x, *([np.array(axes)] if axes else [])], y)
    got = on_npu(model, feeds_of([x]))
    along = tuple(axes) if axes else (2, 3)
    if largest:
        assert np.array_equal(got, x.array.max(axis=along, keepdims=True))
        return
    total = (x.array.astype(int) - 9).sum(axis=along, keepdims=True)
    count = 1 if op == "ReduceSum" else x.array.size // total.size
    ratio = Fraction(float(np.float32(x.scale))) / Fraction(float(np.float32(y.scale))) / count
    assert np.array_equal(got, reference.requantised(total, lambda index: float(ratio), y))


@pytest.mark.parametrize("axis", [-1, 1, 0])
@pytest.mark.parametrize("dtype", ["int8", "uint8"])
def test_softmax_by_its_integers(axis: int, dtype: str) -> None:
    """Exponentials of 24 bits from a table, an exact quotient: the sheet's formula in exact numbers."""
    rng = np.random.default_rng(2)
    x = Q(integers(rng, (3, 6, 20), dtype), 0.06, 4, dtype)
    y = Q((3, 6, 20), 1 / 256, 0, "uint8")
    got = on_npu(qdq("Softmax", [x], y, axis=axis), feeds_of([x]))
    rows = np.moveaxis(x.array.astype(int), axis, -1)
    want = np.empty(rows.shape, np.uint8)
    step = float(np.float32(x.scale))
    for index in np.ndindex(*rows.shape[:-1]):
        weights = [round(2**23 * np.exp(-step * (max(rows[index]) - v))) for v in rows[index]]
        want[index] = [reference.finish(Fraction(w, sum(weights)) * 256, y) for w in weights]
    assert np.array_equal(got, np.moveaxis(want, -1, axis))
    exact = np.exp(real(x) - real(x).max(axis=axis, keepdims=True))
    exact /= exact.sum(axis=axis, keepdims=True)
    assert np.abs(got - np.clip(exact * 256, 0, 255)).max() <= 0.51


@FEW
@given(
    st.integers(0, 10**6),
    st.sampled_from([("int8", "int8"), ("uint8", "int16"), ("int16", "int16")]),
    st.integers(2, 70),
)
def test_layer_normalisation_is_within_a_step(seed: int, types: tuple[str, str], cols: int) -> None:
    rng = np.random.default_rng(seed)
    kind, out = types
    x = Q(integers(rng, (7, cols), kind), 0.01, 0 if kind == "int16" else 11, kind)
    gamma, beta = rng.uniform(0.5, 2, cols).astype(np.float32), rng.uniform(-1, 1, cols).astype(np.float32)
    y = Q((7, cols), 16 / 2**15 if out == "int16" else 0.08, 0, out)
    got = on_npu(qdq("LayerNormalization", [x, gamma, beta], y, epsilon=1e-3), feeds_of([x])).astype(float)
    values = real(x)
    centred = values - values.mean(axis=1, keepdims=True)
    exact = centred / np.sqrt((centred**2).mean(axis=1, keepdims=True) + 1e-3) * gamma + beta
    info = np.iinfo(out)
    assert np.abs(got - np.clip(exact / np.float32(y.scale), info.min, info.max)).max() <= 0.6


def test_a_row_without_variance_normalises_to_beta() -> None:
    x = Q(np.full((2, 8), 5), 0.1, 0)
    beta = np.linspace(-1, 1, 8).astype(np.float32)
    y = Q((2, 8), 0.01, 0)
    got = on_npu(qdq("LayerNormalization", [x, np.ones(8, np.float32), beta], y), feeds_of([x]))
    assert np.array_equal(got, np.rint([beta / np.float32(0.01)] * 2))
