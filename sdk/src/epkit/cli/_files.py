"""Reads values from files: ``.npy``, ``.npz``, and the ``.pb`` of ONNX test data. Nothing is unpickled."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import numpy_helper

from ..dtypes import numpy_dtype
from ..errors import InputError, Where
from ..runtime.value_info import ValueInfo


def read_value(path: Path, info: ValueInfo) -> Any:
    """The value of one input or output from a ``.npy`` or ``.pb`` file.

    Raises:
        InputError: if the file is missing, damaged or of another kind.
    """
    if path.suffix == ".pb":
        return read_proto(path, info)[1]
    if path.suffix != ".npy":
        raise _unreadable(path, "values are read from .npy, .npz and .pb files")
    return as_declared(_numpy_load(path), info)


def read_npz(path: Path, infos: Mapping[str, ValueInfo]) -> dict[str, np.ndarray[Any, Any]]:
    """The arrays of an archive by name.

    Raises:
        InputError: if the file is missing or damaged.
    """
    with _numpy_load(path) as archive:
        try:
            arrays = {name: archive[name] for name in archive.files}
        except (ValueError, zipfile.BadZipFile) as error:
            raise _unreadable(path, str(error)) from None
    return {
        name: as_declared(array, infos[name]) if name in infos else array for name, array in arrays.items()
    }


def _numpy_load(path: Path) -> Any:
    try:
        return np.load(path, allow_pickle=False)
    except FileNotFoundError:
        raise _unreadable(path, "it does not exist") from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise _unreadable(path, str(error)) from None


def as_declared(array: np.ndarray[Any, Any], info: ValueInfo) -> np.ndarray[Any, Any]:
    """Narrow types come out of ``.npy`` as raw bytes: see them as what the model declares."""
    if array.dtype.kind == "V" and info.dtype and numpy_dtype(info.dtype).itemsize == array.dtype.itemsize:
        return array.view(numpy_dtype(info.dtype))
    return array


def read_proto(path: Path, info: ValueInfo) -> tuple[str, Any]:
    """Name and value from a serialized tensor, sequence or optional, as the model's type tells.

    Raises:
        InputError: if the file is missing or damaged.
    """
    try:
        data = path.read_bytes()
        if info.type.startswith("optional("):
            optional = onnx.OptionalProto.FromString(data)
            filled = any(field.name.endswith("_value") for field, _ in optional.ListFields())
            return optional.name, numpy_helper.to_optional(optional) if filled else None
        if info.type.startswith("seq("):
            sequence = onnx.SequenceProto.FromString(data)
            return sequence.name, numpy_helper.to_list(sequence)
        tensor = onnx.TensorProto.FromString(data)
        return tensor.name, numpy_helper.to_array(tensor)
    except FileNotFoundError:
        raise _unreadable(path, "it does not exist") from None
    except (OSError, DecodeError, ValueError, TypeError, KeyError, IndexError) as error:
        raise _unreadable(path, f"it is no serialized {info.type}: {error}") from None


def write_npz(path: Path, outputs: Mapping[str, Any]) -> None:
    """Outputs by name; a list becomes one array for each item, ``name/0``, ``name/1``, ...

    Raises:
        InputError: if the file cannot be written, or a value is no array.
    """
    try:
        with zipfile.ZipFile(path, "w") as archive:
            for name, array in _arrays(outputs):
                with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, array, allow_pickle=False)
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error}", remedy="choose another --output") from None


def _arrays(outputs: Mapping[str, Any]) -> list[tuple[str, np.ndarray[Any, Any]]]:
    found: list[tuple[str, np.ndarray[Any, Any]]] = []
    for name, value in outputs.items():
        if isinstance(value, list):
            found += _arrays({f"{name}/{index}": item for index, item in enumerate(value)})
        elif isinstance(value, dict):
            found += _arrays({f"{name}/{key}": item for key, item in value.items()})
        elif value is not None:
            array = np.asarray(value)
            found.append((name, array.astype(np.str_) if array.dtype.kind == "O" else array))
    return found


def _unreadable(path: Path, why: str) -> InputError:
    return InputError(
        f"{path} cannot be read: {why}",
        where=Where(file=str(path)),
        remedy="give a file that numpy.save, numpy.savez or onnx.save_tensor wrote",
    )
