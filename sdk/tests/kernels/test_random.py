"""Random numbers: distribution, type, repeatability, errors."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from one_node import run

T = onnx.TensorProto


@pytest.mark.parametrize("dtype", [T.FLOAT, T.DOUBLE, T.FLOAT16, T.BFLOAT16])
def test_moments(dtype: int) -> None:
    normal = run("RandomNormal", shape=(100, 300), dtype=dtype, mean=2.0, scale=0.5, seed=1.0)
    even = run("RandomUniform", shape=(100, 300), dtype=dtype, low=-1.0, high=3.0, seed=1.5)
    assert normal.dtype == even.dtype == onnx.helper.tensor_dtype_to_np_dtype(dtype)
    normal, even = normal.astype(np.float64), even.astype(np.float64)
    assert abs(normal.mean() - 2) < 0.02 and abs(normal.std() - 0.5) < 0.02
    assert abs(even.mean() - 1) < 0.03 and even.min() >= -1 and even.max() < 3


@pytest.mark.parametrize("name", ["RandomNormalLike", "RandomUniformLike"])
def test_like(name: str) -> None:
    assert run(name, np.zeros((2, 3), np.float16)).dtype == np.float16
    assert run(name, np.zeros((2, 0), np.int8), dtype=T.DOUBLE).shape == (2, 0)
    with pytest.raises(ValueError, match="int8"):
        run(name, np.zeros(3, np.int8))


@pytest.mark.parametrize("seed", [0.0, -2.5, 7.25])
def test_a_seed_repeats(seed: float) -> None:
    first, second = (run("RandomNormal", shape=(5,), seed=seed) for _ in range(2))
    assert first.tolist() == second.tolist() != run("RandomNormal", shape=(5,)).tolist()


def test_bernoulli() -> None:
    chance = np.broadcast_to(np.float32([0, 0.25, 1]), (20000, 3))
    y = run("Bernoulli", chance, dtype=T.INT8, seed=2.0)
    assert y.dtype == np.int8 and set(np.unique(y)) <= {0, 1}
    np.testing.assert_allclose(y.mean(axis=0), [0, 0.25, 1], atol=0.02)
    with pytest.raises(ValueError, match="probability"):
        run("Bernoulli", np.float32([1.5]))


@pytest.mark.parametrize("dtype, expected", [(T.INT32, np.int32), (T.INT64, np.int64)])
def test_multinomial(dtype: int, expected: Any) -> None:
    chance = np.array([[0.1, 0, 0.6, 0.3], [0.25, 0.25, 0.5, 0]])
    with np.errstate(divide="ignore"):
        logits = (np.log(chance) + 40).astype(np.float32)
    y = run("Multinomial", logits, sample_size=20000, dtype=dtype, seed=4.0)
    assert y.dtype == expected and y.shape == (2, 20000)
    np.testing.assert_allclose([np.bincount(row, minlength=4) / 20000 for row in y], chance, atol=0.02)


@pytest.mark.parametrize(
    "name, inputs, attributes",
    [
        ("RandomNormal", [], {"shape": (2**20, 2**20)}),
        ("RandomNormal", [], {"shape": (2, -1)}),
        ("RandomNormal", [], {"shape": (2,), "dtype": T.INT32}),
        ("RandomUniform", [], {"shape": (2,), "low": 2.0}),
        ("Multinomial", [np.zeros(3, np.float32)], {}),
        ("Multinomial", [np.zeros((1, 3), np.float32)], {"dtype": T.FLOAT}),
        ("Multinomial", [np.full((1, 3), np.nan, np.float32)], {}),
    ],
)
def test_errors(name: str, inputs: list[Any], attributes: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        run(name, *inputs, **attributes)
