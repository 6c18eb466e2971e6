"""The machine: its parameters, and what executes a command stream on them.

An instruction reads when it begins and writes when it ends. In between, other engines work.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import isa
from .engines import array, vector
from .engines.array import Array, Result
from .memory import Dram, box_view, unpacked


@dataclass(frozen=True)
class Machine:
    """The parameters of a chip.

    Attributes:
        array: rows and columns of the systolic array.
        lanes: elements that the vector unit works on in a clock.
        scratchpad: bytes.
        dram: bytes.
        dma_bytes: bytes that each of the two DMA engines moves in a clock.
        dma_latency: clocks before the first byte of a transfer arrives.
        clock_mhz: of all engines.
    """

    array: int = 32
    lanes: int = 64
    scratchpad: int = 1 << 20
    dram: int = 256 << 20
    dma_bytes: int = 16
    dma_latency: int = 64
    clock_mhz: float = 1000.0

    def __str__(self) -> str:
        return (
            f"{self.array}x{self.array} int8, {self.lanes} lanes, {self.scratchpad >> 10} KiB scratchpad, "
            f"{self.dma_bytes} B/clock, {self.clock_mhz:g} MHz"
        )


class ChecksumError(Exception):
    """Bytes arrived that are not those that were sent."""


MEANINGS: dict[type[Any], Callable[[Array, Any], Result]] = {
    isa.MatMul: array.matmul,
    isa.Conv: array.conv,
    isa.DepthConv: vector.depth_conv,
    isa.PoolMax: vector.pool_max,
    isa.PoolSum: vector.pool_sum,
    isa.Requantise: vector.requantise,
    isa.Add: vector.add,
    isa.Mul: vector.mul,
    isa.Select: vector.select,
    isa.Table: vector.table,
    isa.Polynomial: vector.polynomial,
    isa.Softmax: vector.softmax,
    isa.LayerNorm: vector.layer_norm,
    isa.Barrier: lambda spad, op: (spad[:0], spad[:0]),
}


class Core:
    """One run of a stream: a scratchpad, and the tensors that the host bound. Not shared between threads."""

    def __init__(self, machine: Machine, dram: Dram) -> None:
        self.machine = machine
        self.dram = dram
        self.spad: Array = np.empty(machine.scratchpad, np.uint8)
        self.flip: int | None = None  # the bit that the next load turns over, for fault injection

    def result(self, op: isa.Operands, bases: Sequence[int]) -> Result:
        """What an instruction makes of the memories as they are now, and where it comes when it ends.

        ``bases`` holds the DRAM address of each tensor.

        Raises:
            ChecksumError: if what a load brings is not what was sent.
            IndexError: if a transfer leaves DRAM, or an index its axis.
        """
        if isinstance(op, isa.Load):
            return self._load(op, bases[op.base] + op.dram)
        if isinstance(op, isa.Store):
            source = self._elements(op.spad, op.size, (op.n0, op.n1, op.n2))
            return box_view(self.dram.bytes, bases[op.base] + op.dram, op), source.copy()
        if isinstance(op, isa.Gather):
            return self._gather(op, bases[op.base] + op.dram)
        return MEANINGS[type(op)](self.spad, op)

    def step(self, op: isa.Operands, bases: Sequence[int]) -> None:
        """Execute one instruction, from its beginning to its end."""
        place, numbers = self.result(op, bases)
        place[...] = numbers

    def _elements(self, address: int, size: int, shape: tuple[int, ...]) -> Array:
        """Opaque elements in the scratchpad."""
        return np.ndarray(shape, f"V{size}", self.spad, address)

    def _load(self, op: isa.Load, address: int) -> Result:
        shape = (op.n0, op.n1, op.n2)
        if op.packed:
            arrived = unpacked(self.dram.bytes[address : address + op.packed], op.n2).reshape(shape)
        else:
            arrived = box_view(self.dram.bytes, address, op).copy()
        raw, expected = arrived.reshape(-1).view(np.uint8), op.crc & 0xFFFFFFFF
        if self.flip is not None:
            expected = expected or zlib.crc32(raw.data)
            raw[self.flip // 8 % raw.size] ^= np.uint8(1 << self.flip % 8)
            self.flip = None
        if expected and (found := zlib.crc32(raw.data)) != expected:
            raise ChecksumError(
                f"{raw.size} bytes from DRAM address {address:#x} arrived with checksum {found:08x}, "
                f"expected {expected:08x}"
            )
        return self._elements(op.spad, op.size, shape), arrived

    def _gather(self, op: isa.Gather, address: int) -> Result:
        index = np.ndarray((op.count,), f"i{op.index_size}", self.spad, op.index)
        if np.any((index < -op.limit) | (index >= op.limit)):
            raise IndexError(
                f"an index is not in [{-op.limit}, {op.limit - 1}]: {index.min()} to {index.max()}"
            )
        box = isa.Store(op.base, 0, 0, op.size, op.n0, op.limit, 1, op.s0, op.s1, 0)
        rows = box_view(self.dram.bytes, address, box)[:, index, 0]
        return self._elements(op.spad, op.size, (op.n0, op.count)), rows
