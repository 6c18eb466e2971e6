"""What the provider needs of a GPU, in one place: memory, streams, graphs, compiled kernels, library calls.

``cupy_machine`` is the one in earnest. Whatever else this package does is host logic, which tests run on a
stand-in of this class.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import numpy as np

from .cudnn_recurrent import Recurrent


class RawEvent(Protocol):
    """A point in a stream."""

    def wait(self) -> None:
        """Block the calling thread until it is reached."""


class RawGraph(Protocol):
    """Recorded work."""

    def launch(self, stream: RawStream) -> None:
        """Enqueue it."""


class RawStream(Protocol):
    """An in-order queue.

    Attributes:
        address: of its ``cudaStream_t``.
    """

    address: int

    def record(self) -> RawEvent:
        """A point at its present end."""

    def wait(self, event: RawEvent) -> None:
        """Let later work of this queue start after the point."""

    def synchronize(self) -> None:
        """Block until it is empty."""

    def capture(self) -> AbstractContextManager[list[RawGraph]]:
        """Record what is enqueued inside, instead of running it; the list holds the graph at the end."""


class Machine(ABC):
    """One GPU. Arrays belong to the namespace ``xp`` and are dense unless a view was taken.

    Attributes:
        index: among the machine's GPUs.
        name: the maker's name of it.
        architecture: such as ``sm_90``.
        driver: versions that compiled code depends on.
        memory_bytes: of the GPU.
        xp: the array namespace.
    """

    index: int
    name: str
    architecture: str
    driver: str
    memory_bytes: int
    xp: Any

    @abstractmethod
    def allocate(self, nbytes: int) -> Any:
        """Raw memory; raises MemoryError."""

    @abstractmethod
    def free(self, buffer: Any) -> None:
        """Give it back."""

    @abstractmethod
    def view(self, buffer: Any, offset: int, shape: Sequence[int], dtype: np.dtype[Any]) -> Any:
        """A dense array over raw memory."""

    @abstractmethod
    def pinned(self, nbytes: int) -> np.ndarray[Any, Any]:
        """Bytes of the host's memory that copies reach without a detour."""

    @abstractmethod
    def copy_in(self, source: np.ndarray[Any, Any], target: Any, stream: RawStream) -> None:
        """Enqueue a copy of a contiguous host array."""

    @abstractmethod
    def copy_out(self, source: Any, target: np.ndarray[Any, Any], stream: RawStream) -> None:
        """Enqueue a copy to a contiguous host array."""

    @abstractmethod
    def copy(self, source: Any, target: Any, stream: RawStream) -> None:
        """Enqueue a copy between dense arrays of equal bytes on the device."""

    @abstractmethod
    def stream(self, address: int = 0) -> RawStream:
        """A new queue, or the one at an address, which is the caller's."""

    @abstractmethod
    def using(self, stream: RawStream) -> AbstractContextManager[None]:
        """Make array operations of this thread go into the stream."""

    @abstractmethod
    def private_memory(self, pool: Any = None) -> AbstractContextManager[Any]:
        """Take the memory of new arrays from a pool: the one given, or a new one, which is returned."""

    @abstractmethod
    def launch(
        self, source: str, name: str, grid: int, block: int, arguments: Sequence[Any], stream: RawStream
    ) -> None:
        """Enqueue a kernel of a CUDA C++ source, compiled once.

        Arguments are arrays (their address is passed) and NumPy scalars.
        """

    @abstractmethod
    def multiply(
        self, a: Any, b: Any, out: Any, precision: str, *, bias: Any = None, activation: str = ""
    ) -> bool:
        """out = a b for matrices or equal batches of them; sums in float32 (float64, int32 for such operands).

        Args:
            a, b, out: [m, k], [k, n], [m, n], or with one axis before; ``out`` is dense.
            precision: ``tf32`` rounds float32 operands to it.
            bias: n numbers, added to each row.
            activation: "", ``relu`` or ``gelu_tanh``: what is done to the sum.

        Returns:
            True if bias and activation are done; False if they are left to the caller.
        """

    @abstractmethod
    def multiply_eight(self, a: Any, b: Any, out: Any, scales: tuple[Any, Any]) -> bool:
        """out = (a scale_a)(b scale_b) for matrices of float8, sums in float32; False where there is no plan.

        Args:
            a, b, out: [m, k], rows dense; [k, n], columns dense; [m, n], dense.
            scales: one float32 each, on the device.
        """

    @abstractmethod
    def convolve(
        self,
        x: Any,
        w: Any,
        out: Any,
        *,
        strides: Sequence[int],
        pads: Sequence[int],
        dilations: Sequence[int],
        groups: int,
        precision: str,
        stream: RawStream,
        bias: Any = None,
        residual: Any = None,
        relu: float = 0.0,
    ) -> bool:
        """out = relu(x * w + bias + residual) over one to three spatial axes, the last three where asked for.

        ``relu`` is the rectifier's upper bound: 0 for none, infinite for the plain one.

        The arrays are [N, C, ...], [M, C / groups, ...] and [N, M, ...], in any order of memory. False where the
        library has no plan for exactly this.
        """

    @abstractmethod
    def attend(
        self, q: Any, k: Any, v: Any, mask: Any, out: Any, *, scale: float, causal: bool, stream: RawStream
    ) -> bool:
        """out = softmax(scale q k' + mask) v for [batch, heads, length, size]; False where there is no plan."""

    @property
    def recurrent(self) -> Recurrent | None:
        """Recurrent layers by a library, or None where there is none."""
        return None
