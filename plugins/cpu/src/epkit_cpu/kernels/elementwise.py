"""Elementwise operators as NumPy ufuncs into given memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from epkit.backend import FLOATS, INTS, Kernel, kernel

NATIVE = (FLOATS | INTS) - {"bfloat16"}
"""Element types that NumPy's ufuncs compute with themselves."""

Shaped = Sequence[tuple[Sequence[int], np.dtype[Any]]]


def broadcast(*inputs: Any, **_: Any) -> Shaped:
    """Shape and dtype of an elementwise result under NumPy's (and ONNX's) multidirectional broadcasting."""
    first = inputs[0]
    if all(x.shape == first.shape for x in inputs):  # np.broadcast_shapes takes microseconds
        return [(first.shape, first.dtype)]
    return [(np.broadcast_shapes(*(x.shape for x in inputs)), first.dtype)]


def _ufunc(op_type: str, since: int, types: frozenset[str], ufunc: Callable[..., Any]) -> Kernel:
    @kernel(op_type, since=since, types={"T": types}, shapes=broadcast)
    def compute(*inputs: Any, out: tuple[Any, ...]) -> None:
        with np.errstate(all="ignore"):
            ufunc(*inputs, out=out[0])

    return compute


@kernel("Relu", since=1, types={"T": NATIVE}, shapes=broadcast)
def relu(x: Any, *, out: tuple[Any, ...]) -> None:
    """max(x, 0); NaN stays NaN."""
    np.maximum(x, x.dtype.type(0), out=out[0])


@kernel("Sigmoid", since=6, types={"T": frozenset({"float32", "float64"})}, shapes=broadcast)
def sigmoid(x: Any, *, out: tuple[Any, ...]) -> None:
    """1 / (1 + exp(-x)), without overflow: below 0 the same is exp(x) / (1 + exp(x))."""
    e = np.exp(-np.abs(x))
    np.divide(np.where(x < 0, e, x.dtype.type(1)), 1 + e, out=out[0])


KERNELS = (
    _ufunc("Add", 7, NATIVE, np.add),
    _ufunc("Sub", 7, NATIVE, np.subtract),
    _ufunc("Mul", 7, NATIVE, np.multiply),
    _ufunc("Div", 7, FLOATS - {"bfloat16"}, np.divide),
    _ufunc("Sqrt", 6, FLOATS - {"bfloat16"}, np.sqrt),
    _ufunc("Exp", 6, frozenset({"float32", "float64"}), np.exp),
    _ufunc("Tanh", 6, frozenset({"float32", "float64"}), np.tanh),
    _ufunc("Neg", 6, NATIVE, np.negative),
    _ufunc("Abs", 6, NATIVE, np.abs),
    relu,
    sigmoid,
)
