"""A stand-in for a GPU: device memory that the host cannot read by accident, streams that are late, graphs.

Arrays are NumPy's behind a wall: like CuPy's they refuse to become NumPy arrays or to be mixed with them, and the
ways to the host that do exist (``int(x)``, ``x.tolist()``) are counted, and refused while a graph is recorded.
Kernels in CUDA C++ run through the host's compiler (see ``cuda_emulator``).
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import cuda_emulator
import numpy as np

from epkit_cuda.arrays import Arrays
from epkit_cuda.machine import Machine

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

    def view(self, dtype: Any) -> DeviceArray:
        return DeviceArray(self._data.view(dtype), self._machine)

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
        found = getattr(self._source, name)
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


def _bare_dtype(value: Any) -> Any:
    return value.dtype if isinstance(value, DeviceArray) else value


class Event:
    """A point in a pretended stream: reached once everything before it was run."""

    def __init__(self, stream: LateStream) -> None:
        self.stream, self.place = stream, stream.enqueued

    def wait(self) -> None:
        self.stream.flush()


class Graph:
    """Recorded work; running it touches what was recorded, and nothing else."""

    def __init__(self, machine: StandIn) -> None:
        self.machine = machine
        self.work: list[Callable[[], None]] = []

    def launch(self, stream: LateStream) -> None:
        self.machine.graph_launches += 1
        for work in self.work:
            stream.put(work)


class LateStream:
    """Copies and kernels wait until somebody waits for them; array operations happen at once, after a flush."""

    def __init__(self, machine: StandIn, address: int) -> None:
        self.machine, self.address = machine, address
        self.pending: list[Callable[[], None]] = []
        self.enqueued = 0
        self.graph: Graph | None = None

    def put(self, work: Callable[[], None]) -> None:
        if self.graph is not None:
            self.graph.work.append(work)
            return
        self.enqueued += 1
        self.pending.append(work)

    def flush(self) -> None:
        work, self.pending = self.pending, []
        for item in work:
            item()

    def record(self) -> Event:
        return Event(self)

    def wait(self, event: Event) -> None:
        self.put(event.stream.flush if event.stream is not self else lambda: None)

    def synchronize(self) -> None:
        if self.graph is not None:
            raise RuntimeError("operation not permitted when stream is capturing")
        self.flush()
        self.machine.synchronizations += 1

    @contextmanager
    def capture(self) -> Iterator[list[Graph]]:
        graphs: list[Graph] = []
        self.graph = Graph(self.machine)
        try:
            yield graphs
            graphs.append(self.graph)
        finally:
            self.graph = None


class StandIn(Machine):
    """The pretended GPU; it counts copies, launches and synchronisations."""

    def __init__(self, index: int = 0, limit: int = 1 << 30) -> None:
        self.index, self.limit = index, limit
        self.name, self.architecture, self.driver = "a stand-in", "sm_90", "stand-in 1"
        self.memory_bytes = limit
        self.xp = Arrays(Namespace(self))
        self.current: LateStream | None = None
        self.sources: list[str] = []
        self.in_use = self.copies_in = self.copies_out = self.launches = 0
        self.products: list[Any] = []
        self.convolutions: list[Any] = []
        self.attentions = 0
        self.graph_launches = self.synchronizations = self.implicit_reads = self.streams_made = 0

    # ---- array operations ----

    def call(self, function: Any, args: Any, options: Any, *, creates: bool = False) -> Any:
        """Run a NumPy function behind the wall, now or when a recorded graph is launched."""
        if not creates and function is not operator.getitem and function is not operator.setitem:
            for value in args:
                if isinstance(value, np.ndarray) and value.ndim:
                    raise TypeError(f"device arrays cannot be mixed with {type(value)}")
        stream = self.current
        if getattr(function, "__name__", "") in WAITS:
            self.implicit()
        if stream is not None:
            stream.flush()
        plain, keywords = self._open(args), self._open(options)
        with np.errstate(all="ignore"):
            result = function(*plain, **keywords)
        if stream is not None and stream.graph is not None:
            stream.put(_again(function, plain, keywords, result))
        return self._wrap(result)

    def _open(self, value: Any) -> Any:
        if isinstance(value, DeviceArray):
            return value._data
        if isinstance(value, dict):
            return {name: self._open(item) for name, item in value.items()}
        return type(value)(map(self._open, value)) if type(value) in (tuple, list) else value

    def _wrap(self, value: Any) -> Any:
        if isinstance(value, np.ndarray | np.generic) and np.asarray(value).dtype.kind not in "OSU":
            return DeviceArray(np.asarray(value), self)
        if isinstance(value, tuple | list):
            wrapped = [self._wrap(item) for item in value]
            return type(value)(*wrapped) if hasattr(value, "_fields") else type(value)(wrapped)
        return value

    def implicit(self) -> None:
        """The host reads a device value."""
        if self.current is not None:
            if self.current.graph is not None:
                raise RuntimeError("operation not permitted when stream is capturing")
            self.current.flush()
        self.implicit_reads += 1

    # ---- the machine ----

    def allocate(self, nbytes: int) -> Any:
        if self.in_use + nbytes > self.limit:
            raise MemoryError(f"out of memory allocating {nbytes:,} bytes")
        self.in_use += nbytes
        return np.full(nbytes, 0xA5, np.uint8)

    def free(self, buffer: Any) -> None:
        self.in_use -= buffer.nbytes
        buffer[...] = 0x5A

    def view(self, buffer: Any, offset: int, shape: Sequence[int], dtype: np.dtype[Any]) -> Any:
        return DeviceArray(np.ndarray(tuple(shape), dtype, buffer=buffer, offset=offset), self)

    def pinned(self, nbytes: int) -> np.ndarray[Any, Any]:
        return np.empty(nbytes, np.uint8)

    def copy_in(self, source: np.ndarray[Any, Any], target: Any, stream: Any) -> None:
        self.copies_in += 1
        stream.put(lambda: np.copyto(target._data, source))

    def copy_out(self, source: Any, target: np.ndarray[Any, Any], stream: Any) -> None:
        self.copies_out += 1
        stream.put(lambda: np.copyto(target, source._data))

    def copy(self, source: Any, target: Any, stream: Any) -> None:
        stream.put(lambda: np.copyto(target._data, source._data))

    def stream(self, address: int = 0) -> LateStream:
        self.streams_made += 1
        return LateStream(self, address)

    @contextmanager
    def using(self, stream: Any) -> Iterator[None]:
        before, self.current = self.current, stream
        try:
            yield
        finally:
            self.current = before

    @contextmanager
    def private_memory(self) -> Iterator[Any]:
        yield object()

    def launch(
        self, source: str, name: str, grid: int, block: int, arguments: Sequence[Any], stream: Any
    ) -> None:
        self.launches += 1
        self.sources = list(dict.fromkeys([*self.sources, source]))
        plain = [self._open(argument) for argument in arguments]
        stream.put(lambda: cuda_emulator.run(source, name, grid, block, plain))

    def multiply(
        self, a: Any, b: Any, out: Any, precision: str, *, bias: Any = None, activation: str = ""
    ) -> bool:
        """A library that knows bias and activation for matrices only."""
        wide = out.dtype if out.dtype in (np.float64, np.int32) else np.float32
        x, y, z, c = a._data, b._data, out._data, None if bias is None else bias._data
        inside = x.ndim == 2
        self.products.append((x.shape, y.shape, inside and bias is not None, activation if inside else ""))

        def work() -> None:
            found = np.matmul(x.astype(wide), y.astype(wide))
            if inside and c is not None:
                found = found + c.astype(wide)
            if inside and activation:
                found = np.maximum(found, 0) if activation == "relu" else _gelu_tanh(found)
            np.copyto(z, found, casting="unsafe")

        assert self.current is not None
        self.current.put(work)
        return inside or (bias is None and not activation)

    def convolve(
        self, x: Any, w: Any, out: Any, *, strides: Any, pads: Any, dilations: Any, groups: int,
        precision: str, stream: Any, bias: Any = None, residual: Any = None, relu: float = 0.0,
    ) -> bool:  # fmt: skip
        """A library that has no plan for three axes, nor in strict float32 for what follows the convolution."""
        extra = bias is not None or residual is not None or bool(relu)
        if x.ndim != 4 or (extra and precision == "fp32" and x.dtype == np.float32):
            return False
        self.convolutions.append((x.strides, bias is not None, residual is not None, relu))
        arrays = [None if item is None else item._data for item in (x, w, out, bias, residual)]
        stream.put(lambda: _convolve(arrays, strides, pads, dilations, groups, relu))
        return True

    def attend(
        self, q: Any, k: Any, v: Any, mask: Any, out: Any, *, scale: float, causal: bool, stream: Any
    ) -> bool:
        """A library for 16 bits and sizes that eight divides."""
        if q.dtype == np.float32 or q.shape[3] % 8 or v.shape[3] % 8:
            return False
        self.attentions += 1
        arrays = [None if item is None else item._data for item in (q, k, v, mask, out)]
        stream.put(lambda: _attend(arrays, scale, causal))
        return True


def _gelu_tanh(x: Any) -> Any:
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def _convolve(arrays: Any, strides: Any, pads: Any, dilations: Any, groups: int, relu: float) -> None:
    source, weight, target, bias, residual = arrays
    wide = np.pad(source.astype(np.float32), [(0, 0), (0, 0), (pads[0], pads[2]), (pads[1], pads[3])])
    each, found = source.shape[1] // groups, np.zeros(target.shape, np.float32)
    rows, columns = target.shape[2:]
    for group in range(groups):
        made = slice(*(np.array([group, group + 1]) * (weight.shape[0] // groups)))
        part = wide[:, group * each : (group + 1) * each]
        for i, j in np.ndindex(*weight.shape[2:]):
            down, right = i * dilations[0], j * dilations[1]
            seen = part[:, :, down :: strides[0], right :: strides[1]][:, :, :rows, :columns]
            found[:, made] += np.einsum("nchw,mc->nmhw", seen, weight[made, :, i, j].astype(np.float32))
    for extra in (bias, residual):
        found = found if extra is None else found + extra
    target[...] = np.clip(found, 0, relu) if relu else found


def _attend(arrays: Any, scale: float, causal: bool) -> None:
    q, k, v, mask, out = (None if item is None else item.astype(np.float32) for item in arrays)
    each = q.shape[1] // k.shape[1]
    scores = q @ k.repeat(each, 1).swapaxes(2, 3) * scale
    scores = scores if mask is None else scores + mask
    if causal:
        scores += np.triu(np.full(scores.shape[2:], -np.inf), 1)
    share = np.exp(scores - scores.max(-1, keepdims=True))
    arrays[4][...] = share / share.sum(-1, keepdims=True) @ v.repeat(each, 1)


def _again(function: Any, args: Any, options: Any, result: Any) -> Callable[[], None]:
    """Do the operation once more into the arrays that it gave when it was recorded."""

    def work() -> None:
        with np.errstate(all="ignore"):
            fresh = function(*args, **options)
        kept = result if isinstance(result, tuple | list) else (result,)
        for target, value in zip(kept, fresh if isinstance(fresh, tuple | list) else (fresh,), strict=True):
            if isinstance(target, np.ndarray) and not np.may_share_memory(target, value):
                np.copyto(target, value)

    return work
