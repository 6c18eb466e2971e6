"""Preparing features (``ai.onnx.ml``): select, join, scale, normalise, impute, threshold."""

from __future__ import annotations

from typing import Any

import numpy as np

from ._bounds import bounded
from ._ml import DOMAIN, as_rows, one_of, to_single
from .operator import op


@op("ArrayFeatureExtractor", domain=DOMAIN)
def array_feature_extractor(xp: Any, x: Any, y: Any) -> Any:
    """Z[..., j] = X[..., Y[j]]; a vector X gives [1, len(Y)]."""
    if x.ndim == 0:
        raise ValueError("X must not be a scalar")
    index = xp.reshape(y, (-1,))
    bad = index[(index < 0) | (index >= x.shape[-1])]
    if bad.shape[0]:
        raise ValueError(f"Y has the index {int(bad[0])}, outside [0, {x.shape[-1]})")
    z = xp.take(x, index, axis=-1)
    return xp.reshape(z, (1, -1)) if x.ndim == 1 else z


@op("Binarizer", domain=DOMAIN)
def binarizer(xp: Any, x: Any, *, threshold: float = 0.0) -> Any:
    """1 where x > threshold, else 0, in X's type."""
    return xp.astype(x > threshold, x.dtype)


@op("FeatureVectorizer", domain=DOMAIN)
def feature_vectorizer(xp: Any, *inputs: Any, inputdimensions: Any = None) -> Any:
    """The inputs side by side as float32, each cut or filled with zeros to its ``inputdimensions``."""
    if inputdimensions is None:
        inputdimensions = [x.shape[-1] if x.ndim else 1 for x in inputs]
    if len(inputs) != len(inputdimensions):
        raise ValueError(f"inputdimensions has {len(inputdimensions)} sizes for {len(inputs)} inputs")
    parts = []
    for x, size in zip(inputs, inputdimensions, strict=True):
        if size < 0:
            raise ValueError(f"inputdimensions must not be negative: {size}")
        rows = to_single(xp, as_rows(xp, x))[:, :size]
        if rows.shape[1] < size:
            bounded((rows.shape[0], size), rows)
            fill = xp.zeros((rows.shape[0], size - rows.shape[1]), dtype=xp.float32)
            rows = xp.concat([rows, fill], axis=1)
        parts.append(rows)
    if len({part.shape[0] for part in parts}) != 1:
        raise ValueError(f"the inputs have different numbers of rows: {[part.shape[0] for part in parts]}")
    return xp.concat(parts, axis=1)


@op("Imputer", domain=DOMAIN)
def imputer(
    xp: Any,
    x: Any,
    *,
    imputed_value_floats: Any = None,
    imputed_value_int64s: Any = None,
    replaced_value_float: float = 0.0,
    replaced_value_int64: int = 0,
) -> Any:
    """X with every element that equals the replaced value (NaN equals NaN) set to the imputed one.

    The imputed values are one, or one for each feature, that is position on the last axis.
    """
    one_of(imputed_value_floats, imputed_value_int64s, "imputed_value_floats and imputed_value_int64s")
    floating = xp.isdtype(x.dtype, "real floating")
    values = imputed_value_floats if floating else imputed_value_int64s
    if not values:
        needed = "imputed_value_floats" if floating else "imputed_value_int64s"
        raise ValueError(f"X is {x.dtype}, which needs {needed}")
    if len(values) not in (1, x.shape[-1] if x.ndim else 1):
        raise ValueError(f"{len(values)} imputed values for X of shape {tuple(x.shape)}")
    if not floating:
        limits = xp.iinfo(x.dtype)
        if min(values) < limits.min or max(values) > limits.max:
            raise ValueError(f"imputed_value_int64s {values} do not all fit into {x.dtype}")
    imputed = xp.asarray(np.asarray(values, dtype=x.dtype))
    if floating and np.isnan(replaced_value_float):
        missing = xp.isnan(x)
    else:
        missing = x == (replaced_value_float if floating else replaced_value_int64)
    return xp.where(missing, imputed if len(values) > 1 else imputed[0], x)


@op("Normalizer", domain=DOMAIN)
def normalizer(xp: Any, x: Any, *, norm: str = "MAX") -> Any:
    """Each row divided by its max(x) (MAX), Σ|x| (L1) or √Σx² (L2), unless that is zero; float32."""
    if norm not in ("MAX", "L1", "L2"):
        raise ValueError(f"norm must be MAX, L1 or L2, not {norm!r}")
    rows = xp.astype(as_rows(xp, x), xp.float64)
    with np.errstate(all="ignore"):
        if norm == "MAX":
            least = xp.full((rows.shape[0], 1), -xp.inf)
            divisor = xp.max(xp.concat([rows, least], axis=1), axis=1, keepdims=True)
        elif norm == "L1":
            divisor = xp.sum(xp.abs(rows), axis=1, keepdims=True)
        else:
            divisor = xp.sqrt(xp.sum(rows * rows, axis=1, keepdims=True))
        result = to_single(xp, rows / xp.where(divisor == 0, 1.0, divisor))
    return xp.reshape(result, x.shape)


@op("Scaler", domain=DOMAIN)
def scaler(xp: Any, x: Any, *, offset: Any = None, scale: Any = None) -> Any:
    """(x - offset) · scale as float32; both are one value, or one for each feature (on the last axis)."""
    result = xp.astype(x, xp.float64)
    for name, values in (("offset", offset), ("scale", scale)):
        if not values:
            continue
        if len(values) not in (1, x.shape[-1] if x.ndim else 1):
            raise ValueError(f"{name} has {len(values)} values for X of shape {tuple(x.shape)}")
        factor = xp.asarray(np.asarray(values if len(values) > 1 else values[0], dtype=np.float64))
        with np.errstate(over="ignore", invalid="ignore"):
            result = result - factor if name == "offset" else result * factor
    return to_single(xp, result)
