"""Accuracy of the functions of one tensor, against 40 digits or float64."""

from __future__ import annotations

from typing import Any

import mpmath
import numpy as np
import pytest
from one_node import run


def sample(low: float, high: float, dtype: Any) -> Any:
    rng = np.random.default_rng(7)
    near_zero = 10.0 ** rng.uniform(-20, 0, 100) * rng.choice([-1, 1], 100)
    x = np.concatenate([rng.uniform(low, high, 700), near_zero])
    return x[(x >= low) & (x <= high)].astype(dtype)


def ulps(y: Any, x: Any, exact: Any) -> float:
    """The largest error in units of the last place of the exact value."""
    want = [exact(mpmath.mpf(float(v))) for v in x]
    unit = np.spacing(np.abs(np.array([float(w) for w in want])).astype(y.dtype)).astype(np.float64)
    return float(max(abs(mpmath.mpf(float(g)) - w) / u for g, w, u in zip(y, want, unit, strict=True)))


def sigmoid(x: Any) -> Any:
    return 1 / (1 + mpmath.exp(-x))


FUNCTIONS = {
    "Exp": (mpmath.exp, -80, 80),
    "Log": (mpmath.log, 1e-30, 1e4),
    "Sqrt": (mpmath.sqrt, 0, 1e4),
    "Reciprocal": (lambda x: 1 / x, 1e-3, 1e3),
    "Sin": (mpmath.sin, -100, 100),
    "Cos": (mpmath.cos, -100, 100),
    "Tan": (mpmath.tan, -100, 100),
    "Asin": (mpmath.asin, -1, 1),
    "Acos": (mpmath.acos, -1, 1),
    "Atan": (mpmath.atan, -50, 50),
    "Sinh": (mpmath.sinh, -80, 80),
    "Cosh": (mpmath.cosh, -80, 80),
    "Tanh": (mpmath.tanh, -20, 20),
    "Asinh": (mpmath.asinh, -1e4, 1e4),
    "Acosh": (mpmath.acosh, 1, 1e4),
    "Atanh": (mpmath.atanh, -0.999, 0.999),
    "Erf": (mpmath.erf, -5, 5),
    "Sigmoid": (sigmoid, -80, 80),
    "Softplus": (lambda x: mpmath.log1p(mpmath.exp(x)), -80, 80),
    "Softsign": (lambda x: x / (1 + abs(x)), -50, 50),
    "Mish": (lambda x: x * mpmath.tanh(mpmath.log1p(mpmath.exp(x))), -40, 40),
    "Gelu": (lambda x: x * mpmath.ncdf(x), -12, 12),
    "Elu": (lambda x: x if x >= 0 else mpmath.expm1(x), -20, 20),
    "Celu": (lambda x: x if x >= 0 else mpmath.expm1(x), -20, 20),
    "Swish": (lambda x: x * sigmoid(x), -80, 80),
    "HardSwish": (lambda x: x * max(0, min(1, x / 6 + mpmath.mpf(0.5))), -5, 5),
}


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("dtype, most", [(np.float32, 4), (np.float64, 12)], ids=["float32", "float64"])
def test_error_in_units_of_the_last_place(name: str, dtype: Any, most: float) -> None:
    exact, low, high = FUNCTIONS[name]
    x = sample(low, high, dtype)
    with mpmath.workdps(40):
        assert ulps(run(name, x), x, exact) <= most


@pytest.mark.parametrize("name", FUNCTIONS)
def test_float16_is_rounded_once(name: str) -> None:
    exact, low, high = FUNCTIONS[name]
    x = sample(max(low, 1e-3 if low > 0 else -10), min(high, 10), np.float16)
    assert ulps(run(name, x), x, exact) <= 0.51


@pytest.mark.parametrize(
    "name", ["Exp", "Sigmoid", "Tanh", "Erf", "Softplus", "Gelu", "Mish", "Swish", "Elu", "Relu"]
)
def test_limits(name: str) -> None:
    x = np.array([np.inf, 1e30, np.nan], dtype=np.float32)
    want = {"Sigmoid": 1, "Tanh": 1, "Erf": 1}.get(name, np.inf)
    y = run(name, x)
    assert y[0] == want and np.isnan(y[2]) and not np.isnan(y[1])
    assert not np.isnan(run(name, np.array([-1e30, -200.0], dtype=np.float32))).any()


@pytest.mark.parametrize(
    "name, x, want",
    [
        ("Sqrt", [-1.0], [np.nan]),
        ("Log", [0.0, -1.0], [-np.inf, np.nan]),
        ("Reciprocal", [0.0], [np.inf]),
        ("Acosh", [0.5], [np.nan]),
        ("Round", [0.5, 1.5, 2.5, -0.5, -1.5, 2.3], [0, 2, 2, -0.0, -2, 2]),
        ("Sign", [-3.0, 0.0, 5.0, np.nan], [-1, 0, 1, np.nan]),
        ("Erf", [0.0, -0.0], [0.0, -0.0]),
    ],
)
def test_values(name: str, x: list[float], want: list[float]) -> None:
    np.testing.assert_array_equal(run(name, np.array(x, dtype=np.float32)), np.array(want, dtype=np.float32))


def test_infinity_by_sign() -> None:
    x = np.array([np.inf, -np.inf, 1], dtype=np.float32)
    flags = [(1, 1), (1, 0), (0, 1), (0, 0)]
    found = [run("IsInf", x, detect_negative=n, detect_positive=p).tolist() for n, p in flags]
    assert found == [[True, True, False], [False, True, False], [True, False, False], [False] * 3]
