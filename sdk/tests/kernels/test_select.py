"""What the published cases of the select family leave out."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from peer import assert_like_peer, data, ours

rng = np.random.default_rng(4)


@pytest.mark.parametrize("dtype", [np.float32, np.int64, np.float16, np.uint8])
@pytest.mark.parametrize("largest", [0, 1])
@pytest.mark.parametrize("k", [0, 1, 3, 20, 40])
def test_top_k_with_ties(dtype: Any, largest: int, k: int) -> None:
    x = rng.integers(0, 6, (3, 40, 2)).astype(dtype)
    assert_like_peer("TopK", [x, np.array([k])], 11, outputs=2, axis=1, largest=largest)


def test_top_k_of_old_opsets() -> None:
    assert_like_peer("TopK", [data(4, 6)], 1, outputs=2, k=2, axis=0)
    assert_like_peer("TopK", [data(4, 6), np.array([2])], 10, outputs=2)


@pytest.mark.parametrize("n", [5, 50])
def test_nan_is_the_greatest(n: int) -> None:
    x = np.arange(n, dtype=np.float32)
    x[2] = np.nan
    assert ours("TopK", [x, np.array([2])], 11, outputs=2)[1].tolist() == [2, n - 1]
    assert ours("TopK", [x, np.array([2])], 11, outputs=2, largest=0)[1].tolist() == [0, 1]


def test_top_k_of_bfloat16() -> None:
    x = np.arange(50).astype(ml_dtypes.bfloat16)
    values, index = ours("TopK", [x, np.array([2])], 24, outputs=2)
    assert (values.dtype, index.tolist()) == (x.dtype, [49, 48])


@pytest.mark.parametrize("name", ["ArgMax", "ArgMin"])
@pytest.mark.parametrize("keepdims", [0, 1])
def test_arg_extremes(name: str, keepdims: int) -> None:
    x = np.round(data(4, 6))
    assert_like_peer(name, [x], 1, axis=1, keepdims=keepdims)
    assert_like_peer(name, [x], 12, axis=-2, keepdims=keepdims, select_last_index=1)


@pytest.mark.parametrize("dtype", [np.float32, np.int32, np.int64])
@pytest.mark.parametrize("exclusive", [0, 1])
@pytest.mark.parametrize("reverse", [0, 1])
def test_cum_sum(dtype: Any, exclusive: int, reverse: int) -> None:
    x = (9 * data(4, 6)).astype(dtype)
    assert_like_peer("CumSum", [x, np.array(1, dtype=np.int32)], 11, exclusive=exclusive, reverse=reverse)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float32])
def test_cumulated_values_are_rounded_once(dtype: Any) -> None:
    x = np.full(4096, 0.1, dtype=dtype)
    got = ours("CumSum", [x, np.int64(0)], 14)
    want = np.cumsum(x.astype(np.float64))
    assert got.dtype == x.dtype
    np.testing.assert_allclose(got.astype(np.float64), want, rtol=float(ml_dtypes.finfo(dtype).eps))


def test_cum_prod_overflows_quietly() -> None:
    x = np.full(100, 10, dtype=np.float32)
    assert np.isinf(ours("CumProd", [x, np.int64(0)], 26)[-1])
    assert ours("CumProd", [x[:3], np.int64(0)], 26, exclusive=1, reverse=1).tolist() == [100, 10, 1]


def test_refused() -> None:
    with pytest.raises(ValueError, match="K is 7"):
        ours("TopK", [data(6), np.array([7])], 11)
    with pytest.raises(ValueError, match="no element"):
        ours("ArgMax", [data(0, 2)], 13)
    with pytest.raises(ValueError, match="axis 1"):
        ours("CumSum", [data(3), np.int64(1)], 14)
