"""Losses against a double-precision sum, their versions and refusals."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from peer import data, ours


def written_out(log_p: Any, target: Any, weight: Any, ignore: int | None, reduction: str) -> Any:
    loss, total = np.zeros(target.shape), 0.0
    for index in np.ndindex(*target.shape):
        c = target[index]
        if c != ignore:
            share = 1.0 if weight is None else float(weight[c])
            loss[index] = -log_p[(index[0], c, *index[1:])] * share
            total += share
    return {"none": loss, "sum": loss.sum(), "mean": loss.sum() / total}[reduction]


@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("ignore", [None, 1, -7])
@pytest.mark.parametrize("shape", [(4, 3), (2, 3, 2, 2)])
def test_losses(reduction: str, weighted: bool, ignore: int | None, shape: Any) -> None:
    x, weight = data(*shape), np.abs(data(3, seed=1)) if weighted else None
    target = np.random.default_rng(2).integers(0, 3, (shape[0], *shape[2:]))
    target.flat[0] = 2 if ignore is None else ignore
    extra = {} if ignore is None else {"ignore_index": ignore}
    y = ours("NegativeLogLikelihoodLoss", [x, target, weight], 13, reduction=reduction, **extra)
    np.testing.assert_allclose(y, written_out(x, target, weight, ignore, reduction), rtol=1e-5, atol=1e-6)
    log_p = x - np.log(np.exp(x.astype(np.float64)).sum(1, keepdims=True))
    y, got = ours("SoftmaxCrossEntropyLoss", [x, target, weight], 12, outputs=2, reduction=reduction, **extra)
    np.testing.assert_allclose(y, written_out(log_p, target, weight, ignore, reduction), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(got, log_p, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float64])
@pytest.mark.parametrize("name", ["NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss"])
def test_type_and_extremes(name: str, dtype: Any) -> None:
    x = np.array([[1000, 0], [0, 1000]]).astype(dtype)
    y = ours(name, [x, np.array([0, 1], np.int32)], 22)
    assert y.dtype == dtype and y.shape == () and float(y) == (-1000 if name[0] == "N" else 0)
    assert np.isnan(ours(name, [x, np.array([0, 0])], 22, ignore_index=0).astype(np.float32))


@pytest.mark.parametrize(
    ("target", "weight", "attributes", "message"),
    [
        ([0, 3], None, {}, "target 3 is outside the 3 classes"),
        ([0, -1], None, {}, "target -1"),
        ([0], None, {}, "do not fit"),
        ([0, 1], [1, 1], {}, "weights"),
        ([0, 1], None, {"reduction": "max"}, "reduction='max'"),
    ],
)
def test_refusals(target: Any, weight: Any, attributes: Any, message: str) -> None:
    given = [data(2, 3), np.array(target), None if weight is None else np.array(weight, np.float32)]
    for name in ("NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss"):
        with pytest.raises(ValueError, match=message):
            ours(name, given, 13, **attributes)
