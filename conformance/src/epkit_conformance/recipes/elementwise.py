"""Recipes for operators that look at each element by itself."""

from __future__ import annotations

import numpy as np

from epkit.dtypes import numpy_dtype

from ..meanings import BINARY, UNARY
from .trial import Array, Trial, draw, exactly, recipe, wide


@recipe(" ".join(UNARY))
def unary(op: str, version: int, dtype: str, rng: np.random.Generator) -> Trial:
    """One tensor, odd sizes."""
    meaning = UNARY[op]
    x = draw(rng, (3, 67), dtype, meaning.low, meaning.high)
    with np.errstate(all="ignore"):
        want = np.asarray(meaning.function(wide(x), **meaning.attributes))
    scale = np.abs(wide(x)) if op in ("Gelu", "Mish") else None
    return Trial([x], [_kept(want, x)], meaning.attributes, scale=scale)


def _kept(want: Array, x: Array) -> Array:
    """Integers stay of their own type; floats stay wide."""
    return want.astype(x.dtype) if x.dtype.kind in "iu" and want.dtype.kind != "b" else want


@recipe(" ".join(BINARY))
def binary(op: str, version: int, dtype: str, rng: np.random.Generator) -> Trial:
    """Two tensors that broadcast, where the version has that."""
    meaning = BINARY[op]
    attributes = dict(meaning.attributes)
    if op == "Mod" and "float" in dtype:
        attributes["fmod"] = 1
    a = draw(rng, (3, 1, 17), dtype, -9, 9)
    b = draw(rng, (5, 17), dtype, 1 if meaning.positive else -9, 3 if op in ("Pow", "BitShift") else 9)
    if op == "Pow":
        a = draw(rng, (3, 1, 17), dtype, 1, 4)
    if op == "PRelu":  # broadcasts one way; at first, one slope for each channel
        a, b = (np.resize(a, (3, 5, 17)), b) if version >= 7 else (a.reshape(3, 17), b[0])
    elif not _broadcasts(op, version):
        a, b = a.reshape(3, 17), b[:3]
    if op == "Pow" and version == 13 and dtype == "bfloat16":
        b = b.astype(np.float32)  # exponents had no such type yet
    options = {"fmod": attributes["fmod"]} if "fmod" in attributes else {}
    with np.errstate(all="ignore"):
        want = np.asarray(meaning.function(wide(a), wide(b), **options))
    scale = np.abs(wide(a)) + np.abs(wide(b)) if op in ("Mean", "Sum") and a.dtype.kind not in "biu" else None
    return Trial([a, b], [_kept(want, a)], attributes, scale=scale, terms=2)


def _broadcasts(op: str, version: int) -> bool:
    return version >= (8 if op in ("Max", "Min", "Mean", "Sum") else 7)


@recipe("Clip")
def clip(op: str, version: int, dtype: str, rng: np.random.Generator) -> Trial:
    """Limits as attributes, later as inputs."""
    x = draw(rng, (3, 33), dtype)
    low, high = (numpy_dtype(dtype).type(value) for value in (1, 3))
    want = np.clip(wide(x), 1, 3).astype(wide(x).dtype)
    if version < 11:
        return Trial([x], [want], {"min": 1.0, "max": 3.0})
    return Trial([x, np.asarray(low), np.asarray(high)], [want], fixed=frozenset({1, 2}))


@recipe("Where")
def where(op: str, version: int, dtype: str, rng: np.random.Generator) -> Trial:
    """A condition that broadcasts."""
    condition = draw(rng, (7, 1), "bool")
    a, b = draw(rng, (7, 5), dtype), draw(rng, (5,), dtype)
    return Trial([condition, a, b], exactly(np.where(condition, a, b)))
