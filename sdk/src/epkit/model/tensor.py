"""Weights as views of a mapped file: an onnx_ir tensor that owns no memory."""

from __future__ import annotations

import math
import mmap
from collections.abc import MutableMapping
from typing import Any

import numpy as np
import onnx_ir as ir

Source = mmap.mmap | memoryview | bytes


class ViewTensor:
    """A read-only tensor over `length` bytes at `offset` of a mapped file or a caller's buffer.

    The array is made at the first `numpy()` and kept. Types below a byte are unpacked then, into one
    element a byte (ml_dtypes); all others are views, unaligned if the file is. The mapping lives as long
    as a tensor or an array of it does. Truncating a mapped file while it is in use kills the process
    (SIGBUS), as with every mmap.
    """

    __slots__ = (
        "_array",
        "_buffer",
        "_length",
        "_offset",
        "doc_string",
        "dtype",
        "meta",
        "metadata_props",
        "name",
        "shape",
    )

    def __init__(
        self,
        buffer: Source,
        offset: int,
        length: int,
        dtype: ir.DataType,
        shape: ir.Shape,
        *,
        name: str | None = None,
        doc_string: str | None = None,
        metadata_props: dict[str, str] | None = None,
    ) -> None:
        self._buffer, self._offset, self._length = buffer, offset, length
        self._array: np.ndarray[Any, Any] | None = None
        self.dtype = dtype
        self.shape: Any = shape  # ir.Shape
        self.name: str | None = name
        self.doc_string: str | None = doc_string
        self.metadata_props: MutableMapping[str, str] = metadata_props or {}
        self.meta: MutableMapping[str, Any] = {}

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape.numpy())

    @property
    def nbytes(self) -> int:
        """Bytes as stored, elements below a byte packed."""
        return self._length

    @property
    def raw(self) -> Any:
        """The bytes as stored, little-endian, as a memoryview."""
        return memoryview(self._buffer)[self._offset : self._offset + self._length]

    @raw.setter
    def raw(self, value: Any) -> None:  # the protocol of onnx_ir declares it so
        raise AttributeError("the elements of a ViewTensor cannot be exchanged")

    def numpy(self) -> np.ndarray[Any, Any]:
        if self._array is None:
            self._array = self._view()
        return self._array

    def _view(self) -> np.ndarray[Any, Any]:
        dims = self.shape.numpy()
        if self._length == 0:
            array = np.empty(dims, self.dtype.numpy())
        elif self.dtype.bitwidth < 8:
            packed = np.frombuffer(self._buffer, np.uint8, self._length, self._offset)
            array = ir.PackedTensor(packed, self.dtype, shape=self.shape).numpy()
        else:
            count = self._length // int(self.dtype.itemsize)
            array = np.frombuffer(self._buffer, self.dtype.numpy(), count, self._offset).reshape(dims)
        array.flags.writeable = False
        return array

    def tobytes(self) -> bytes:
        return bytes(self.raw)

    def tofile(self, file: Any) -> None:
        file.write(self.raw)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, Any]:
        return np.array(self.numpy(), dtype=dtype, copy=copy)

    def __dlpack__(self, *, stream: Any = None, **options: Any) -> Any:
        return self.numpy().__dlpack__(stream=stream, **options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.numpy().__dlpack_device__()

    def __repr__(self) -> str:
        return f"ViewTensor<{self.dtype},{self.shape}>(name={self.name!r}, {self._length:,} bytes)"
