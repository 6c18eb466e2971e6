"""The timing model: how many clocks each command takes, and when it can start.

Static: no duration depends on data. Engines work in parallel and each in the order of the stream; a command
starts when its engine is free and the commands that its counters name are done.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from . import isa
from .machine import Machine

ARRAY_OVERHEAD = 8
VECTOR_OVERHEAD = 16

PICOJOULES = {"mac": 0.2, "vector": 0.4, "spad_byte": 0.6, "dram_byte": 20.0}
"""Energy of one event: assumptions of the data sheet, not measurements."""


def product_cycles(machine: Machine, k: int, n: int, streamed: int) -> int:
    """Clocks of a product with a stationary k x n matrix, past which ``streamed`` vectors flow.

    Each tile of the matrix costs max(streamed, array) clocks (the next one is loaded meanwhile); the first load,
    and the way through the array at the end, are paid once.
    """
    size = machine.array
    tiles = -(-k // size) * -(-n // size)
    return size + tiles * max(streamed, size) + 2 * size - 2 + ARRAY_OVERHEAD


def transfer_cycles(machine: Machine, op: isa.Load | isa.Store) -> int:
    """Clocks of a DMA transfer: latency, then each contiguous run in whole words."""
    counts, strides = (op.n0, op.n1, op.n2), (op.s0, op.s1, op.s2)
    run = op.size
    runs = 1
    for count, stride in zip(reversed(counts), reversed(strides), strict=True):
        if runs == 1 and (stride == run or count == 1):
            run *= count
        else:
            runs *= count
    if isinstance(op, isa.Load) and op.packed:
        run = op.packed
    return machine.dma_latency + runs * -(-run // machine.dma_bytes)


def work(op: isa.Operands) -> tuple[int, int]:
    """(multiply-adds on the array, lane operations of the vector unit)."""
    if isinstance(op, isa.MatMul):
        return op.m * op.k * op.n, 0
    if isinstance(op, isa.Conv):
        return op.out * op.channels * op.kh * op.kw * op.ho * op.wo, 0
    if isinstance(op, isa.DepthConv | isa.PoolMax | isa.PoolSum):
        return 0, op.channels * op.ho * op.wo * op.kh * op.kw
    if isinstance(op, isa.Requantise):
        return 0, op.rows * op.cols
    if isinstance(op, isa.Add | isa.Mul | isa.Table):
        return 0, op.n
    if isinstance(op, isa.Polynomial):
        return 0, 3 * op.n
    if isinstance(op, isa.Softmax):
        return 0, 4 * op.rows * op.cols
    if isinstance(op, isa.LayerNorm):
        return 0, 4 * op.rows * op.cols
    return 0, 0


def duration(machine: Machine, op: isa.Operands) -> int:
    """Clocks that a command keeps its engine busy."""
    if isinstance(op, isa.Load | isa.Store):
        return transfer_cycles(machine, op)
    if isinstance(op, isa.MatMul):
        return product_cycles(machine, op.k, op.n, op.m)
    if isinstance(op, isa.Conv):
        return product_cycles(machine, op.channels * op.kh * op.kw, op.out, op.ho * op.wo)
    if isinstance(op, isa.Barrier):
        return 1
    return VECTOR_OVERHEAD + -(-work(op)[1] // machine.lanes)


@dataclass
class LayerTime:
    """What one layer did. Times in clocks, ``busy`` by engine."""

    start: int = 0
    end: int = 0
    busy: list[int] = field(default_factory=lambda: [0, 0, 0, 0])
    macs: int = 0
    lane_operations: int = 0
    loaded: int = 0
    stored: int = 0

    @property
    def cycles(self) -> int:
        """From its first command to the end of its last."""
        return self.end - self.start


@dataclass(frozen=True)
class Timeline:
    """When each command of a stream starts and ends, in clocks."""

    machine: Machine
    commands: Sequence[isa.Command]
    starts: Sequence[int]
    ends: Sequence[int]

    @property
    def cycles(self) -> int:
        """Until everything is done."""
        return max(self.ends, default=0)

    @property
    def milliseconds(self) -> float:
        """The same by the clock."""
        return self.cycles / self.machine.clock_mhz / 1e3

    def order(self) -> list[isa.Command]:
        """The commands in the order in which the engines start them."""
        ranked = sorted(range(len(self.commands)), key=lambda index: (self.starts[index], index))
        return [self.commands[index] for index in ranked]

    def layers(self) -> dict[int, LayerTime]:
        """What each layer did, by its tag."""
        found: dict[int, LayerTime] = defaultdict(LayerTime)
        for command, start, end in zip(self.commands, self.starts, self.ends, strict=True):
            layer = found.setdefault(command.tag, LayerTime(start=start))
            layer.start, layer.end = min(layer.start, start), max(layer.end, end)
            layer.busy[command.op.ENGINE] += end - start
            macs, lanes = work(command.op)
            layer.macs += macs
            layer.lane_operations += lanes
            if isinstance(command.op, isa.Load):
                layer.loaded += command.op.packed or _bytes(command.op)
            elif isinstance(command.op, isa.Store):
                layer.stored += _bytes(command.op)
        return dict(found)

    def shares(self) -> dict[int, int]:
        """For each layer, the clocks by which it moved the end of the work so far; they sum to all."""
        found: dict[int, int] = {}
        reached = 0
        for tag, layer in self.layers().items():
            found[tag] = max(0, layer.end - reached)
            reached = max(reached, layer.end)
        return found

    def total(self) -> LayerTime:
        """All layers in one."""
        result = LayerTime(end=self.cycles)
        for layer in self.layers().values():
            result.busy = [a + b for a, b in zip(result.busy, layer.busy, strict=True)]
            result.macs += layer.macs
            result.lane_operations += layer.lane_operations
            result.loaded += layer.loaded
            result.stored += layer.stored
        return result

    def utilisation(self) -> float:
        """Multiply-adds done, of those that the array could have done in the time."""
        return self.total().macs / max(1, self.cycles * self.machine.array**2)

    def stalls(self) -> dict[str, int]:
        """For each engine, the clocks in which it had nothing to do before the end."""
        busy = self.total().busy
        return {name: self.cycles - spent for name, spent in zip(isa.ENGINES, busy, strict=True)}

    def millijoules(self) -> float:
        """An estimate from the events and the energies that the data sheet assumes for each."""
        total = self.total()
        moved = total.loaded + total.stored
        touched = 2 * total.macs / self.machine.array + 3 * total.lane_operations + moved
        return (
            total.macs * PICOJOULES["mac"]
            + total.lane_operations * PICOJOULES["vector"]
            + touched * PICOJOULES["spad_byte"]
            + moved * PICOJOULES["dram_byte"]
        ) / 1e9


def _bytes(op: isa.Load | isa.Store) -> int:
    return op.n0 * op.n1 * op.n2 * op.size


def simulate(machine: Machine, commands: Sequence[isa.Command]) -> Timeline:
    """The timeline of a stream.

    Raises:
        ValueError: if a command waits for one that comes after it (the machine would hang).
    """
    done: list[list[int]] = [[0] for _ in isa.ENGINES]  # end of the n-th command of each engine
    starts, ends = [], []
    for index, command in enumerate(commands):
        start = done[command.op.ENGINE][-1]
        for engine, count in enumerate(command.waits):
            if count >= len(done[engine]):
                raise ValueError(
                    f"command {index} ({command}) waits for command {count} of the {isa.ENGINES[engine]} engine, "
                    f"of which {len(done[engine]) - 1} come before it"
                )
            start = max(start, done[engine][count])
        end = start + duration(machine, command.op)
        done[command.op.ENGINE].append(end)
        starts.append(start)
        ends.append(end)
    return Timeline(machine, commands, starts, ends)
