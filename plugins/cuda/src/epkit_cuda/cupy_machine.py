"""The GPU in earnest, through CuPy: its memory pool, streams, graphs and array functions."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from importlib.util import find_spec
from typing import Any, TypeVar

import cupy  # type: ignore[import-not-found,import-untyped,unused-ignore]
import numpy as np

from . import nvrtc
from .arrays import Arrays
from .cublaslt import Products
from .cudnn_graphs import Graphs
from .cudnn_recurrent import Recurrent, library
from .machine import Machine, RawGraph

Made = TypeVar("Made")

FLOAT8_SINCE = 89
"""Compute capability, times ten, from which on GPUs multiply float8."""


def count() -> int:
    """GPUs that the driver shows."""
    return int(cupy.cuda.runtime.getDeviceCount())


class CupyEvent:
    """A point in a stream."""

    def __init__(self, raw: Any) -> None:
        self.raw = raw

    def wait(self) -> None:
        """Block until it is reached."""
        self.raw.synchronize()


class CupyGraph:
    """A recorded and instantiated graph; whoever launches it may be at another GPU."""

    def __init__(self, raw: Any, device: Any) -> None:
        self.raw = raw
        self.device = device

    def launch(self, stream: Any) -> None:
        """Enqueue it."""
        with self.device:
            self.raw.launch(stream.raw)


class CupyStream:
    """An in-order queue; a caller's stream is not destroyed."""

    def __init__(self, raw: Any, device: Any) -> None:
        self.raw = raw
        self.device = device
        self.address = int(raw.ptr)

    def record(self) -> CupyEvent:
        """A point at the present end."""
        return CupyEvent(self.raw.record(cupy.cuda.Event(disable_timing=True)))

    def wait(self, event: Any) -> None:
        """Later work starts after the point."""
        self.raw.wait_event(event.raw)

    def synchronize(self) -> None:
        """Block until it is empty."""
        self.raw.synchronize()

    @contextmanager
    def capture(self) -> Iterator[list[RawGraph]]:
        """Record what is enqueued here. Relaxed: the pool may ask the driver for memory meanwhile."""
        graphs: list[RawGraph] = []
        self.raw.begin_capture(cupy.cuda.runtime.streamCaptureModeRelaxed)
        try:
            yield graphs
        except BaseException:
            with suppress(RuntimeError):  # it raises where the capture is invalid, and ends it all the same
                self.raw.end_capture()
            raise
        graphs.append(CupyGraph(self.raw.end_capture(), self.device))


class CallersStream:
    """A stream that somebody else owns, by its address, as CUDA libraries in Python pass them."""

    def __init__(self, address: int) -> None:
        self.address = address

    def __cuda_stream__(self) -> tuple[int, int]:
        return (0, self.address)


class CupyMachine(Machine):
    """One NVIDIA GPU."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.device = cupy.cuda.Device(index)
        runtime = cupy.cuda.runtime
        with self.device:
            properties = runtime.getDeviceProperties(index)
            self.memory_bytes = int(runtime.memGetInfo()[1])
        self.name = properties["name"].decode()
        self.generation = runtime.driverGetVersion() // 1000
        self.capability = 10 * properties["major"] + properties["minor"]
        self.architecture = f"sm_{self.capability}"
        self.driver = " | ".join(
            map(
                str,
                (self.name, runtime.driverGetVersion(), runtime.runtimeGetVersion(), cupy.__version__),
            )
        )
        self.xp = Arrays(cupy)
        self._lock = threading.Lock()
        self._functions: dict[tuple[str, str], Any] = {}
        self._products = optional("nvmath.bindings.cublasLt", Products)
        self._graphs = optional("cudnn", Graphs)
        self._recurrent: Recurrent | None = None
        self._looked = False

    def allocate(self, nbytes: int) -> Any:
        try:
            with self.device:
                return cupy.cuda.alloc(nbytes)
        except cupy.cuda.memory.OutOfMemoryError as error:
            raise MemoryError(str(error)) from error

    def free(self, buffer: Any) -> None:
        del buffer  # the pool has it back with the last reference

    def view(self, buffer: Any, offset: int, shape: Sequence[int], dtype: np.dtype[Any]) -> Any:
        return cupy.ndarray(tuple(shape), dtype, memptr=buffer + offset)

    def pinned(self, nbytes: int) -> np.ndarray[Any, Any]:
        return np.frombuffer(cupy.cuda.alloc_pinned_memory(nbytes), np.uint8, nbytes)

    def copy_in(self, source: np.ndarray[Any, Any], target: Any, stream: Any) -> None:
        target.data.copy_from_host_async(source.ctypes.data, source.nbytes, stream.raw)

    def copy_out(self, source: Any, target: np.ndarray[Any, Any], stream: Any) -> None:
        source.data.copy_to_host_async(target.ctypes.data, target.nbytes, stream.raw)

    def copy(self, source: Any, target: Any, stream: Any) -> None:
        target.data.copy_from_device_async(source.data, source.nbytes, stream.raw)

    def stream(self, address: int = 0) -> CupyStream:
        with self.device:
            if address:
                return CupyStream(cupy.cuda.Stream.from_external(CallersStream(address)), self.device)
            return CupyStream(cupy.cuda.Stream(non_blocking=True), self.device)

    @contextmanager
    def using(self, stream: Any) -> Iterator[None]:
        with self.device, stream.raw:
            yield

    @contextmanager
    def private_memory(self, pool: Any = None) -> Iterator[Any]:
        pool = cupy.cuda.MemoryPool() if pool is None else pool
        with cupy.cuda.using_allocator(pool.malloc):
            yield pool

    def launch(
        self, source: str, name: str, grid: int, block: int, arguments: Sequence[Any], stream: Any
    ) -> None:
        self._function(source, name)((grid,), (block,), tuple(arguments), stream=stream.raw)

    def _function(self, source: str, name: str) -> Any:
        key = (source, name)
        with self._lock:
            if key not in self._functions:
                module = cupy.cuda.function.Module()
                with self.device:
                    module.load(nvrtc.compiled(source, self.architecture, self.generation))
                self._functions[key] = module.get_function(name)
            return self._functions[key]

    @property
    def recurrent(self) -> Recurrent | None:
        with self._lock:
            if not self._looked:
                found = library()
                upload = cupy.asarray
                self._recurrent = None if found is None else Recurrent(found, new_bytes, upload)
                self._looked = True
            return self._recurrent

    def multiply(
        self, a: Any, b: Any, out: Any, precision: str, *, bias: Any = None, activation: str = ""
    ) -> bool:
        if self._products is not None:
            stream = cupy.cuda.get_current_stream().ptr
            if self._products.multiply(a, b, out, precision, stream, bias, activation):
                return True
            if (bias is not None or activation) and self._products.multiply(a, b, out, precision, stream):
                return False
        if a.dtype == out.dtype:
            cupy.matmul(a, b, out=out)
        else:
            out[...] = cupy.matmul(a.astype(out.dtype), b.astype(out.dtype))
        return bias is None and not activation

    def multiply_eight(self, a: Any, b: Any, out: Any, scales: tuple[Any, Any]) -> bool:
        if self._products is None or self.capability < FLOAT8_SINCE:
            return False
        stream = cupy.cuda.get_current_stream().ptr
        return self._products.multiply(a, b, out, "fp32", stream, scales=scales)

    def convolve(self, x: Any, w: Any, out: Any, *, precision: str, stream: Any, **options: Any) -> bool:
        del options["groups"]  # the library sees it in the shapes
        if self._graphs is None:
            return False
        strict = precision == "fp32"
        return bool(self._graphs.convolve(x, w, out, strict=strict, stream=stream.raw.ptr, **options))

    def attend(
        self, q: Any, k: Any, v: Any, mask: Any, out: Any, *, scale: float, causal: bool, stream: Any
    ) -> bool:
        options = {"scale": scale, "causal": causal, "stream": stream.raw.ptr}
        return self._graphs is not None and bool(self._graphs.attend(q, k, v, mask, out, **options))


def optional(module: str, made: Callable[[Any, Callable[[int], Any]], Made]) -> Made | None:
    """A library's part, or None where the library is not installed."""
    if find_spec(module.partition(".")[0]) is None:
        return None
    return made(import_module(module), new_bytes)


def new_bytes(nbytes: int) -> Any:
    """Memory of the pool, in the order of the current stream."""
    return cupy.empty(nbytes, np.uint8)
