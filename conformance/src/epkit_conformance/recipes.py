"""Inputs, attributes and exact results for operators of each family: the material of the generated cases.

A recipe takes an operator, its version, an element type and a generator of random numbers. Results are computed
in long double where the type is float64, else in double, by formulas of their own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from epkit.dtypes import numpy_dtype

from .meanings import BINARY, UNARY

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Trial:
    """One node with its data.

    Attributes:
        inputs: arrays; those in ``fixed`` become constants of the model.
        want: exact outputs, in a wide type (or integers and booleans as they must be).
        scale: where the ULP is taken, if not at ``want``.
        terms: how many were summed for one element.
        also: other results of the first output that are as right, element by element.
        signs: the sign of a zero counts.
        result: the element type of the outputs, where it is not that of the case.
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


Recipe = Callable[[str, int, str, np.random.Generator], Trial]
RECIPES: dict[str, Recipe] = {}


def recipe(names: str) -> Callable[[Recipe], Recipe]:
    """Declare the recipe of some operators."""

    def declare(function: Recipe) -> Recipe:
        RECIPES.update(dict.fromkeys(names.split(), function))
        return function

    return declare


def wide(x: Array) -> Array:
    """An array in the oracle's precision; integers and booleans stay what they are."""
    if x.dtype.kind in "biu":
        return x
    return x.astype(np.longdouble if x.dtype == np.float64 else np.float64)


def draw(
    rng: np.random.Generator, shape: Sequence[int], dtype: str, low: float = -4, high: float = 4
) -> Array:
    """Random values of an element type."""
    kind = numpy_dtype(dtype)
    if dtype == "bool":
        return rng.random(shape) < 0.5
    if kind.kind in "iu":
        low = max(low, 0) if kind.kind == "u" else low
        return rng.integers(math.ceil(low), math.floor(high) + 1, shape).astype(kind)
    return rng.uniform(low, high, shape).astype(kind)


def _exact(*arrays: Any) -> list[Array]:
    return [np.asarray(array) for array in arrays]


# ---- elementwise ----


@recipe(" ".join(UNARY))
def unary(op: str, version: int, dtype: str, rng: np.random.Generator) -> Trial:
    """One tensor, odd sizes."""
    meaning = UNARY[op]
    x = draw(rng, (3, 67), dtype, meaning.low, meaning.high)
    with np.errstate(all="ignore"):
        want = np.asarray(meaning.function(wide(x), **meaning.attributes))
    rounded = {"Gelu": np.abs(wide(x)), "Mish": np.abs(wide(x))}
    return Trial([x], [_kept(want, x)], meaning.attributes, scale=rounded.get(op))


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
    return Trial([condition, a, b], _exact(np.where(condition, a, b)))


# ---- reductions ----


def _axes(version: int, since: int, axes: Sequence[int]) -> tuple[list[Any], dict[str, Any], frozenset[int]]:
    """Axes as an attribute before a version, as a constant input from it on."""
    if version < since:
        return [], {"axes": list(axes)}, frozenset()
    return [np.array(axes)], {}, frozenset({1})


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
    more, attributes, fixed = _axes(version, 13 if op == "ReduceSum" else 18, axes)
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
    return Trial([x], _exact(found), {"axis": 1, "keepdims": 0})


@recipe("CumSum")
def cumsum(op: str, version: int, dtype: str, rng: np.random.Generator) -> Trial:
    """Along a negative axis."""
    x = draw(rng, (4, 9), dtype, 0, 4)
    want = np.cumsum(wide(x), axis=-1).astype(wide(x).dtype)
    return Trial([x, np.array(-1)], [want], fixed=frozenset({1}), scale=None, terms=9)


# ---- products ----


@recipe("MatMul")
def matmul(op: str, version: int, dtype: str, rng: np.random.Generator) -> Trial:
    """Batches that broadcast, odd sizes."""
    a, b = draw(rng, (2, 1, 5, 19), dtype), draw(rng, (3, 19, 7), dtype)
    scale = np.matmul(np.abs(wide(a)), np.abs(wide(b))) if a.dtype.kind not in "iu" else None
    return Trial([a, b], [np.matmul(wide(a), wide(b)).astype(wide(a).dtype)], scale=scale, terms=19)


@recipe("Gemm")
def gemm(op: str, version: int, dtype: str, rng: np.random.Generator) -> Trial:
    """Both transposed, with factors and a row to add."""
    a, b = draw(rng, (19, 5), dtype), draw(rng, (7, 19), dtype)
    c = draw(rng, (5, 7) if version < 7 else (7,), dtype)
    attributes: dict[str, Any] = {"transA": 1, "transB": 1}
    if a.dtype.kind not in "iu":
        attributes |= {"alpha": 0.5, "beta": 2.0}
    alpha, beta = attributes.get("alpha", 1), attributes.get("beta", 1)
    exact = [wide(x) for x in (a, b, c)]
    want = (alpha * (exact[0].T @ exact[1].T) + beta * exact[2]).astype(exact[0].dtype)
    scale = alpha * (np.abs(exact[0]).T @ np.abs(exact[1]).T) + beta * np.abs(exact[2])
    return Trial([a, b, c], [want], attributes, scale=None if a.dtype.kind in "iu" else scale, terms=22)


@recipe("Conv")
def conv(op: str, version: int, dtype: str, rng: np.random.Generator) -> Trial:
    """Groups, strides, dilations, and pads that differ on each side."""
    x, w, b = draw(rng, (2, 4, 9, 8), dtype), draw(rng, (6, 2, 3, 2), dtype), draw(rng, (6,), dtype)

    def exact(x: Array, w: Array, b: Array) -> Array:
        padded = np.pad(x, ((0, 0), (0, 0), (1, 2), (0, 1)))
        windows = sliding_window_view(padded, (3, 3), axis=(2, 3))[:, :, ::2, ::1, :, ::2]
        halves = [
            np.einsum("nchwij,ocij->nohw", windows[:, 2 * g : 2 * g + 2], w[3 * g : 3 * g + 3])
            for g in (0, 1)
        ]
        return np.concatenate(halves, 1) + b[:, None, None]

    arrays = [wide(value) for value in (x, w, b)]
    attributes = {"group": 2, "strides": [2, 1], "pads": [1, 0, 2, 1], "dilations": [1, 2]}
    return Trial([x, w, b], [exact(*arrays)], attributes, scale=exact(*map(np.abs, arrays)), terms=13)


@recipe("AveragePool MaxPool")
def pool(op: str, version: int, dtype: str, rng: np.random.Generator) -> Trial:
    """Windows that overlap, and do not reach the edge; pads for the maximum."""
    x = draw(rng, (2, 3, 7, 8), dtype)
    attributes: dict[str, Any] = {"kernel_shape": [3, 2], "strides": [2, 1]}
    exact = wide(x)
    if op == "MaxPool":
        attributes["pads"] = [1, 0, 1, 1]
        lowest = np.iinfo(x.dtype).min if x.dtype.kind in "iu" else -np.inf
        exact = np.pad(exact, ((0, 0), (0, 0), (1, 1), (0, 1)), constant_values=lowest)
    windows = sliding_window_view(exact, (3, 2), axis=(2, 3))[:, :, ::2]
    if op == "MaxPool":
        return Trial([x], [windows.max(axis=(4, 5))], attributes)
    return Trial(
        [x], [windows.mean(axis=(4, 5))], attributes, scale=np.abs(windows).mean(axis=(4, 5)), terms=6
    )


@recipe("GlobalAveragePool GlobalMaxPool")
def global_pool(op: str, version: int, dtype: str, rng: np.random.Generator) -> Trial:
    """Over two spatial axes."""
    x = draw(rng, (2, 3, 5, 7), dtype)
    if op == "GlobalMaxPool":
        return Trial([x], [wide(x).max(axis=(2, 3), keepdims=True)])
    scale = np.abs(wide(x)).mean(axis=(2, 3), keepdims=True)
    return Trial([x], [wide(x).mean(axis=(2, 3), keepdims=True)], scale=scale, terms=35)


# ---- normalisations ----


@recipe("Softmax LogSoftmax Hardmax")
def softmax(op: str, version: int, dtype: str, rng: np.random.Generator) -> Trial:
    """Over the last axis of a matrix, where all versions mean the same; one row is far from zero."""
    x = draw(rng, (5, 11), dtype)
    x[2] += x.dtype.type(50)
    axis = {"axis": 1 if version < 11 else -1}
    if op == "Hardmax":
        return Trial([x], [np.eye(11)[np.argmax(wide(x), axis=1)].astype(wide(x).dtype)], axis)
    shifted = wide(x) - wide(x).max(axis=1, keepdims=True)
    total = np.exp(shifted).sum(axis=1, keepdims=True)
    if op == "Softmax":
        return Trial([x], [np.exp(shifted) / total], axis, terms=11)
    return Trial([x], [shifted - np.log(total)], axis, scale=np.abs(shifted) + np.log(total), terms=11)


@recipe("LayerNormalization")
def layer_normalization(op: str, version: int, dtype: str, rng: np.random.Generator) -> Trial:
    """Over the last two axes."""
    x, s, b = draw(rng, (4, 3, 5), dtype), draw(rng, (3, 5), dtype), draw(rng, (3, 5), dtype)
    want, scale = _normalised(wide(x), (1, 2), wide(s), wide(b))
    return Trial([x, s, b], [want], {"axis": -2, "epsilon": 1e-3}, scale=scale, terms=15)


@recipe("InstanceNormalization")
def instance_normalization(op: str, version: int, dtype: str, rng: np.random.Generator) -> Trial:
    """Over the spatial axes."""
    x, s, b = draw(rng, (2, 3, 4, 5), dtype), draw(rng, (3,), dtype), draw(rng, (3,), dtype)
    want, scale = _normalised(wide(x), (2, 3), wide(s)[:, None, None], wide(b)[:, None, None])
    return Trial([x, s, b], [want], {"epsilon": 1e-3}, scale=scale, terms=20)


def _normalised(x: Array, axes: tuple[int, ...], scale: Array, bias: Array) -> tuple[Array, Array]:
    """The result, and the magnitude of its terms."""
    mean, variance = x.mean(axis=axes, keepdims=True), x.var(axis=axes, keepdims=True)
    root = np.sqrt(variance + np.float32(1e-3))
    size = (np.abs(x) + np.abs(x).mean(axis=axes, keepdims=True)) / root
    return (x - mean) / root * scale + bias, size * np.abs(scale) + np.abs(bias)


@recipe("BatchNormalization")
def batch_normalization(op: str, version: int, dtype: str, rng: np.random.Generator) -> Trial:
    """At inference."""
    x = draw(rng, (2, 3, 5), dtype)
    s, b, m = (draw(rng, (3,), dtype) for _ in range(3))
    v = draw(rng, (3,), dtype, 0.5, 2)
    attributes: dict[str, Any] = {"epsilon": 1e-3}
    if version < 7:
        attributes["is_test"] = 1
    if version < 6:
        attributes["consumed_inputs"] = [0, 0, 0, 1, 1]
    es, eb, em, ev = (wide(value)[:, None] for value in (s, b, m, v))
    root = np.sqrt(ev + np.float32(1e-3))
    scale = (np.abs(wide(x)) + np.abs(em)) / root * np.abs(es) + np.abs(eb)
    return Trial([x, s, b, m, v], [(wide(x) - em) / root * es + eb], attributes, scale=scale)


# ---- shapes and indices ----


@recipe("Transpose")
def transpose(op: str, version: int, dtype: str, rng: np.random.Generator) -> Trial:
    """A cycle of three axes."""
    x = draw(rng, (3, 5, 7), dtype)
    return Trial([x], _exact(np.transpose(x, (2, 0, 1))), {"perm": [2, 0, 1]})


@recipe("Reshape")
def reshape(op: str, version: int, dtype: str, rng: np.random.Generator) -> Trial:
    """With -1 and 0."""
    x = draw(rng, (3, 4, 5), dtype)
    if version < 5:
        return Trial([x], _exact(x.reshape(3, 20)), {"shape": [0, -1]})
    return Trial([x, np.array([0, -1])], _exact(x.reshape(3, 20)), fixed=frozenset({1}))


@recipe("Flatten")
def flatten(op: str, version: int, dtype: str, rng: np.random.Generator) -> Trial:
    """In the middle; from the end where the version knows that."""
    x = draw(rng, (2, 3, 4, 5), dtype)
    return Trial([x], _exact(x.reshape(6, 20)), {"axis": 2 if version < 11 else -2})


@recipe("Squeeze Unsqueeze")
def squeeze(op: str, version: int, dtype: str, rng: np.random.Generator) -> Trial:
    """Two axes, one of them negative where the version knows that."""
    axes = (0, 2) if version < 11 else (0, -2)
    full, flat = draw(rng, (1, 5, 1, 3), dtype), (5, 3)
    more, attributes, fixed = _axes(version, 13, axes)
    if op == "Squeeze":
        return Trial([full, *more], _exact(full.reshape(flat)), attributes, fixed)
    return Trial([full.reshape(flat), *more], _exact(full), attributes, fixed)


@recipe("Concat")
def concat(op: str, version: int, dtype: str, rng: np.random.Generator) -> Trial:
    """Three tensors, one of them empty, along the last axis."""
    parts = [draw(rng, (3, size), dtype) for size in (2, 0, 5)]
    return Trial(parts, _exact(np.concatenate(parts, 1)), {"axis": 1 if version < 11 else -1})


@recipe("Split")
def split(op: str, version: int, dtype: str, rng: np.random.Generator) -> Trial:
    """Into unequal parts."""
    x = draw(rng, (3, 7), dtype)
    parts = [x[:, :2], x[:, 2:]]
    if version < 2:
        return Trial([x, np.array([2, 5], x.dtype)], _exact(*parts), {"axis": 1}, frozenset({1}))
    if version < 13:
        return Trial([x], _exact(*parts), {"axis": 1, "split": [2, 5]})
    return Trial([x, np.array([2, 5])], _exact(*parts), {"axis": 1}, frozenset({1}))


@recipe("Slice")
def slice_(op: str, version: int, dtype: str, rng: np.random.Generator) -> Trial:
    """From the end, and backwards where the version has steps."""
    x = draw(rng, (5, 8), dtype)
    if version < 10:
        return Trial([x], _exact(x[1:4, -3:]), {"axes": [0, 1], "starts": [1, -3], "ends": [4, 100]})
    numbers = [np.array(value) for value in ([1, -1], [4, -9], [0, 1], [1, -3])]
    return Trial([x, *numbers], _exact(x[1:4, ::-3]), fixed=frozenset({1, 2, 3, 4}))


@recipe("Pad")
def pad(op: str, version: int, dtype: str, rng: np.random.Generator) -> Trial:
    """Different widths on each side, and a value."""
    x = draw(rng, (3, 4), dtype)
    value = x.dtype.type(1)
    want = np.pad(x, ((1, 2), (0, 3)), constant_values=value)
    if version < 11:
        name = "paddings" if version < 2 else "pads"
        return Trial([x], _exact(want), {name: [1, 0, 2, 3], "value": 1.0, "mode": "constant"})
    return Trial([x, np.array([1, 0, 2, 3]), np.asarray(value)], _exact(want), fixed=frozenset({1, 2}))


@recipe("Tile")
def tile(op: str, version: int, dtype: str, rng: np.random.Generator) -> Trial:
    """Repeats of two and three."""
    x = draw(rng, (2, 3), dtype)
    if version < 6:
        more = [np.array(2, x.dtype), np.array(1, x.dtype)]
        return Trial([x, *more], _exact(np.tile(x, (1, 2))), fixed=frozenset({1, 2}))
    return Trial([x, np.array([2, 3])], _exact(np.tile(x, (2, 3))), fixed=frozenset({1}))


@recipe("Expand")
def expand(op: str, version: int, dtype: str, rng: np.random.Generator) -> Trial:
    """In both directions."""
    x = draw(rng, (3, 1), dtype)
    return Trial([x, np.array([2, 1, 4])], _exact(np.broadcast_to(x, (2, 3, 4))), fixed=frozenset({1}))


@recipe("Gather")
def gather(op: str, version: int, dtype: str, rng: np.random.Generator) -> Trial:
    """Along axis 1, from the end where the version knows that."""
    x = draw(rng, (3, 5, 2), dtype)
    indices = np.array([[0, 4], [3, 1]]) if version < 11 else np.array([[0, -1], [-2, 1]])
    return Trial([x, indices], _exact(np.take(x, indices, axis=1)), {"axis": 1})


@recipe("GatherElements")
def gather_elements(op: str, version: int, dtype: str, rng: np.random.Generator) -> Trial:
    """Along axis 0, from the end too."""
    x = draw(rng, (4, 3), dtype)
    indices = np.array([[0, -1, 2], [3, 1, -4]])
    return Trial([x, indices], _exact(np.take_along_axis(x, indices, axis=0)), {"axis": 0})


@recipe("ScatterElements")
def scatter_elements(op: str, version: int, dtype: str, rng: np.random.Generator) -> Trial:
    """Distinct places along axis 1."""
    x, updates = draw(rng, (3, 5), dtype), draw(rng, (3, 2), dtype)
    indices = np.array([[0, 4], [1, -2], [2, 0]])
    want = x.copy()
    np.put_along_axis(want, indices, updates, axis=1)
    return Trial([x, indices, updates], _exact(want), {"axis": 1})


@recipe("Trilu")
def trilu(op: str, version: int, dtype: str, rng: np.random.Generator) -> Trial:
    """The lower half of each of two matrices."""
    x = draw(rng, (2, 4, 5), dtype)
    return Trial([x, np.array(-1)], _exact(np.tril(x, -1)), {"upper": 0}, frozenset({1}))


@recipe("DepthToSpace SpaceToDepth")
def depth(op: str, version: int, dtype: str, rng: np.random.Generator) -> Trial:
    """Blocks of two."""
    deep = draw(rng, (2, 8, 3, 5), dtype)
    blocks = deep.reshape(2, 2, 2, 2, 3, 5)
    flat = np.ascontiguousarray(blocks.transpose(0, 3, 4, 1, 5, 2)).reshape(2, 2, 6, 10)
    pair = (deep, flat) if op == "DepthToSpace" else (flat, deep)
    return Trial([pair[0]], _exact(pair[1]), {"blocksize": 2})
