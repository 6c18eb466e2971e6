"""Normalisations over the last axis, and with the residual before them."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from ..fuse import Fused, fusion
from ..pattern import Match
from ..shapes import dims_text, fits_dim, is_vector_for, rank_of, same_dim, same_shape

_MEAN = "Any(ReduceMean({0}, axes=axes), ReduceMean({0}, array(axes)), GlobalAveragePool({0}))"
"""tf2onnx writes the mean over the last of three axes as a pooling."""


def _mean(of: str) -> str:
    return _MEAN.format(of)


@fusion(
    "LayerNormalization-17(x, scale, bias) -> y",
    f"""
    d = x - {_mean("x")}
    square = Any(d ** 2.0, d * d)
    root = Sqrt({_mean("square")} + scalar(epsilon))
    n = Any(d / root, d * Reciprocal(root))
    y = Any(n * scale + bias, n * scale)
    """,
    # tf.keras: (x s) + (bias - mean s) with s = scale / root
    f"""
    mean = {_mean("x")}
    d = x - mean
    square = Any(d ** 2.0, d * d)
    s = scale * Reciprocal(Sqrt({_mean("square")} + scalar(epsilon)))
    y = x * s + Any(bias - mean * s, Neg(mean) * s + bias)
    """,
)
def layer_normalization(match: Match) -> Fused | str:
    """LayerNormalization(x, scale, bias) = (x - E x) / √(E (x - E x)² + ε) · scale + bias, over the last axis."""
    rows = {name: row for name in ("scale", "bias") if (row := _as_row(match, name)) is not None}
    problem = _over_last(match, match["x"]) or next(
        filter(None, (_is_vector(match, name, "x") for name in ("scale", "bias") if name not in rows)), None
    )
    return problem or Fused({"axis": -1, "epsilon": match.attributes["epsilon"]}, inputs=rows)


@fusion(
    "SimplifiedLayerNormalization-1(x, scale) -> y",
    f"""
    square = Any(x ** 2.0, x * x)
    root = Sqrt({_mean("square")} + scalar(epsilon))
    y = Any(scale * Any(x / root, x * Reciprocal(root), x * (1.0 / root)), x * (scale * Reciprocal(root)))
    """,
    # narrow floats are normalised as float32
    f"""
    wide = Cast(x, to=1)
    square = Any(wide ** 2.0, wide * wide)
    root = Sqrt({_mean("square")} + scalar(epsilon))
    y = scale * Cast(Any(wide / root, wide * Reciprocal(root), wide * (1.0 / root)), to=narrow)
    """,
)
def simplified_layer_normalization(match: Match) -> dict[str, Any] | str:
    """SimplifiedLayerNormalization(x, scale) = x / √(E x² + ε) · scale, over the last axis."""
    problem = _over_last(match, match["x"]) or _is_vector(match, "scale", "x")
    if problem or match["x"].dtype != match["scale"].dtype:
        return problem or "x and scale have different types"
    return {"axis": -1, "epsilon": match.attributes["epsilon"]}


@fusion(
    "RMSNormalization-23(x, scale) -> y",
    "y = SimplifiedLayerNormalization(x, scale, axis=axis, epsilon=epsilon, stash_type=stash_type)",
)
def rms_normalization(match: Match) -> dict[str, Any] | str:
    """RMSNormalization(x, scale) = SimplifiedLayerNormalization(x, scale): another name, for who knows only that."""
    given = match.attributes
    if given["axis"] in (None, -1) and (problem := _is_vector(match, "scale", "x")):
        return problem
    return {"axis": -1 if given["axis"] is None else given["axis"], "epsilon": given["epsilon"]}


@fusion(
    "ms.SkipLayerNormalization(input, skip, gamma, beta, bias) -> output, mean, inverse, total",
    """
    total = input + skip
    output = Any(LayerNormalization(total, gamma, beta, axis=axis, epsilon=epsilon),
                 LayerNormalization(total, gamma, axis=axis, epsilon=epsilon))
    """,
)
def skip_layer_normalization(match: Match) -> dict[str, Any] | str:
    """SkipLayerNormalization(x, skip, γ, β) = LayerNormalization(x + skip, γ, β); and the sum x + skip."""
    return _after_skip(match)


@fusion(
    "ms.SkipSimplifiedLayerNormalization(input, skip, gamma, bias) -> output, mean, inverse, total",
    """
    total = input + skip
    output = SimplifiedLayerNormalization(total, gamma, axis=axis, epsilon=epsilon)
    """,
    """
    total = input + skip
    output = RMSNormalization(total, gamma, axis=axis, epsilon=epsilon)
    """,
)
def skip_simplified_layer_normalization(match: Match) -> dict[str, Any] | str:
    """SkipSimplifiedLayerNormalization(x, skip, γ) = SimplifiedLayerNormalization(x + skip, γ); and the sum."""
    return _after_skip(match)


def _after_skip(match: Match) -> dict[str, Any] | str:
    total, given, skip = match["total"], match["input"], match["skip"]
    rank = rank_of(total)
    if rank not in (2, 3):
        return f"{dims_text(total)} should have 2 or 3 axes"
    if match.attributes["axis"] not in (-1, rank - 1):
        return f"the normalisation starts at axis {match.attributes['axis']} of {rank}, not at the last"
    if same_shape(skip, total) and not same_shape(given, total):
        match.names["input"], match.names["skip"] = skip, given
    given, skip = match["input"], match["skip"]
    if not same_shape(given, total) or not _fits(skip, total):
        return f"{dims_text(given)} and {dims_text(skip)} do not have one shape for certain"
    return (
        _is_vector(match, "gamma", "total")
        or _is_vector(match, "beta", "total")
        or {"epsilon": match.attributes["epsilon"]}
    )


def _fits(skip: ir.Value, total: ir.Value) -> bool:
    """One shape, or the first axis of the skip is 1 or absent."""
    if same_shape(skip, total):
        return True
    if skip.shape is None or total.shape is None or len(total.shape) != 3 or len(skip.shape) not in (2, 3):
        return False
    dims, whole = list(skip.shape), list(total.shape)
    if len(dims) == 3 and dims.pop(0) != 1:
        return False
    return fits_dim(dims[0], whole[1]) and same_dim(dims[1], whole[2])


def _over_last(match: Match, x: ir.Value) -> str | None:
    if x.dtype == ir.DataType.DOUBLE:
        return f"{x.name} is of float64, and would be normalised as float32"
    rank = rank_of(x)
    if "axes" not in match.attributes:
        return None if rank == 3 else f"{dims_text(x)} should have 3 axes, to be pooled over the last"
    axes = match.attributes["axes"] or ()
    if list(axes) == [-1] or (rank is not None and list(axes) == [rank - 1]):
        return None
    return f"the mean is over the axes {list(axes)} of {x.name}, not over the last"


def _as_row(match: Match, name: str) -> np.ndarray[Any, Any] | None:
    """A constant [1, .., 1, n] as [n], for data of as many axes; None for anything else."""
    array, rank = match.array(name), rank_of(match["x"])
    if array is None or rank is None or not 1 < array.ndim <= rank or array.size != array.shape[-1]:
        return None
    last = match["x"].shape
    return array.reshape(-1) if last is not None and last[-1] == array.size else None


def _is_vector(match: Match, name: str, data: str) -> str | None:
    value, of = match.get(name), match[data]
    if value is None or is_vector_for(value, of):
        return None
    return f"{dims_text(value)} is no vector along the last axis of {dims_text(of)}"


RULES = (layer_normalization, simplified_layer_normalization)
SKIP_RULES = (
    skip_layer_normalization,
    skip_simplified_layer_normalization,
    rms_normalization,
)
