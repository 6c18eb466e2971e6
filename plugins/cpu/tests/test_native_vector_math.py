"""Elementary functions against float64, in units of the last place."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from math_library import ISAS, call, parallel, ulps

Array = np.ndarray[Any, Any]
erf = np.vectorize(math.erf, otypes=[np.float64])
erfc = np.vectorize(math.erfc, otypes=[np.float64])


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


FUNCTIONS: list[Callable[[Array], Array]] = [np.exp, np.log, np.tanh, sigmoid, erf, np.sin, np.cos]
EDGES = [0.0, -0.0, 1e-45, -1e-40, 1.17549435e-38, 1.0, -1.0, 88.72283, 88.7229, -87.4, -103.9, -104.1]
EDGES += [0.625, 0.9270001, 3.95, 1e30, -1e30, np.inf, -np.inf, np.nan]


def samples() -> Array:
    """Every magnitude of float32, and densely the ranges where the functions change."""
    generator = np.random.default_rng(0)
    everything = generator.integers(0, 2**32, 100_000, dtype=np.uint32).view(np.float32)
    dense = [generator.uniform(-bound, bound, 50_000) for bound in (1, 5, 110, 1e4, 1e6)]
    everything = everything[~np.isnan(everything)]
    return np.concatenate([everything, *dense, np.array(EDGES)]).astype(np.float32)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("number", range(len(FUNCTIONS)))
def test_at_most_two_units_in_the_last_place(isa: str, number: int) -> None:
    x = samples()
    found = np.empty_like(x)
    call(isa, "unary_f32", number, x, found, x.size, parallel(2))
    with np.errstate(all="ignore"):
        distance = ulps(found, FUNCTIONS[number](x.astype(np.float64)))
    worst = int(np.argmax(distance))
    assert distance[worst] <= 2, (x[worst], found[worst], distance[worst])


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("number", [7, 8, 9])
def test_activations(isa: str, number: int) -> None:
    x = np.random.default_rng(1).uniform(-12, 12, 1003).astype(np.float32)
    found = np.empty_like(x)
    call(isa, "unary_f32", number, x, found, x.size, None)
    wide = x.astype(np.float64)
    gelu = 0.5 * wide * (1 + erf(wide / math.sqrt(2)))
    tanh = 0.5 * wide * (1 + np.tanh(np.sqrt(2 / np.pi) * (wide + 0.044715 * wide**3)))
    np.testing.assert_allclose(found, [gelu, tanh, wide * sigmoid(wide)][number - 7], rtol=4e-6, atol=2e-7)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(("number", "bound"), [(7, 8), (9, 4)])
def test_gates_keep_their_precision_where_little_passes(isa: str, number: int, bound: int) -> None:
    x = np.random.default_rng(2).uniform(-12.9, 20, 60_000).astype(np.float32)
    x[:20_000] *= np.float32(2.0) ** np.random.default_rng(3).integers(-60, 0, 20_000).astype(np.float32)
    found, wide = np.empty_like(x), x.astype(np.float64)
    call(isa, "unary_f32", number, x, found, x.size, None)
    exact = wide * sigmoid(wide) if number == 9 else wide * 0.5 * erfc(-wide / math.sqrt(2))
    distance = ulps(found, exact)
    worst = int(np.argmax(distance))
    assert distance[worst] <= bound, (x[worst], found[worst], distance[worst])


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("number", [7, 9])
def test_gates_at_the_ends(isa: str, number: int) -> None:
    x = np.array([np.nan, np.inf, -1e30, -200, -0.0, 0.0, 200, 1e30], np.float32)
    found = np.empty_like(x)
    call(isa, "unary_f32", number, x, found, x.size, None)
    np.testing.assert_array_equal(found, np.array([np.nan, np.inf, 0, 0, 0, 0, 200, 1e30], np.float32))


@pytest.mark.parametrize("isa", ISAS)
def test_pow(isa: str) -> None:
    generator = np.random.default_rng(2)
    x = np.concatenate([np.exp(generator.uniform(-80, 80, 40_000)), 1 + generator.normal(0, 1e-3, 20_000)])
    y = np.concatenate([generator.uniform(-5, 5, 40_000), generator.uniform(-1e4, 1e4, 20_000)])
    edge_x, edge_y = np.meshgrid([*EDGES, 3.0, -2.0, -2.5], [*EDGES, 2.0, 3.0, -3.0, 0.5])
    x = np.concatenate([x, edge_x.ravel()]).astype(np.float32)
    y = np.concatenate([y, edge_y.ravel()]).astype(np.float32)
    found = np.empty_like(x)
    call(isa, "pow_f32", x, y, found, x.size, None)
    with np.errstate(all="ignore"):
        distance = ulps(found, np.power(x.astype(np.float64), y.astype(np.float64)))
    worst = int(np.argmax(distance))
    assert distance[worst] <= 4, (x[worst], y[worst], found[worst])


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("n", [1, 3, 16, 17, 33])
def test_nothing_is_written_behind_the_end(isa: str, n: int) -> None:
    x = np.zeros(n, np.float32)
    found = np.full(n + 40, 7, np.float32)
    call(isa, "unary_f32", 0, x, found, n, None)
    assert (found[:n] == 1).all() and (found[n:] == 7).all()
