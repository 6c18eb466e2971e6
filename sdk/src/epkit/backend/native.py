"""Kernels written in C: a function of the interface in ``include/epkit_kernel.h`` as a :class:`Kernel`.

    library = ctypes.CDLL("./acme.so")
    leaky = native_kernel("LeakyRelu", library.leaky_relu, attributes={"alpha": 0.01}, types={"T": {"float32"}})

The kernel gets host tensors and gives host tensors. Its attributes lie one after the other in the order of the
declaration: an int as ``int64_t``, a float as ``double``.
"""

from __future__ import annotations

import ctypes
import math
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..dtypes import name_of
from ..errors import DeviceMemoryError, RunError
from .kernel import Kernel, Predicate
from .memory import HostAllocator

INCLUDE = Path(__file__).parent / "include"
"""The folder of ``epkit_kernel.h``."""

ABI_VERSION = 1
MAX_RANK = 16
OUT_OF_MEMORY = 3
CODES = {"i": 0, "u": 1, "f": 2, "c": 5, "b": 6}
BFLOAT = 4

Dtypes = Callable[..., Sequence["np.dtype[Any]"]]
"""Called with the inputs; gives the dtype of each output."""


class _Device(ctypes.Structure):
    _fields_ = [("device_type", ctypes.c_int32), ("device_id", ctypes.c_int32)]


class _DataType(ctypes.Structure):
    _fields_ = [("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16)]


class _Tensor(ctypes.Structure):
    _fields_ = [
        ("data", ctypes.c_void_p),
        ("device", _Device),
        ("ndim", ctypes.c_int32),
        ("dtype", _DataType),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.c_void_p),
        ("byte_offset", ctypes.c_uint64),
    ]


_Shape = ctypes.POINTER(ctypes.c_int64)
_Body = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_int)
_Output = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_int32, _Shape)
_Alias = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_int, ctypes.c_int32, _Shape)
_Scratch = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
_Parallel = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, _Body, ctypes.c_void_p)
_Fail = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p)
_Function = ctypes.CFUNCTYPE(
    ctypes.c_int,
    ctypes.c_void_p,
    ctypes.c_void_p,
    ctypes.POINTER(_Tensor),
    ctypes.c_int,
    ctypes.POINTER(_Tensor),
    ctypes.c_int,
)


class _Context(ctypes.Structure):
    _fields_ = [
        ("abi_version", ctypes.c_uint32),
        ("threads", ctypes.c_int32),
        ("output", _Output),
        ("alias", _Alias),
        ("scratch", _Scratch),
        ("parallel", _Parallel),
        ("fail", _Fail),
    ]


def native_kernel(
    op_type: str,
    function: Any,
    *,
    attributes: Mapping[str, int | float] | None = None,
    dtypes: Dtypes | None = None,
    since: int = 1,
    until: int | None = None,
    domain: str = "",
    types: Mapping[str, Iterable[str]] | None = None,
    when: Predicate | None = None,
) -> Kernel:
    """Declare a C function as a kernel; see :class:`Kernel` for the other parameters.

    Args:
        function: from a ``ctypes`` library, or the function's address.
        attributes: names and defaults, in the order in which the function reads them.
        dtypes: of the outputs; by default all have the first input's.
    """
    address = function if isinstance(function, int) else ctypes.cast(function, ctypes.c_void_p).value
    if not address:
        raise ValueError(f"the native kernel of {op_type} has no address")
    native, defaults = _Function(address), dict(attributes or {})
    layout = "<" + "".join("q" if isinstance(value, int) else "d" for value in defaults.values())

    def call(*inputs: Any, n_outputs: int, **given: Any) -> tuple[Any, ...]:
        packed = struct.pack(layout, *(given.get(name, value) for name, value in defaults.items()))
        arrays = [None if x is None else np.ascontiguousarray(x).reshape(x.shape) for x in inputs]
        first = next(x.dtype for x in arrays if x is not None)
        kinds = [first] * n_outputs if dtypes is None else list(dtypes(*inputs))
        return _Call(op_type, arrays, kinds).run(native, packed)

    allowed = {name: frozenset(names) for name, names in types.items()} if types else None
    wants = frozenset({"n_outputs"})
    return Kernel(op_type, call, domain, since, until, allowed, when, None, frozenset(defaults), wants)


class _Call:
    """One call of a native kernel: its tensors, and the memory that it asks for."""

    def __init__(self, name: str, inputs: list[Any], kinds: Sequence[np.dtype[Any]]) -> None:
        self._name = name
        self._arrays = inputs
        self._inputs = (_Tensor * max(len(inputs), 1))(*map(_tensor, inputs))
        self._outputs = (_Tensor * max(len(kinds), 1))()
        for tensor, kind in zip(self._outputs, kinds, strict=False):
            tensor.dtype = _data_type(kind)
        self._kinds = list(kinds)
        self._results: list[Any] = [None] * len(kinds)
        self._shapes: list[Any] = [None] * len(kinds)
        self._scratch: list[Any] = []
        self._message = ""
        self._memory = HostAllocator()

    def run(self, function: Any, attributes: bytes) -> tuple[Any, ...]:
        """Call the function.

        Raises:
            DeviceMemoryError, RunError: with what the kernel said.
        """
        context = _Context(
            ABI_VERSION,
            1,
            _Output(self._output),
            _Alias(self._alias),
            _Scratch(self._take),
            _Parallel(_serial),
            _Fail(self._fail),
        )
        packed = ctypes.create_string_buffer(attributes, max(len(attributes), 8))
        status = function(
            ctypes.addressof(context),
            ctypes.addressof(packed),
            self._inputs,
            len(self._arrays),
            self._outputs,
            len(self._kinds),
        )
        if status == OUT_OF_MEMORY:
            raise DeviceMemoryError(self._message or f"{self._name} has too little memory")
        if status:
            raise RunError(self._message or f"{self._name} gave the status {status} and no reason")
        return tuple(self._results)

    def _output(self, context: int, index: int, ndim: int, shape: Any) -> int | None:
        try:
            dims = tuple(shape[i] for i in range(ndim))
            if not 0 <= ndim <= MAX_RANK or min(dims, default=0) < 0:
                raise ValueError(f"an output of shape {dims}")
            kind = self._kinds[index]
            buffer = self._memory.allocate(max(math.prod(dims) * kind.itemsize, 1))
            return self._set(index, self._memory.view(buffer, 0, dims, kind))
        except (ValueError, MemoryError, IndexError) as error:  # must not pass through C
            self._message = f"{self._name}: {error}"
            return None

    def _alias(self, context: int, index: int, source: int, ndim: int, shape: Any) -> int:
        try:
            dims = tuple(shape[i] for i in range(ndim))
            self._set(index, self._arrays[source].reshape(dims))
        except (ValueError, IndexError, AttributeError) as error:
            self._message = f"{self._name}: {error}"
            return 1
        return 0

    def _set(self, index: int, array: np.ndarray[Any, Any]) -> int:
        self._results[index] = array
        tensor = self._outputs[index]
        made = _tensor(array)
        tensor.data, tensor.ndim, tensor.shape = made.data, made.ndim, made.shape
        self._shapes[index] = made
        return int(array.ctypes.data)

    def _take(self, context: int, nbytes: int) -> int | None:
        try:
            self._scratch.append(self._memory.allocate(max(nbytes, 1)))
        except (ValueError, MemoryError) as error:
            self._message = f"{self._name}: {error}"
            return None
        return int(self._scratch[-1].ctypes.data)

    def _fail(self, context: int, status: int, message: bytes) -> int:
        self._message = message.decode("utf-8", "replace")
        return status


def _serial(context: int, count: int, grain: int, body: Any, argument: int) -> None:
    step = max(grain, 1)
    for begin in range(0, count, step):
        body(argument, begin, min(begin + step, count), 0)


def _tensor(array: Any) -> _Tensor:
    """An array as the kernel sees it; absent: no data, ndim -1."""
    if array is None:
        return _Tensor(None, _Device(1, 0), -1)
    shape = (ctypes.c_int64 * max(array.ndim, 1))(*array.shape)
    return _Tensor(
        array.ctypes.data,
        _Device(1, 0),
        array.ndim,
        _data_type(array.dtype),
        ctypes.cast(shape, _Shape),
        None,
        0,
    )


def _data_type(kind: np.dtype[Any]) -> _DataType:
    """The dtype in DLPack's numbers.

    Raises:
        TypeError: for text, and for types that DLPack does not have.
    """
    if name_of(kind) == "bfloat16":
        return _DataType(BFLOAT, 16, 1)
    if kind.kind not in CODES:
        raise TypeError(f"native kernels take no tensors of {kind}")
    return _DataType(CODES[kind.kind], kind.itemsize * 8, 1)
