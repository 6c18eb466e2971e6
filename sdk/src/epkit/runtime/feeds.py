"""The caller's inputs: names, dtypes, ranks and fixed dimensions are checked before anything runs."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from ..backend.subgraph import element_type
from ..dtypes import SPELLING, name_of, numpy_dtype
from ..errors import InputError, Where
from .value_info import ValueInfo


def value_info(value: ir.Value) -> ValueInfo:
    """Describe a graph input or output."""
    shape = None
    if value.shape is not None:
        shape = tuple(d if isinstance(d, int) else d.value for d in value.shape)
    is_tensor = isinstance(value.type, ir.TensorType)
    return ValueInfo(str(value.name), element_type(value) if is_tensor else "", shape, type_text(value.type))


def type_text(kind: Any) -> str:
    """An onnx_ir type in ONNX's spelling."""
    if kind is None:
        return "unknown"
    if isinstance(kind, ir.TensorType):
        return f"tensor({SPELLING.get(_dtype_name(kind.dtype), 'undefined')})"
    if isinstance(kind, ir.SequenceType):
        return f"seq({type_text(kind.elem_type)})"
    if isinstance(kind, ir.OptionalType):
        return f"optional({type_text(kind.elem_type)})"
    if isinstance(kind, ir.SparseTensorType):
        return f"sparse_tensor({SPELLING.get(_dtype_name(kind.dtype), 'undefined')})"
    return str(kind)


def _dtype_name(dtype: ir.DataType) -> str:
    from ..dtypes import NAME

    return NAME.get(int(dtype), "")


def check_feeds(
    feeds: Mapping[str, Any], inputs: Sequence[ir.Value], infos: Sequence[ValueInfo], model: str
) -> list[Any]:
    """The values in the order of the graph's inputs; what lies on a device, as :class:`Foreign`.

    Raises:
        InputError: for an unknown or missing name, a wrong dtype, rank or dimension.
    """
    where = Where(stage="run", model=model)
    if len(feeds) != len(infos) or any(info.name not in feeds for info in infos):
        _check_names(feeds, inputs, infos, where)
    return [_fit(feeds.get(info.name), info, value, where) for info, value in zip(infos, inputs, strict=True)]


def _check_names(
    feeds: Mapping[str, Any], inputs: Sequence[ir.Value], infos: Sequence[ValueInfo], where: Where
) -> None:
    """Refuse unknown names, and missing ones; optional inputs may be left out."""
    known = [info.name for info in infos]
    for name in feeds:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]!r}? " if close else ""
            raise InputError(
                f"the model has no input {name!r}",
                where=where,
                remedy=hint + "its inputs are: " + _listing(infos),
            )
    missing = [
        info.name
        for info, value in zip(infos, inputs, strict=True)
        if info.name not in feeds and not isinstance(value.type, ir.OptionalType)
    ]
    if missing:
        raise InputError(
            f"missing input{'s' if len(missing) > 1 else ''}: {', '.join(missing)}",
            where=where,
            remedy="the model's inputs are: " + _listing(infos),
        )


def _listing(infos: Sequence[ValueInfo]) -> str:
    return "; ".join(map(str, infos)) or "none"


def _fit(given: Any, info: ValueInfo, value: ir.Value, where: Where) -> Any:
    if not isinstance(value.type, ir.TensorType):
        return _fit_other(given, info, value.type, where)
    if is_on_device(given):
        return Foreign(given, info)
    array = as_array(given, info, where)
    check_fit(array, info, where)
    return array


HOST_KINDS = frozenset({1, 3, 11, 13})
"""DLPack's device types whose memory the host can read."""


@dataclass(frozen=True)
class Foreign:
    """An input in the memory of some device, perhaps one of the session's.

    Attributes:
        given: what the caller passed.
        info: the input that it is for.
    """

    given: Any
    info: ValueInfo


def is_on_device(given: Any) -> bool:
    """True for an array that the host cannot read."""
    if isinstance(given, np.ndarray) or not hasattr(given, "__dlpack_device__"):
        return False
    try:
        return int(given.__dlpack_device__()[0]) not in HOST_KINDS
    except BufferError:  # a device whose tensors do not speak DLPack
        return True


def check_fit(array: Any, info: ValueInfo, where: Where) -> None:
    """Refuse a wrong dtype, rank or fixed dimension; ``array`` has ``dtype`` and ``shape``."""
    _check_dtype(array, info, where)
    if info.shape is not None:
        _check_shape(array, info, where)


def _spelling(dtype: str) -> str:
    return "object" if dtype == "string" else repr(dtype)


def name_of_array(array: np.ndarray[Any, Any]) -> str:
    """The element type of an array, "" if ONNX has none like it."""
    try:
        return name_of(array.dtype)
    except KeyError:
        return ""


def as_array(given: Any, info: ValueInfo, where: Where) -> np.ndarray[Any, Any]:
    """The input as a NumPy array.

    Arrays keep their dtype; Python numbers, lists and text take the model's.
    """
    if isinstance(given, np.ndarray | np.generic):
        array = np.asarray(given)
    else:
        try:
            array = _converted(given, info.dtype)
        except Exception as error:  # whatever the conversions of other libraries raise
            raise InputError(
                f"input {info.name!r} is a {type(given).__name__} that does not become {info.dtype}: {error}",
                where=where,
                remedy=f"pass a NumPy array: {info}",
            ) from error
    if array.dtype.kind in "SUT":
        array = array.astype("U").astype(object)
    return array


def _converted(given: Any, dtype: str) -> np.ndarray[Any, Any]:
    if hasattr(given, "__array__"):
        return np.asarray(given)
    return np.from_dlpack(given) if hasattr(given, "__dlpack__") else _from_python(given, dtype)


def _from_python(given: Any, dtype: str) -> np.ndarray[Any, Any]:
    """Python numbers, lists and text as an array of an element type, where nothing is lost on the way."""
    natural = np.asarray(given)
    if not dtype:
        return natural
    if natural.size and natural.dtype.kind not in _kinds(dtype):
        raise TypeError(f"it holds {natural.dtype.name} values")
    return np.asarray(given, dtype=numpy_dtype(dtype))


def _kinds(dtype: str) -> str:
    """The NumPy kinds whose values an element type can take."""
    if dtype == "string":
        return "UO"
    if dtype == "bool":
        return "b"
    if "int" in dtype:
        return "biu"
    return "biufc" if "complex" in dtype else "biuf"


def _check_dtype(array: np.ndarray[Any, Any], info: ValueInfo, where: Where) -> None:
    if info.dtype and name_of_array(array) != info.dtype:
        raise InputError(
            f"input {info.name!r} has dtype {array.dtype}, the model wants {info.dtype}",
            where=where,
            remedy=f"convert it: {info.name}.astype({_spelling(info.dtype)})",
        )


def _check_shape(array: np.ndarray[Any, Any], info: ValueInfo, where: Where) -> None:
    assert info.shape is not None
    if len(array.shape) != len(info.shape):
        raise InputError(
            f"input {info.name!r} has rank {len(array.shape)} (shape {list(array.shape)}), the "
            f"model wants rank {len(info.shape)}",
            where=where,
            remedy=f"the input is declared as {info}",
        )
    for axis, (actual, wanted) in enumerate(zip(array.shape, info.shape, strict=True)):
        if isinstance(wanted, int) and actual != wanted:
            raise InputError(
                f"input {info.name!r} has {actual} at dimension {axis} (shape "
                f"{list(array.shape)}), the model wants {wanted}",
                where=where,
                remedy=f"the input is declared as {info}",
            )


def _fit_other(given: Any, info: ValueInfo, kind: Any, where: Where) -> Any:
    """Sequences are lists, optionals may be None, maps are dicts."""
    if isinstance(kind, ir.OptionalType):
        return None if given is None else _fit_other(given, info, kind.elem_type, where)
    if isinstance(kind, ir.SequenceType):
        if not isinstance(given, list | tuple):
            raise InputError(
                f"input {info.name!r} is a {type(given).__name__}, the model wants a list ({info.type})",
                where=where,
                remedy="pass a list of arrays",
            )
        return [_fit_other(item, info, kind.elem_type, where) for item in given]
    if isinstance(kind, ir.TensorType):
        item = ValueInfo(info.name, _dtype_name(kind.dtype), None, info.type)
        array = as_array(given, item, where)
        _check_dtype(array, item, where)
        return array
    return given
