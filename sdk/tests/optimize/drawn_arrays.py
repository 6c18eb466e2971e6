"""Random arrays for instances of rules."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st
from rule_instances import Draw

SIDE = st.integers(1, 5)


def floats(draw: Draw, *shape: int) -> np.ndarray[Any, Any]:
    rng = np.random.default_rng(draw(st.integers(0, 999)))
    return rng.standard_normal(shape).astype(np.float32)


def f32(value: float) -> np.ndarray[Any, Any]:
    return np.asarray(value, np.float32)


def shape_of(draw: Draw, least: int = 1, most: int = 3) -> tuple[int, ...]:
    return tuple(draw(SIDE) for _ in range(draw(st.integers(least, most))))
