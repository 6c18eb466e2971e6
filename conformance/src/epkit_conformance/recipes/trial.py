"""What a recipe makes: one node, its inputs, and what must come out."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from epkit.dtypes import numpy_dtype

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Maybe:
    """An input of an optional type, which holds this value."""

    value: Any


@dataclass(frozen=True)
class Trial:
    """One node with its data.

    Attributes:
        inputs: arrays; those in ``fixed`` become constants of the model. A list is a sequence of tensors, a
            :class:`Maybe` an optional, None an input that is left out.
        want: exact outputs, in a wide type (or integers, booleans, texts and lists as they must be).
        scale: where the ULP is taken, if not at ``want``; a tuple has one for each output.
        terms: how many were summed for one element.
        also: other results of the first output that are as right, element by element.
        signs: the sign of a zero counts.
        result: the element type of the outputs, where it is not that of the case.
        outer: inputs of the graph that the node's bodies read, by name.
    """

    inputs: Sequence[Any]
    want: Sequence[Any]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    fixed: frozenset[int] = frozenset()
    scale: Any = None
    terms: int = 1
    also: Sequence[Array] = ()
    signs: bool = False
    result: str = ""
    outer: Mapping[str, Array] = field(default_factory=dict)


Recipe = Callable[[str, int, str, np.random.Generator], Trial]
RECIPES: dict[str, Recipe] = {}


def recipe(names: str) -> Callable[[Recipe], Recipe]:
    """Declare the recipe of some operators."""

    def declare(function: Recipe) -> Recipe:
        RECIPES.update(dict.fromkeys(names.split(), function))
        return function

    return declare


def wide(x: Array) -> Array:
    """An array in the oracle's precision; what is no float stays what it is."""
    if x.dtype.kind in "biucO" or x.dtype.name in NARROW_INTEGERS:
        return x
    return x.astype(np.longdouble if x.dtype == np.float64 else np.float64)


def is_float(dtype: str) -> bool:
    """True for the types whose results are measured in ULP."""
    return "float" in dtype


NARROW_INTEGERS = {"int2": (-2, 1), "uint2": (0, 3), "int4": (-8, 7), "uint4": (0, 15)}
"""Their least and their largest numbers; NumPy has no kind for them."""

WORDS = ("alpha", "Beta", "", "gamma delta", "ε", "beta", "Z")
"""What texts are drawn from: empty, with a blank, beyond ASCII, in both cases."""


def draw(
    rng: np.random.Generator, shape: Sequence[int], dtype: str, low: float = -4, high: float = 4
) -> Array:
    """Random values of an element type."""
    kind = numpy_dtype(dtype)
    if dtype == "bool":
        return rng.random(shape) < 0.5
    if dtype == "string":
        return np.array(WORDS, object)[rng.integers(0, len(WORDS), shape)]
    if dtype == "float8_e8m0fnu":  # powers of two, and no sign
        return (2.0 ** rng.integers(-3, 4, shape)).astype(kind)
    if dtype in NARROW_INTEGERS:
        least, most = NARROW_INTEGERS[dtype]
        return rng.integers(max(math.ceil(low), least), min(math.floor(high), most) + 1, shape).astype(kind)
    if kind.kind in "iu":
        low = max(low, 0) if kind.kind == "u" else low
        return rng.integers(math.ceil(low), math.floor(high) + 1, shape).astype(kind)
    if kind.kind == "c":
        return (rng.uniform(low, high, shape) + 1j * rng.uniform(low, high, shape)).astype(kind)
    return rng.uniform(low, high, shape).astype(kind)


def exactly(*arrays: Any) -> list[Array]:
    """Results of operators that move elements: they are what they were."""
    return [np.asarray(array) for array in arrays]


def axes_of(
    version: int, since: int, axes: Sequence[int]
) -> tuple[list[Any], dict[str, Any], frozenset[int]]:
    """Axes as an attribute before a version, as a constant input from it on."""
    if version < since:
        return [], {"axes": list(axes)}, frozenset()
    return [np.array(axes)], {}, frozenset({1})
