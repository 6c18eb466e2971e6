"""The machine: its parameters, and what executes a command stream on them.

Two orders of execution give the same bytes: that of the stream, and that in which the engines would start
the commands. The second shows that the counters in the stream are enough.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import isa
from .engines import array, vector
from .memory import Dram, box_view, unpacked

Bytes = np.ndarray[Any, np.dtype[np.uint8]]


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


Meaning = Callable[[Bytes, Any], None]
MEANINGS: dict[type[isa.Operands], Meaning] = {
    isa.MatMul: array.matmul,
    isa.Conv: array.conv,
    isa.DepthConv: vector.depth_conv,
    isa.PoolMax: vector.pool_max,
    isa.PoolSum: vector.pool_sum,
    isa.Requantise: vector.requantise,
    isa.Add: vector.add,
    isa.Mul: vector.mul,
    isa.Table: vector.table,
    isa.Polynomial: vector.polynomial,
    isa.Softmax: vector.softmax,
    isa.LayerNorm: vector.layer_norm,
    isa.Barrier: lambda spad, op: None,
}


class Core:
    """One run of a stream: a scratchpad, and the tensors that the host bound. Not shared between threads."""

    def __init__(self, machine: Machine, dram: Dram) -> None:
        self.machine = machine
        self.dram = dram
        self.spad: Bytes = np.empty(machine.scratchpad, np.uint8)
        self.flip: int | None = None  # the bit that the next load turns over, for fault injection

    def execute(self, commands: Iterable[isa.Command], bases: Sequence[int]) -> None:
        """Execute commands in the order given; ``bases`` holds the DRAM address of each tensor."""
        for command in commands:
            self.step(command.op, bases)

    def step(self, op: isa.Operands, bases: Sequence[int]) -> None:
        """Execute one instruction."""
        if isinstance(op, isa.Load):
            self._load(op, bases[op.base] + op.dram)
        elif isinstance(op, isa.Store):
            self._store(op, bases[op.base] + op.dram)
        else:
            MEANINGS[type(op)](self.spad, op)

    def _load(self, op: isa.Load, address: int) -> None:
        if op.packed:
            sent = unpacked(self.dram.bytes[address : address + op.packed], op.n2)
        else:
            sent = box_view(self.dram.bytes, address, op)
        count = op.n0 * op.n1 * op.n2 * op.size
        arrived = self.spad[op.spad : op.spad + count]
        arrived.view(f"V{op.size}").reshape(op.n0, op.n1, op.n2)[...] = sent.reshape(op.n0, op.n1, op.n2)
        expected = op.crc & 0xFFFFFFFF
        if self.flip is not None and count:
            expected = expected or _crc(arrived)
            arrived[self.flip // 8 % count] ^= np.uint8(1 << self.flip % 8)
            self.flip = None
        if expected and _crc(arrived) != expected:
            raise ChecksumError(
                f"{count} bytes from DRAM address {address:#x} arrived with checksum "
                f"{_crc(arrived):08x}, expected {expected:08x}"
            )

    def _store(self, op: isa.Store, address: int) -> None:
        count = op.n0 * op.n1 * op.n2 * op.size
        source = self.spad[op.spad : op.spad + count].view(f"V{op.size}")
        box_view(self.dram.bytes, address, op)[...] = source.reshape(op.n0, op.n1, op.n2)


def _crc(data: Bytes) -> int:
    return zlib.crc32(data.data)
