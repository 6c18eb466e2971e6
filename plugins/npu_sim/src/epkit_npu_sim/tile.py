"""Boxes of tensors: how they lie in DRAM, how they are cut into tiles, and what becomes of a finished tile."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from . import isa
from .schedule import Span, Stream

Ints = tuple[int, ...]


@dataclass(frozen=True)
class View:
    """A strided view of a tensor in DRAM; ``offset`` and ``strides`` in bytes, stride 0 repeats."""

    base: int
    shape: Ints
    strides: Ints
    size: int
    offset: int = 0

    def box(self, start: Sequence[int], shape: Sequence[int]) -> View:
        """A part of it."""
        offset = self.offset + sum(a * s for a, s in zip(start, self.strides, strict=True))
        return replace(self, offset=offset, shape=tuple(shape))

    def padded(self, shape: Ints) -> View:
        """With axes of one element behind the others."""
        return replace(
            self, shape=shape, strides=self.strides + (self.size,) * (len(shape) - len(self.shape))
        )

    def permuted(self, order: Iterable[int]) -> View:
        """Axes in another order."""
        order = tuple(order)
        strides = tuple(self.strides[a] for a in order)
        return replace(self, shape=tuple(self.shape[a] for a in order), strides=strides)

    def stretched(self, shape: Ints) -> View:
        """It repeats itself to a shape, as broadcasting does."""
        own = zip(self.shape, self.strides, strict=True)
        strides = (0,) * (len(shape) - len(self.shape)) + tuple(0 if n == 1 else s for n, s in own)
        return replace(self, shape=shape, strides=strides)

    def reshaped(self, shape: Sequence[int]) -> View:
        """The same bytes in another shape, if it is dense."""
        return replace(self, shape=tuple(shape), strides=row_major(shape, self.size))

    def load(self, stream: Stream, spad: int) -> None:
        """Bring it into the scratchpad, dense."""
        self._transfer(isa.Load, stream, spad)

    def store(self, stream: Stream, spad: int) -> None:
        """Write it from a dense tile in the scratchpad."""
        self._transfer(isa.Store, stream, spad)

    def _transfer(self, kind: type[isa.Load] | type[isa.Store], stream: Stream, spad: int) -> None:
        """Boxes of three dimensions."""
        shape, strides = collapse(self.shape, self.strides)
        missing = (1,) * (3 - len(shape))
        counts, steps = missing + shape[-3:], (0,) * len(missing) + strides[-3:]
        for number, index in enumerate(itertools.product(*map(range, shape[:-3]))):
            dram = self.offset + sum(i * s for i, s in zip(index, strides[:-3], strict=True))
            at = spad + number * math.prod(counts) * self.size
            stream.transfer(kind, self.base, dram, at, self.size, counts, steps)


def dense(base: int, shape: Sequence[int], size: int) -> View:
    """A whole tensor."""
    return View(base, tuple(shape), row_major(shape, size), size)


def row_major(shape: Sequence[int], size: int) -> Ints:
    """Strides in bytes of a contiguous tensor."""
    strides = [size]
    for count in reversed(shape[1:]):
        strides.append(strides[-1] * count)
    return tuple(reversed(strides[: len(shape)]))


def collapse(shape: Ints, strides: Ints) -> tuple[Ints, Ints]:
    """The same elements in fewer dimensions."""
    counts: list[int] = []
    steps: list[int] = []
    for count, stride in zip(shape, strides, strict=True):
        if count == 1:
            continue
        if counts and steps[-1] == count * stride:
            counts[-1], steps[-1] = counts[-1] * count, stride
        else:
            counts.append(count)
            steps.append(stride)
    return (tuple(counts), tuple(steps)) if counts else ((1,), (0,))


def boxes(shape: Sequence[int], limit: int) -> Iterator[tuple[Ints, Ints]]:
    """Cut a tensor into boxes (start, shape) of at most ``limit`` elements; the last dimensions stay whole
    for as long as they fit.
    """
    chosen = list(shape)
    for axis in range(len(chosen)):
        rest = math.prod(chosen[axis + 1 :])
        chosen[axis] = max(1, min(chosen[axis], limit // max(1, rest)))
        if chosen[axis] > 1 or rest <= limit:
            break
    for start in itertools.product(
        *(range(0, count, max(1, step)) for count, step in zip(shape, chosen, strict=True))
    ):
        yield start, tuple(min(c, n - a) for a, n, c in zip(start, shape, chosen, strict=True))


def span(address: int, nbytes: int) -> Span:
    """Bytes from an address on."""
    return address, address + nbytes


Tail = Callable[[Stream, Ints, Ints, int], int]
"""Emits what a fused node does to a box (start, shape) of its output at an address; gives the new address."""


@dataclass(frozen=True)
class Finish:
    """What happens to finished tiles of a layer: fused nodes, then the way to DRAM.

    ``pending`` makes the fused nodes' tails once it is known how many elements a tile has at most.
    """

    output: View
    pending: tuple[Callable[[int], Tail], ...] = ()
    tails: tuple[Tail, ...] = ()

    def sized(self, elements: int) -> Finish:
        """With scratchpad for tiles of so many elements."""
        return replace(self, pending=(), tails=tuple(make(elements) for make in self.pending))

    def __call__(self, stream: Stream, start: Ints, shape: Ints, address: int) -> None:
        """The box of the output with this start and shape lies at an address, dense."""
        for tail in self.tails:
            address = tail(stream, start, shape, address)
        self.output.box(start, shape).store(stream, address)


def fields(**values: int) -> dict[str, int]:
    """Operands by name."""
    return values


def requantise(
    stream: Stream, acc: int, params: int, rows: int, cols: int, axis: int, out: dict[str, int]
) -> None:
    """Emit Requantise."""
    count = (rows, cols, 1)[axis]
    size = isa.TYPE_BYTES[out["y_type"]]
    stream.emit(
        isa.Requantise(**out, acc=acc, params=params, rows=rows, cols=cols, axis=axis),
        reads=[span(acc, rows * cols * 4), span(params, count * 12)],
        writes=[span(out["y"], rows * cols * size)],
    )
