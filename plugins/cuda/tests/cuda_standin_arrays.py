"""The arrays of the stand-in: NumPy's behind a wall, and the namespace that makes them."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from cuda_standin import StandIn

METHODS = [
    "reshape",
    "astype",
    "transpose",
    "copy",
    "sum",
    "min",
    "max",
    "mean",
    "any",
    "all",
    "argmax",
    "argmin",
    "cumsum",
    "swapaxes",
    "squeeze",
    "ravel",
    "flatten",
    "prod",
    "clip",
    "round",
    "take",
    "repeat",
    "nonzero",
    "conj",
]
BINARY = [
    "add",
    "sub",
    "mul",
    "truediv",
    "floordiv",
    "mod",
    "pow",
    "and_",
    "or_",
    "xor",
    "lshift",
    "rshift",
    "matmul",
    "lt",
    "le",
    "gt",
    "ge",
    "eq",
    "ne",
]


class DeviceArray:
    """An array of the pretended device."""

    __array_priority__ = 1000
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, data: np.ndarray[Any, Any], machine: StandIn) -> None:
        self._data, self._machine = data, machine

    def __array__(self, *args: Any, **options: Any) -> Any:
        raise TypeError("implicit conversion of a device array to a NumPy array is not allowed")

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        return self._machine.call(getattr(ufunc, method), inputs, options)

    def __array_function__(self, function: Any, types: Any, args: Any, options: Any) -> Any:
        return self._machine.call(function, args, options)

    shape = property(lambda self: self._data.shape)
    dtype = property(lambda self: self._data.dtype)
    ndim = property(lambda self: self._data.ndim)
    size = property(lambda self: self._data.size)
    nbytes = property(lambda self: self._data.nbytes)
    strides = property(lambda self: self._data.strides)
    flags = property(lambda self: self._data.flags)
    itemsize = property(lambda self: self._data.itemsize)
    data = property(lambda self: SimpleNamespace(ptr=self._data.ctypes.data))
    T = property(lambda self: DeviceArray(self._data.T, self._machine))
    real = property(lambda self: DeviceArray(self._data.real, self._machine))
    imag = property(lambda self: DeviceArray(self._data.imag, self._machine))

    def __getattr__(self, name: str) -> Any:
        if name not in METHODS:
            raise AttributeError(f"device arrays have no {name}")
        return lambda *args, **options: self._machine.call(getattr(self._data, name), args, options)

    def view(self, dtype: Any = None) -> DeviceArray:
        return DeviceArray(self._data.view(self._data.dtype if dtype is None else dtype), self._machine)

    def __getitem__(self, key: Any) -> Any:
        return self._machine.call(operator.getitem, (self, key), {})

    def __setitem__(self, key: Any, value: Any) -> None:
        self._machine.call(operator.setitem, (self, key, value), {})

    def __len__(self) -> int:
        return len(self._data)

    def __iter__(self) -> Iterator[DeviceArray]:
        return (self[index] for index in range(len(self)))

    def _read(self) -> np.ndarray[Any, Any]:
        self._machine.implicit()
        return self._data

    def item(self) -> Any:
        return self._read().item()

    def tolist(self) -> Any:
        return self._read().tolist()

    def __dlpack__(self, **options: Any) -> Any:
        return self._data.__dlpack__()

    def __dlpack_device__(self) -> tuple[int, int]:
        return (2, self._machine.index)

    __int__ = __index__ = lambda self: int(self._read())

    def __float__(self):
        return float(self._read())

    def __bool__(self):
        return bool(self._read())

    def __neg__(self):
        return self._machine.call(operator.neg, (self,), {})

    def __abs__(self):
        return self._machine.call(operator.abs, (self,), {})

    def __invert__(self):
        return self._machine.call(operator.invert, (self,), {})


def _add_operators() -> None:
    for name in BINARY:
        plain = getattr(operator, name)

        def forward(self: DeviceArray, other: Any, plain: Any = plain) -> Any:
            return self._machine.call(plain, (self, other), {})

        def backward(self: DeviceArray, other: Any, plain: Any = plain) -> Any:
            return self._machine.call(plain, (other, self), {})

        def inplace(self: DeviceArray, other: Any, plain: Any = plain) -> Any:
            self[...] = self._machine.call(plain, (self, other), {})
            return self

        bare = name.rstrip("_")
        setattr(DeviceArray, f"__{bare}__", forward)
        setattr(DeviceArray, f"__r{bare}__", backward)
        if bare not in ("lt", "le", "gt", "ge", "eq", "ne"):
            setattr(DeviceArray, f"__i{bare}__", inplace)


_add_operators()


class Namespace:
    """NumPy's functions over device arrays; what CuPy lacks is missing here, too."""

    MISSING = frozenset({"bfloat16", "unstack", "vecdot", "object_", "str_", "bytes_"})

    def __init__(self, machine: StandIn, source: Any = np) -> None:
        self._machine, self._source = machine, source

    def __getattr__(self, name: str) -> Any:
        lacking = name in self.MISSING or (self._source is np.linalg and name == "diagonal")
        if lacking or name.startswith("__"):
            raise AttributeError(f"the array namespace has no {name}")
        found = _from_dlpack if name == "from_dlpack" else getattr(self._source, name)
        if self._source is np and name in ("linalg", "fft"):
            return Namespace(self._machine, found)
        if isinstance(found, type) or not callable(found):
            return found
        if name in ("finfo", "iinfo", "result_type", "isdtype", "dtype", "broadcast_shapes", "can_cast"):
            return lambda *args, **options: found(*map(_bare_dtype, args), **options)
        return Function(self._machine, found)


WAITS = frozenset(
    [
        "nonzero",
        "unique",
        "flatnonzero",
        "argwhere",
        "unique_values",
        "unique_inverse",
        "unique_all",
        "compress",
    ]
)
"""Functions whose result has a size that the data decide, so that CuPy waits for them."""

CREATES = frozenset(
    ["asarray", "array", "ascontiguousarray", "full", "full_like", "asanyarray", "from_dlpack"]
)
"""Functions that take NumPy arrays."""


class Function:
    """One function of the namespace. Ufuncs have ``at`` where CuPy has it."""

    def __init__(self, machine: StandIn, function: Any) -> None:
        self._machine, self._function = machine, function

    def __call__(self, *args: Any, **options: Any) -> Any:
        creates = self._function.__name__ in CREATES
        return self._machine.call(self._function, args, options, creates=creates)

    @property
    def at(self) -> Any:
        if self._function.__name__ not in ("add", "subtract", "maximum", "minimum"):
            raise NotImplementedError(f"{self._function.__name__}.at is not supported")
        return lambda *args: self._machine.call(self._function.at, args, {}, creates=True)


def _from_dlpack(array: Any) -> Any:
    """The memory of an array that says that it is on the device."""
    return np.from_dlpack(AtHost(array))


class AtHost:
    """An array of the device as NumPy takes it."""

    def __init__(self, array: Any) -> None:
        self.array = array

    def __dlpack__(self, **options: Any) -> Any:
        return self.array.__dlpack__()

    def __dlpack_device__(self) -> tuple[int, int]:
        return (1, 0)


def _bare_dtype(value: Any) -> Any:
    return value.dtype if isinstance(value, DeviceArray) else value
