"""Reductions: old and new forms of axes, empty sets, types."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from peer import data, ours

Oracle = Callable[..., Any]
ORACLES: dict[str, Oracle] = {
    "ReduceSum": np.sum,
    "ReduceMean": np.mean,
    "ReduceProd": np.prod,
    "ReduceMax": np.max,
    "ReduceMin": np.min,
    "ReduceL1": lambda x, **k: np.abs(x).sum(**k),
    "ReduceL2": lambda x, **k: np.sqrt((x * x).sum(**k)),
    "ReduceSumSquare": lambda x, **k: (x * x).sum(**k),
    "ReduceLogSum": lambda x, **k: np.log(x.sum(**k)),
    "ReduceLogSumExp": lambda x, **k: np.log(np.exp(x).sum(**k)),
}


@pytest.mark.parametrize("name", ORACLES)
@pytest.mark.parametrize("opset", [1, 11, 13, 18, 28])
@pytest.mark.parametrize("axes", [None, [1], [-1, 0], [0, 1, 2]])
@pytest.mark.parametrize("keepdims", [0, 1])
def test_axes(name: str, opset: int, axes: Any, keepdims: int) -> None:
    x = np.abs(data(2, 3, 4))
    want = ORACLES[name](
        x.astype(np.float64), axis=None if axes is None else tuple(axes), keepdims=bool(keepdims)
    )
    if opset < (13 if name == "ReduceSum" else 18):
        y = ours(name, [x], opset, keepdims=keepdims, **({} if axes is None else {"axes": axes}))
    else:
        y = ours(name, [x, None if axes is None else np.array(axes)], opset, keepdims=keepdims)
    assert (y.shape, y.dtype) == (np.shape(want), x.dtype)
    np.testing.assert_allclose(y, want, rtol=1e-5)


@pytest.mark.parametrize("name", ORACLES)
def test_no_axes_may_mean_none(name: str) -> None:
    x = np.abs(data(2, 3))
    want = ORACLES[name](x.astype(np.float64), axis=())
    for axes in (None, np.array([], np.int64)):
        np.testing.assert_allclose(ours(name, [x, axes], 18, noop_with_empty_axes=1), want, rtol=1e-5)
        assert ours(name, [x, axes], 18).shape == (1, 1)


@pytest.mark.parametrize("name", ORACLES)
@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float64, np.int32, np.int64, np.uint32])
def test_type_is_kept(name: str, dtype: Any) -> None:
    x = np.array([[1, 2], [2, 4]]).astype(dtype)
    y = ours(name, [x, np.array([1])], 18)
    want = ORACLES[name](x.astype(np.float64), axis=1, keepdims=True).astype(dtype)
    assert y.dtype == dtype
    np.testing.assert_allclose(y.astype(np.float64), want.astype(np.float64), rtol=1e-2)


@pytest.mark.parametrize("name", ORACLES)
def test_long_sums_are_accurate(name: str) -> None:
    x = np.random.default_rng(0).random((4096, 3), np.float32)
    x = 1 + (x - np.float32(0.5)) / 1000 if name == "ReduceProd" else x
    want = ORACLES[name](x.astype(np.float64), axis=0)
    np.testing.assert_allclose(ours(name, [x], 1, axes=[0], keepdims=0), want, rtol=1e-5)


@pytest.mark.parametrize("name", [n for n in ORACLES if n != "ReduceMean"])
@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_empty_set(name: str, dtype: Any) -> None:
    y = ours(name, [np.zeros((2, 0), dtype), np.array([1])], 20)
    special = {"ReduceProd": 1, "ReduceMax": -np.inf, "ReduceMin": np.inf}
    want = -np.inf if "Log" in name else special.get(name, 0)
    assert y.shape == (2, 1) and y.dtype == dtype and (y.astype(np.float32) == want).all()


@pytest.mark.parametrize(
    ("name", "want"), [("ReduceMax", -(2**31)), ("ReduceMin", 2**31 - 1), ("ReduceMean", 0)]
)
def test_empty_set_of_integers(name: str, want: int) -> None:
    assert ours(name, [np.zeros((2, 0), np.int32), np.array([1])], 20).tolist() == [[want], [want]]


def test_booleans_and_scalars() -> None:
    x = np.array([[True, False], [False, False]])
    assert ours("ReduceMax", [x, np.array([1])], 20, keepdims=0).tolist() == [True, False]
    assert ours("ReduceMin", [x], 20).dtype == np.bool_
    assert ours("ReduceMax", [np.zeros((0,), np.bool_)], 20, keepdims=0).item() is False
    y = ours("ReduceSum", [np.float32(3)[None][0, ...]], 13)
    assert y.shape == () and y == 3


def test_integer_mean_truncates_toward_zero() -> None:
    x = np.array([[-3, 0], [3, 0], [2**61, 2**61 + 1]])
    assert ours("ReduceMean", [x, np.array([1])], 18, keepdims=0).tolist() == [-1, 1, 2**61]


def test_log_sum_exp_does_not_overflow() -> None:
    x = np.array([[1000, 1000], [-1000, -1000], [-np.inf, -np.inf], [np.inf, 0]], np.float32)
    want = [1000 + np.log(2), -1000 + np.log(2), -np.inf, np.inf]
    np.testing.assert_allclose(ours("ReduceLogSumExp", [x], 13, axes=[1], keepdims=0), want, rtol=1e-6)


@pytest.mark.parametrize(("axes", "message"), [([2], "outside"), ([0, -2], "twice")])
def test_refusals(axes: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ours("ReduceSum", [data(2, 3), np.array(axes)], 13)
    with pytest.raises(ValueError, match=message):
        ours("ReduceSum", [data(2, 3)], 1, axes=axes)
