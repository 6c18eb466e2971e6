"""Level 2: the values at the edges: not-a-number, infinities, signed zeros, subnormals, integer extremes; among the
terms of sums too.

Where the standard leaves an answer open, there is no case. Subnormal results may be zero, because many devices
flush them and the standard does not speak of it; but they may not be anything else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from typing import Any

import ml_dtypes
import numpy as np
import onnx.defs

from epkit.dtypes import INTS, numpy_dtype

from ..case import CLOSED_FORM, Case
from ..meanings import BINARY, UNARY, words
from ..recipes import Trial, wide
from ..result import Result
from .generated import model_of, run_trial, types_of

FLOATS = ("float16", "bfloat16", "float32", "float64")
OPSET = 21

LIMITS = words(
    """
    Abs Atan Ceil Exp Floor Identity Log Neg Reciprocal Relu Round Sigmoid Softplus Sqrt Tanh Erf
    IsInf IsNaN Elu Selu HardSigmoid
    """
)
"""Functions of one tensor whose limits at plus and minus infinity are beyond doubt."""

SIGNED_ZEROS = ("Identity", "Neg", "Abs", "Sqrt", "Ceil", "Floor", "Round", "Reciprocal")
"""Where IEEE 754 says which zero comes out."""

PAIRS = (
    "Add",
    "Sub",
    "Mul",
    "Div",
    "Max",
    "Min",
    "Equal",
    "Less",
    "Greater",
    "LessOrEqual",
    "GreaterOrEqual",
)
EXTREMES = ("Max", "Min", "Equal", "Less", "Greater", "LessOrEqual", "GreaterOrEqual")
BITS = ("BitwiseAnd", "BitwiseOr", "BitwiseXor")


def _finfo(dtype: str) -> Any:
    return ml_dtypes.finfo(numpy_dtype(dtype))  # type: ignore[no-untyped-call]


def nan(op: str, dtype: str) -> Trial:
    """Not-a-number among numbers: it stays what it is, and spoils nothing else."""
    if op in UNARY:
        x = np.array([1, np.nan, 0.5, np.nan, 1], numpy_dtype(dtype))
        return _unary(op, x)
    a = np.array([1, np.nan, 2, np.nan, 3], numpy_dtype(dtype))
    b = np.array([np.nan, 1, 2, np.nan, 1], numpy_dtype(dtype))
    return _binary(op, a, b)


def infinity(op: str, dtype: str) -> Trial:
    """Both infinities, and the largest finite numbers."""
    largest = float(_finfo(dtype).max)
    if op in UNARY:
        ends = [np.inf] if op in ("Log", "Sqrt") else [np.inf, -np.inf]
        ends += [] if op in ("Exp", "Log", "Sqrt", "Reciprocal", "Softplus") else [largest, -largest]
        return _unary(op, np.array([1, *ends], numpy_dtype(dtype)))
    a = np.array([np.inf, -np.inf, np.inf, 1, 1, -np.inf, largest], numpy_dtype(dtype))
    b = np.array([1, 1, np.inf, np.inf, -np.inf, np.inf, largest], numpy_dtype(dtype))
    return _binary(op, a, b)


def zeros(op: str, dtype: str) -> Trial:
    """Plus and minus zero; the sign counts where IEEE 754 determines it."""
    if op in UNARY:
        return replace(_unary(op, np.array([0.0, -0.0, 1], numpy_dtype(dtype))), signs=True)
    a = np.array([0.0, -0.0, 0.0, -0.0, 1, -1], numpy_dtype(dtype))
    b = np.array([0.0, 0.0, -0.0, -0.0, 0.0, -0.0], numpy_dtype(dtype))
    return replace(_binary(op, a, b), signs=op in ("Add", "Sub", "Mul", "Div"))


def subnormal(op: str, dtype: str) -> Trial:
    """The smallest numbers there are."""
    info = _finfo(dtype)
    least, normal = float(info.smallest_subnormal), float(info.smallest_normal)
    if op in UNARY:
        inputs = [np.array([least, -least, normal / 2, normal, -normal, 1], numpy_dtype(dtype))]
    else:
        a = np.array([least, normal, normal, 1, least], numpy_dtype(dtype))
        inputs = [a, np.array([least, least, normal / 2, least, 1], numpy_dtype(dtype))]
    make = _unary if op in UNARY else _binary
    exact, flushed = make(op, *inputs), make(op, *(_flushed(x, normal) for x in inputs))
    kept, late = exact.want[0], flushed.want[0]
    return replace(exact, also=[_flushed(kept, normal), late, _flushed(late, normal)])


def _flushed(x: Any, normal: float) -> Any:
    """With zero for everything below the smallest normal number."""
    return np.where(np.abs(x) < normal, x.dtype.type(0), x)


def extremes(op: str, dtype: str) -> Trial:
    """The largest and smallest integers, which a detour through floats would change."""
    info = np.iinfo(numpy_dtype(dtype))
    edge = [info.min, info.min + 1, info.max - 1, info.max, 0, 1]
    a = np.array([x for x in edge for _ in edge], numpy_dtype(dtype))
    b = np.array(edge * len(edge), numpy_dtype(dtype))
    return _unary(op, a) if op in UNARY else _binary(op, a, b)


def nan_among_terms(op: str, dtype: str) -> Trial:
    """One not-a-number spoils its own sum, and no other."""
    x = np.arange(12).reshape(3, 4).astype(numpy_dtype(dtype))
    x[1, 2] = np.nan
    return _summed(op, x)


def infinity_among_terms(op: str, dtype: str) -> Trial:
    """An infinity stays one; two of different signs make not-a-number."""
    x = np.arange(12).reshape(3, 4).astype(numpy_dtype(dtype))
    x[0, 1], x[1, 1], x[1, 3] = np.inf, np.inf, -np.inf
    return _summed(op, x)


def masked(op: str, dtype: str) -> Trial:
    """Places at minus infinity have no weight, and numbers far from zero overflow nothing."""
    x = np.array([[0, -np.inf, 1, -np.inf], [200, 201, -200, 0], [-np.inf, -np.inf, -np.inf, 3]])
    x = x.astype(numpy_dtype(dtype))
    shifted = wide(x) - wide(x).max(axis=1, keepdims=True)
    total = np.exp(shifted).sum(axis=1, keepdims=True)
    if op == "Softmax":
        return Trial([x], [np.exp(shifted) / total], {"axis": -1}, terms=4)
    scale = np.where(np.isfinite(shifted), np.abs(shifted), 0) + np.log(total)
    return Trial([x], [shifted - np.log(total)], {"axis": -1}, scale=np.maximum(scale, 1), terms=4)


def _summed(op: str, x: Any) -> Trial:
    with np.errstate(all="ignore"):
        if op == "MatMul":
            ones = np.ones((4, 2), x.dtype)
            return Trial([x, ones], [wide(x) @ wide(ones)], terms=4)
        want = (np.mean if op == "ReduceMean" else np.sum)(wide(x), axis=1)
    return Trial([x, np.array([1])], [want], {"keepdims": 0}, frozenset({1}), terms=4)


def _unary(op: str, x: Any) -> Trial:
    meaning = UNARY[op]
    with np.errstate(all="ignore"):
        want = np.asarray(meaning.function(wide(x), **meaning.attributes))
    return Trial([x], [want.astype(x.dtype) if x.dtype.kind in "iu" else want], meaning.attributes)


def _binary(op: str, a: Any, b: Any) -> Trial:
    with np.errstate(all="ignore"):
        want = np.asarray(BINARY[op].function(wide(a), wide(b)))
    return Trial([a, b], [want.astype(a.dtype) if a.dtype.kind in "iu" and want.dtype.kind != "b" else want])


Make = Callable[[str, str], Trial]


def _wanted() -> Iterator[tuple[str, tuple[str, ...], Make]]:
    """(operator, element types, kind of value)."""
    for name, meaning in UNARY.items():
        if meaning.nan and name not in ("Not", "BitwiseNot"):
            yield name, FLOATS, nan
        if name in LIMITS:
            yield name, FLOATS, infinity
        if name in SIGNED_ZEROS:
            yield name, FLOATS, zeros
        if name in ("Abs", "Neg", "Identity", "Relu", "Sqrt"):
            yield name, FLOATS, subnormal
    for name in PAIRS:
        yield name, FLOATS, nan
        yield name, FLOATS, infinity
        yield name, FLOATS, zeros
        if name in ("Add", "Sub", "Mul", "Max", "Min"):
            yield name, FLOATS, subnormal
    for name in ("MatMul", "ReduceSum", "ReduceMean"):
        yield name, FLOATS, nan_among_terms
        yield name, FLOATS, infinity_among_terms
    for name in ("Softmax", "LogSoftmax"):
        yield name, FLOATS, masked
    for name in (*EXTREMES, *BITS, "Identity", "BitwiseNot"):
        yield name, tuple(sorted(INTS)), extremes


def cases() -> Iterator[Case]:
    """One case for each operator, element type and kind of value, as opset 21 or the operator's first has it."""
    for op, dtypes, make in _wanted():
        schema = onnx.defs.get_schema(op, _opset(op))
        for dtype in sorted(set(dtypes) & set(types_of(schema))):
            name = f"special/{op}/{dtype}/{make.__name__}"
            place = (op, schema.since_version, dtype)
            yield Case(name, 2, "special", _runner(op, dtype, make), *place, oracle=CLOSED_FORM)


@cache
def _opset(op: str) -> int:
    """21, or the first with the operator."""
    first = min(
        s.since_version for s in onnx.defs.get_all_schemas_with_history() if (s.domain, s.name) == ("", op)
    )
    return max(OPSET, first)


def _runner(op: str, dtype: str, make: Make) -> Callable[[str], Result]:
    def run(provider: str) -> Result:
        trial = make(op, dtype)
        return run_trial(model_of(op, _opset(op), trial), trial, op, dtype, provider)

    return run
