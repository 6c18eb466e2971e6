"""What the ``ai.onnx.ml`` families share: rows, class labels, score transforms and prepared attributes."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, wraps
from typing import Any

import numpy as np

DOMAIN = "ai.onnx.ml"

TRANSFORMS = ("NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO", "PROBIT")
"""The post transforms; the position is the code that TreeEnsemble 5 uses."""


class _SameObjects:
    """Arguments that compare by identity (numbers and text by value): the key of an attribute costs nothing
    however long it is.

    The key keeps its arguments alive, so that an id in the cache is never one of another object.
    """

    __slots__ = ("arguments", "_tokens")

    def __init__(self, arguments: tuple[Any, ...]) -> None:
        self.arguments = arguments
        self._tokens = tuple((a,) if isinstance(a, int | float | str) else id(a) for a in arguments)

    def __hash__(self) -> int:
        return hash(self._tokens)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _SameObjects) and self._tokens == other._tokens


def prepared_once(prepare: Callable[..., Any]) -> Callable[..., Any]:
    """Keep the last 16 results of ``prepare``, found by the identity of its arguments.

    A node's attributes are the same objects at every run, so what is made of them (arrays, lookup tables)
    is made at the first.
    """

    @lru_cache(maxsize=16)
    def cached(key: _SameObjects) -> Any:
        return prepare(*key.arguments)

    @wraps(prepare)
    def call(*arguments: Any) -> Any:
        return cached(_SameObjects(arguments))

    return call


def host(x: Any) -> Any:
    """The array in host memory, as NumPy's."""
    return np.asarray(x.get() if hasattr(x, "get") else x)


def as_rows(xp: Any, x: Any) -> Any:
    """X as [N, F]; a vector is one row."""
    if x.ndim not in (1, 2):
        raise ValueError(f"X must have the shape [N, F] or [F], not {tuple(x.shape)}")
    return xp.reshape(x, (1, -1)) if x.ndim == 1 else x


def as_float(xp: Any, x: Any) -> Any:
    """Doubles as they are, everything else as float32."""
    return x if x.dtype == np.float64 else xp.astype(x, xp.float32, copy=False)


def to_single(xp: Any, x: Any) -> Any:
    """x as float32, the type of all scores."""
    with np.errstate(over="ignore"):
        return xp.astype(x, xp.float32)


def one_of(first: Any, second: Any, names: str) -> Any:
    """The one of two attributes that is given (and not empty)."""
    if bool(len(first or ())) == bool(len(second or ())):
        raise ValueError(f"exactly one of {names} must be given")
    return first or second


@prepared_once
def class_labels(integers: Any, strings: Any) -> Any:
    """The class labels as an array of int64, or of str objects."""
    labels = one_of(integers, strings, "the attributes classlabels_int(64)s and classlabels_strings")
    return np.asarray(labels, dtype=object if labels is strings else np.int64)


def pick(xp: Any, labels: Any, index: Any) -> Any:
    """labels[index]; strings stay on the host."""
    if labels.dtype == object:
        return labels[host(index)]
    return xp.take(xp.asarray(labels), index)


def logistic(xp: Any, x: Any) -> Any:
    """1 / (1 + exp(-x)), with no overflow on either side."""
    tail = xp.exp(-xp.abs(x))
    return xp.where(x < 0, tail, xp.ones_like(tail)) / (1 + tail)


def probit(xp: Any, x: Any) -> Any:
    """√2 erf⁻¹(2x - 1) in the closed approximation (Winitzki's, a = 0.147) that all runtimes of ONNX use."""
    y = 2 * xp.astype(x, xp.float64) - 1
    log = xp.log((1 - y) * (1 + y))
    half = 2 / (3.14159 * 0.147) + log / 2
    size = xp.sqrt(2 * (xp.sqrt(half * half - log / 0.147) - half))
    return xp.astype(xp.where(y < 0, -size, size), x.dtype)


def _softmax(xp: Any, x: Any) -> Any:
    e = xp.exp(x - xp.max(x, axis=1, keepdims=True))
    return e / xp.sum(e, axis=1, keepdims=True)


def _softmax_zero(xp: Any, x: Any) -> Any:
    """Softmax over the scores that are not zero; zeros stay zero."""
    top = xp.max(x, axis=1, keepdims=True)
    e = xp.where(xp.abs(x) > 1e-7, xp.exp(x - top), x * xp.exp(-top))
    return e / xp.sum(e, axis=1, keepdims=True)


_BY_NAME: dict[str, Callable[[Any, Any], Any]] = {
    "NONE": lambda xp, x: x,
    "SOFTMAX": _softmax,
    "LOGISTIC": logistic,
    "SOFTMAX_ZERO": _softmax_zero,
    "PROBIT": probit,
}


def _named(kind: str) -> Callable[[Any, Any], Any]:
    if kind not in _BY_NAME:
        raise ValueError(f"post_transform must be one of {', '.join(TRANSFORMS)}, not {kind!r}")
    return _BY_NAME[kind]


def transform(xp: Any, scores: Any, kind: str) -> Any:
    """The post transform of scores [N, E]; of a single score only PROBIT, as onnxruntime has it."""
    function = _named(kind)
    if scores.shape[1] == 1 and kind != "PROBIT":
        return scores
    with np.errstate(all="ignore"):
        return function(xp, scores)


def two_scores(xp: Any, score: Any, kind: str, *, complement: bool) -> Any:
    """[N, 2] of the single score s of a binary classifier: (1 - s, s) if ``complement``, else (-s, s).

    LOGISTIC and PROBIT are applied; the softmaxes are not, as onnxruntime has it.
    """
    _named(kind)
    with np.errstate(all="ignore"):
        if kind == "LOGISTIC":
            return xp.stack([logistic(xp, -score), logistic(xp, score)], axis=1)
        if kind == "PROBIT":
            return probit(xp, xp.stack([1 - score, score], axis=1))
        return xp.stack([1 - score if complement else -score, score], axis=1)
