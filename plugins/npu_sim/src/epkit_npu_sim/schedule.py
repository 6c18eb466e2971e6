"""From tiles to a stream: scratchpad slots, the program's image, and the counters that keep order.

Code that lowers layers only says what is to be done in which order. What must wait for what is derived here
from the bytes that commands touch, so double buffering is a matter of having two slots.
"""

from __future__ import annotations

import math
import zlib
from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from . import isa
from .machine import Machine
from .memory import packed

GRANULE = 64
PAGE = 4096
Span = tuple[int, int]


class ScratchpadError(Exception):
    """A layer needs more scratchpad than there is."""


class Slots:
    """Equal slots in the scratchpad that hold tiles; the one used longest ago goes first."""

    def __init__(self, addresses: Sequence[int]) -> None:
        self._free = list(addresses)
        self._held: OrderedDict[Hashable, int] = OrderedDict()

    def get(self, key: Hashable) -> tuple[int, bool]:
        """The slot of a tile, and whether the tile is in it already."""
        if key in self._held:
            self._held.move_to_end(key)
            return self._held[key], True
        address = self._free.pop(0) if self._free else self._held.popitem(last=False)[1]
        self._held[key] = address
        return address, False


@dataclass
class Image:
    """Constants of a program; equal ones are kept once."""

    parts: list[bytes] = field(default_factory=list)
    size: int = 0
    _known: dict[bytes, int] = field(default_factory=dict)

    def add(self, data: bytes) -> int:
        """The offset of the data in the image."""
        if data not in self._known:
            self._known[data] = self.size
            padding = -len(data) % GRANULE
            self.parts.append(data + bytes(padding))
            self.size += len(data) + padding
        return self._known[data]


class Scoreboard:
    """For each granule of a memory, the last command of each engine that read it and that wrote it."""

    def __init__(self, nbytes: int, granule: int) -> None:
        self._granule = granule
        shape = (2, len(isa.ENGINES), -(-nbytes // granule) + 1)
        self._last: np.ndarray[Any, np.dtype[np.int64]] = np.zeros(shape, np.int64)

    def _part(self, span: Span) -> slice:
        return slice(span[0] // self._granule, -(-span[1] // self._granule))

    def needs(self, span: Span, write: bool) -> Any:
        """How many commands each engine must have done before the span may be read, or written."""
        last = self._last[:, :, self._part(span)]
        return (last if write else last[1:]).max(axis=(0, 2), initial=0)

    def note(self, span: Span, write: bool, engine: int, count: int) -> None:
        """Command number ``count`` of an engine touches the span."""
        self._last[int(write), engine, self._part(span)] = count


class Stream:
    """Builds the commands of a program."""

    def __init__(self, machine: Machine, base_sizes: Sequence[int], compress: bool = False) -> None:
        self.machine = machine
        self.compress = compress
        self.commands: list[isa.Command] = []
        self.image = Image()
        self.tag = 0
        self._counts = np.zeros(len(isa.ENGINES), np.int64)
        self._spad = Scoreboard(machine.scratchpad, GRANULE)
        self._dram = [Scoreboard(size, PAGE) for size in base_sizes]
        self._loads_before = 0  # of earlier layers: their sources may become this layer's results
        self._bottom, self._top, self._from_top = 0, 0, False
        self._taken: list[Span] = []

    # ---- layers and scratchpad ----

    def begin_layer(self, tag: int) -> None:
        """Start a layer; it takes slots from the end of the scratchpad that the last one did not."""
        self.tag = tag
        self._loads_before = int(self._counts[isa.LOAD])
        self._from_top = not self._from_top
        self._bottom, self._top = 0, self.machine.scratchpad
        self._taken = []

    def take(self, nbytes: int) -> int:
        """Scratchpad for as long as the layer lasts.

        Raises:
            ScratchpadError: if there is too little.
        """
        size = -(-nbytes // GRANULE) * GRANULE
        if self._top - self._bottom < size:
            raise ScratchpadError(
                f"{size:,} more bytes of scratchpad wanted, {self._top - self._bottom:,} of "
                f"{self.machine.scratchpad:,} are left"
            )
        if self._from_top:
            self._top -= size
            address = self._top
        else:
            address = self._bottom
            self._bottom += size
        self._taken.append((address, address + size))
        return address

    def slots(self, nbytes: int, count: int = 2) -> Slots:
        """Slots for tiles; two are double buffering."""
        return Slots([self.take(nbytes) for _ in range(count)])

    # ---- commands ----

    def emit(
        self,
        op: isa.Operands,
        reads: Sequence[Span] = (),
        writes: Sequence[Span] = (),
        dram: tuple[int, Span] | None = None,
    ) -> None:
        """Append a command that touches these spans of the scratchpad, and this one of a tensor in DRAM."""
        storing = op.ENGINE == isa.STORE
        touched = [(self._spad, span, False) for span in reads]
        for span in writes:
            assert any(a <= span[0] and span[1] <= b for a, b in self._taken), f"{op} writes beyond its slot"
            touched.append((self._spad, span, True))
        if dram is not None:
            touched.append((self._dram[dram[0]], dram[1], storing))
        needs = np.zeros(len(isa.ENGINES), np.int64)
        needs[isa.LOAD] = self._loads_before if storing else 0
        self._counts[op.ENGINE] += 1
        for board, span, write in touched:
            np.maximum(needs, board.needs(span, write), out=needs)
            board.note(span, write, op.ENGINE, int(self._counts[op.ENGINE]))
        needs[op.ENGINE] = 0  # an engine is in order by itself
        load, store, array, vector = map(int, needs)
        self.commands.append(isa.Command(op, self.tag, (load, store, array, vector)))

    def transfer(
        self,
        kind: type[isa.Load] | type[isa.Store],
        base: int,
        dram: int,
        spad: int,
        size: int,
        counts: Sequence[int],
        strides: Sequence[int],
    ) -> None:
        """Load or store a strided box."""
        dense = [(spad, spad + size * math.prod(counts))]
        reach = size + sum((n - 1) * s for n, s in zip(counts, strides, strict=True))
        if math.prod(counts):
            reads, writes = ((), dense) if kind is isa.Load else (dense, ())
            op = kind(base, dram, spad, size, *counts, *strides)
            self.emit(op, reads, writes, (base, (dram, dram + reach)))

    def constant(self, data: np.ndarray[Any, Any], spad: int) -> None:
        """Load constants, with a checksum; compressed if that is shorter."""
        plain = np.ascontiguousarray(data).tobytes()
        if not plain:
            return
        crc = zlib.crc32(plain)
        short = packed(np.frombuffer(plain, np.uint8)) if self.compress else plain
        smaller = len(short) < len(plain)
        offset = self.image.add(short if smaller else plain)
        signed = crc - (1 << 32) if crc >= 1 << 31 else crc
        op = isa.Load(0, offset, spad, 1, 1, 1, len(plain), 0, 0, 1, signed, len(short) if smaller else 0)
        self.emit(op, (), [(spad, spad + len(plain))])
