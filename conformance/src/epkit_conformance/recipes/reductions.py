"""Recipes for operators that make few numbers of many."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .trial import Trial, axes_of, draw, exactly, recipe, wide

REDUCTIONS: dict[str, Callable[..., Any]] = {
    "ReduceSum": np.sum,
    "ReduceMean": np.mean,
    "ReduceMax": np.max,
    "ReduceMin": np.min,
    "ReduceProd": np.prod,
    "ReduceL1": lambda x, **k: np.sum(np.abs(x), **k),
    "ReduceL2": lambda x, **k: np.sqrt(np.sum(x * x, **k)),
    "ReduceSumSquare": lambda x, **k: np.sum(x * x, **k),
    "ReduceLogSum": lambda x, **k: np.log(np.sum(x, **k)),
    "ReduceLogSumExp": lambda x, **k: np.log(np.sum(np.exp(x), **k)),
}


@recipe(" ".join(REDUCTIONS))
def reduction(op: str, version: int, dtype: str, rng: np.random.Generator) -> Trial:
    """Over a negative and a positive axis, kept."""
    low = 1 if op in ("ReduceLogSum", "ReduceProd") else -3
    high = 2 if op == "ReduceProd" else 3
    x = draw(rng, (3, 7, 5), dtype, low, high)
    axes = (0, 1) if version < 11 else (0, -1)
    more, attributes, fixed = axes_of(version, 13 if op == "ReduceSum" else 18, axes)
    exact = wide(x)
    if x.dtype.kind in "iu":
        exact = x.astype(np.int64 if x.dtype.kind == "i" else np.uint64)
    want = np.asarray(REDUCTIONS[op](exact, axis=axes, keepdims=True))
    scale = np.sum(np.abs(exact), axis=axes, keepdims=True) if op in ("ReduceSum", "ReduceL1") else None
    if op == "ReduceMean":
        scale = np.mean(np.abs(exact), axis=axes, keepdims=True)
    if op in ("ReduceLogSum", "ReduceLogSumExp"):
        scale = np.maximum(np.abs(want), 1)
    if x.dtype.kind in "iu":
        want, scale = (np.trunc(want) if want.dtype.kind == "f" else want).astype(x.dtype), None
    terms = x.size // want.size
    return Trial([x, *more], [want], {**attributes, "keepdims": 1}, fixed, scale, terms)


@recipe("ArgMax ArgMin")
def argument(op: str, version: int, dtype: str, rng: np.random.Generator) -> Trial:
    """The first of several that are equal."""
    x = draw(rng, (4, 9, 3), dtype)
    found = (np.argmax if op == "ArgMax" else np.argmin)(x.astype(np.float64), axis=1)
    return Trial([x], exactly(found), {"axis": 1, "keepdims": 0})


@recipe("CumSum")
def cumsum(op: str, version: int, dtype: str, rng: np.random.Generator) -> Trial:
    """Along a negative axis."""
    x = draw(rng, (4, 9), dtype, 0, 4)
    want = np.cumsum(wide(x), axis=-1).astype(wide(x).dtype)
    return Trial([x, np.array(-1)], [want], fixed=frozenset({1}), scale=None, terms=9)
