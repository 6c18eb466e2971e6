"""Encoding (``ai.onnx.ml``): labels and categories to numbers and back, maps to tensors and back."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from ._bounds import bounded
from ._ml import DOMAIN, host, one_of, prepared_once
from .operator import op


@prepared_once
def _dictionary(keys: Any, values: Any, first_wins: bool) -> dict[Any, Any]:
    """key -> value; all NaN keys are the key None."""
    if len(keys) != len(values):
        raise ValueError(f"{len(keys)} keys for {len(values)} values")
    pairs = [(None if key != key else key, value) for key, value in zip(keys, values, strict=True)]
    return dict(reversed(pairs) if first_wins else pairs)


@prepared_once
def _sorted_keys(keys: Any, first_wins: bool, dtype: Any) -> tuple[Any, Any]:
    """The different keys in rising order, NaN last, and the position of each among ``keys``."""
    array = np.asarray(keys, dtype=dtype)
    if first_wins:
        return np.unique(array, return_index=True)
    ordered, index = np.unique(array[::-1], return_index=True)
    return ordered, len(array) - 1 - index


def _look_up(xp: Any, x: Any, keys: Any, values: Any, default: Any, dtype: Any, first_wins: bool) -> Any:
    """values[i] for each element that equals keys[i], else the default, as an array of dtype.

    Text goes through a dictionary, numbers through binary search.
    """
    if len(keys) != len(values):
        raise ValueError(f"{len(keys)} keys for {len(values)} values")
    if x.dtype == object or not len(keys):
        table = _dictionary(keys, values, first_wins)
        found = [table.get(key, default) for key in host(x).ravel().tolist()]
        return _from_host(xp, np.array([*found, default], dtype=dtype)[:-1].reshape(x.shape))
    ordered, position = _sorted_keys(keys, first_wins, x.dtype)
    at = np.minimum(np.searchsorted(ordered, host(x)), len(ordered) - 1)
    hit = (ordered[at] == host(x)) | ((host(x) != host(x)) & (ordered[at] != ordered[at]))
    choices = np.array([*values, default], dtype=dtype)
    return _from_host(xp, choices[np.where(hit, position[at], len(values))])


def _from_host(xp: Any, x: Any) -> Any:
    return x if x.dtype == object else xp.asarray(x)


@prepared_once
def _positions(values: Any) -> Any:
    return range(len(values))


@prepared_once
def _plain(tensor: Any) -> Any:
    """A tensor attribute as a tuple of Python values, text decoded."""
    values = np.asarray(tensor).ravel().tolist()
    return tuple(value.decode() if isinstance(value, bytes) else value for value in values)


@op("LabelEncoder", domain=DOMAIN, since=1)
def label_encoder_1(
    xp: Any, x: Any, *, classes_strings: Any = (), default_int64: int = -1, default_string: str = "_Unused"
) -> Any:
    """A string to its position in ``classes_strings`` (the last, if there several times), and back."""
    positions = _positions(classes_strings)
    if x.dtype == object:
        return _look_up(xp, x, classes_strings, positions, default_int64, np.int64, False)
    return _look_up(xp, x, positions, classes_strings, default_string, object, False)


@op("LabelEncoder", domain=DOMAIN, since=2)
def label_encoder_2(
    xp: Any,
    x: Any,
    *,
    default_float: float = -0.0,
    default_int64: int = -1,
    default_string: str = "_Unused",
    keys_floats: Any = None,
    keys_int64s: Any = None,
    keys_strings: Any = None,
    values_floats: Any = None,
    values_int64s: Any = None,
    values_strings: Any = None,
) -> Any:
    """values[i] for each element that equals keys[i] (NaN equals NaN), else the default.

    Of equal keys the first counts.
    """
    keys = _only("keys", keys_strings, keys_int64s, keys_floats)
    _only("values", values_strings, values_int64s, values_floats)
    if values_strings is not None:
        return _look_up(xp, x, keys, values_strings, default_string, object, True)
    if values_int64s is not None:
        return _look_up(xp, x, keys, values_int64s, default_int64, np.int64, True)
    return _look_up(xp, x, keys, values_floats, default_float, np.float32, True)


@op("LabelEncoder", domain=DOMAIN, since=4)
def label_encoder_4(
    xp: Any,
    x: Any,
    *,
    default_float: float = -0.0,
    default_int64: int = -1,
    default_string: str = "_Unused",
    default_tensor: Any = None,
    keys_floats: Any = None,
    keys_int64s: Any = None,
    keys_strings: Any = None,
    keys_tensor: Any = None,
    values_floats: Any = None,
    values_int64s: Any = None,
    values_strings: Any = None,
    values_tensor: Any = None,
) -> Any:
    """Version 2 with the last of equal keys, and keys, values and default as tensors of more types."""
    keys = _only("keys", keys_strings, keys_int64s, keys_floats, keys_tensor)
    values = _only("values", values_strings, values_int64s, values_floats, values_tensor)
    default: Any
    if values_strings is not None:
        default, dtype = default_string, np.dtype(object)
    elif values_int64s is not None:
        default, dtype = default_int64, np.dtype(np.int64)
    elif values_floats is not None:
        default, dtype = default_float, np.dtype(np.float32)
    else:
        dtype = values_tensor.dtype
        dtype = dtype if dtype.kind in "if" else np.dtype(object)
        default = {"O": default_string, "i": default_int64, "f": default_float}[dtype.kind]
    if default_tensor is not None:
        if default_tensor.size != 1:
            raise ValueError(f"default_tensor must have one element, not {default_tensor.size}")
        default = _plain(default_tensor)[0]
    return _look_up(xp, x, keys, values, default, dtype, False)


def _only(name: str, *choices: Any) -> Any:
    given = [choice for choice in choices if choice is not None]
    if len(given) != 1:
        raise ValueError(f"exactly one of the attributes {name}_* must be given, not {len(given)}")
    return _plain(given[0]) if hasattr(given[0], "dtype") else given[0]


@op("CategoryMapper", domain=DOMAIN)
def category_mapper(
    xp: Any,
    x: Any,
    *,
    cats_int64s: Any = (),
    cats_strings: Any = (),
    default_int64: int = -1,
    default_string: str = "_Unused",
) -> Any:
    """cats_int64s[i] for each string that equals cats_strings[i], else the default; and back for integers."""
    if x.dtype == object:
        return _look_up(xp, x, cats_strings, cats_int64s, default_int64, np.int64, False)
    return _look_up(xp, x, cats_int64s, cats_strings, default_string, object, False)


@op("OneHotEncoder", domain=DOMAIN)
def one_hot_encoder(
    xp: Any, x: Any, *, cats_int64s: Any = None, cats_strings: Any = None, zeros: int = 1
) -> Any:
    """Y[..., i] = 1 where x is category i (numbers cut to integers), else 0; float32.

    Raises:
        ValueError: where x is no category, unless ``zeros``.
    """
    categories = one_of(cats_int64s, cats_strings, "cats_int64s and cats_strings")
    if (x.dtype == object) != (categories is cats_strings):
        needed = "cats_strings" if x.dtype == object else "cats_int64s"
        raise ValueError(f"X is {x.dtype}, which needs {needed}")
    if x.dtype != object:
        floating = xp.isdtype(x.dtype, "real floating")
        x = xp.trunc(xp.astype(x, xp.float64)) if floating else xp.astype(x, xp.int64)
    index = _look_up(xp, x, categories, _positions(categories), -1, np.int64, False)
    if not zeros and bool(xp.any(index < 0)):
        unknown = host(x)[host(index) < 0].tolist()[0]
        raise ValueError(f"X has {unknown!r}, which is no category, and zeros is 0")
    return xp.astype(xp.expand_dims(index, axis=-1) == xp.arange(len(categories)), xp.float32)


@op("CastMap", domain=DOMAIN)
def cast_map(
    xp: Any, x: dict[int, Any], *, cast_to: str = "TO_FLOAT", map_form: str = "DENSE", max_map: int = 1
) -> Any:
    """The values of a map in the order of their keys, [1, n]; SPARSE puts each at its key, of ``max_map``.

    Where SPARSE has no value it is 0, or "0.f" for strings (as onnxruntime has it).
    """
    if map_form not in ("DENSE", "SPARSE"):
        raise ValueError(f"map_form must be DENSE or SPARSE, not {map_form!r}")
    if cast_to not in ("TO_FLOAT", "TO_STRING", "TO_INT64"):
        raise ValueError(f"cast_to must be TO_FLOAT, TO_STRING or TO_INT64, not {cast_to!r}")
    keys = sorted(x)
    if map_form == "DENSE":
        size, places = len(keys), list(range(len(keys)))
    else:
        size, places = max_map, [int(key) for key in keys]
        if size < 0 or size >= 1 << 31:
            raise ValueError(f"max_map must be in [0, 2³¹), not {size}")
        if keys and (keys[0] < 0 or keys[-1] >= size):
            raise ValueError(f"the map's keys {keys[0]} to {keys[-1]} are not all in [0, max_map = {size})")
    bounded((1, size))
    values = [x[key] for key in keys]
    if cast_to == "TO_STRING":
        text = np.full((1, size), "0.f", dtype=object)
        text[0, places] = [value if isinstance(value, str) else f"{value:f}" for value in values]
        return text
    to, dtype = (float, np.float32) if cast_to == "TO_FLOAT" else (int, np.int64)
    result = np.zeros((1, size), dtype=dtype)
    result[0, places] = [to(value) for value in values]
    return xp.asarray(result)


@op("DictVectorizer", domain=DOMAIN)
def dict_vectorizer(
    xp: Any, x: dict[Any, Any], *, int64_vocabulary: Any = None, string_vocabulary: Any = None
) -> Any:
    """Y[0, i] = x[vocabulary[i]], or 0 ("" for strings) where x has none; [1, len(vocabulary)].

    Keys outside the vocabulary are ignored. Python floats become float32, NumPy's keep their type.
    """
    vocabulary = one_of(int64_vocabulary, string_vocabulary, "int64_vocabulary and string_vocabulary")
    dtype = _value_type(x.values())
    empty: Any = "" if dtype.kind == "O" else 0
    return _from_host(xp, np.array([[x.get(key, empty) for key in vocabulary]], dtype=dtype))


def _value_type(values: Iterable[Any]) -> Any:
    first = next(iter(values), 0.0)
    if isinstance(first, np.generic) and not isinstance(first, np.str_):
        return first.dtype
    return np.dtype(object if isinstance(first, str) else np.int64 if isinstance(first, int) else np.float32)


@op("ZipMap", domain=DOMAIN)
def zip_map(xp: Any, x: Any, *, classlabels_int64s: Any = None, classlabels_strings: Any = None) -> Any:
    """A map {label i: x[n, i]} for each row; a vector is one row."""
    labels = one_of(classlabels_int64s, classlabels_strings, "classlabels_int64s and classlabels_strings")
    if x.ndim not in (1, 2) or x.shape[-1] != len(labels):
        raise ValueError(
            f"X of shape {tuple(x.shape)} does not have a column for each of {len(labels)} labels"
        )
    rows = host(x).reshape(-1, len(labels)).tolist()
    return [dict(zip(labels, row, strict=True)) for row in rows]
