"""A stand-in for a GPU: device memory that the host cannot read by accident, streams that are late, graphs.

Arrays are NumPy's behind a wall: like CuPy's they refuse to become NumPy arrays or to be mixed with them, and the
ways to the host that do exist (``int(x)``, ``x.tolist()``) are counted, and refused while a graph is recorded.
Kernels in CUDA C++ run through the host's compiler (see ``cuda_emulator``).
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import cuda_emulator
import cuda_standin_library as library
import numpy as np
from cuda_standin_arrays import WAITS, DeviceArray, Namespace
from cuda_standin_streams import LateStream

from epkit_cuda.arrays import Arrays
from epkit_cuda.cudnn_recurrent import Recurrent
from epkit_cuda.machine import Machine


class Late(Recurrent):
    """Layers that wait in the stream like everything else."""

    machine: StandIn

    def run(self, job: Any, weights: Any, x: Any, y: Any, states: Any, stream: int) -> bool:
        queue = self.machine.current
        assert queue is not None and queue.address == stream
        if self._plan(job, stream) is None:
            return False
        queue.put(lambda: super(Late, self).run(job, weights, x, y, states, stream))
        return True


class StandIn(Machine):
    """The pretended GPU; it counts copies, launches and synchronisations."""

    def __init__(self, index: int = 0, limit: int = 1 << 30) -> None:
        self.index, self.limit = index, limit
        self.name, self.architecture, self.driver = "a stand-in", "sm_90", "stand-in 1"
        self.memory_bytes = limit
        self.xp = Arrays(Namespace(self))
        self.current: LateStream | None = None
        self.sources: list[str] = []
        self.in_use = self.copies_in = self.copies_out = self.copies_between = self.launches = 0
        self.products: list[Any] = []
        self.convolutions: list[Any] = []
        self.attentions = 0
        self._recurrent: Late | None = None
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
        self.copies_between += 1
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
    def private_memory(self, pool: Any = None) -> Iterator[Any]:
        yield pool or object()

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
                found = np.maximum(found, 0) if activation == "relu" else library.gelu_tanh(found)
            np.copyto(z, found, casting="unsafe")

        assert self.current is not None
        self.current.put(work)
        return inside or (bias is None and not activation)

    def multiply_eight(self, a: Any, b: Any, out: Any, scales: tuple[Any, Any]) -> bool:
        """A library for sizes that sixteen divides."""
        if any(size % 16 for size in b.shape):
            return False
        x, y, z, left, right = (item._data for item in (a, b, out, *scales))
        assert y.strides[0] == 1 and x.flags.c_contiguous
        self.products.append((x.shape, y.shape, x.dtype.name, y.dtype.name))
        assert self.current is not None
        single = np.float32
        self.current.put(
            lambda: np.copyto(z, x.astype(single) @ y.astype(single) * left * right, casting="unsafe")
        )
        return True

    @property
    def recurrent(self) -> Recurrent | None:
        return self._recurrent

    def use_cudnn(self, fake: Any) -> Any:
        """Have recurrent layers done by a fake of the library."""
        self._recurrent = Late(fake, self._bytes, self.xp.asarray)
        self._recurrent.machine = self
        return fake

    def _bytes(self, nbytes: int) -> Any:
        return self.xp.empty(nbytes, np.uint8)

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
        stream.put(lambda: library.convolve(arrays, strides, pads, dilations, groups, relu))
        return True

    def attend(
        self, q: Any, k: Any, v: Any, mask: Any, out: Any, *, scale: float, causal: bool, stream: Any
    ) -> bool:
        """A library for 16 bits and sizes that eight divides."""
        if q.dtype == np.float32 or q.shape[3] % 8 or v.shape[3] % 8:
            return False
        self.attentions += 1
        arrays = [None if item is None else item._data for item in (q, k, v, mask, out)]
        stream.put(lambda: library.attend(arrays, scale, causal))
        return True


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
