"""The timing model: how many clocks each command takes, and what happens when, event by event.

No duration depends on data, so a stream has one timeline, whatever it is given to work on.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush

from . import isa
from .machine import Machine

ARRAY_OVERHEAD = 8
VECTOR_OVERHEAD = 16
QUEUE = 16
"""Commands that may wait for an engine; the command processor stops at the first for which there is no room."""

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


Transfer = isa.Load | isa.Store | isa.Gather


def transfer_cycles(machine: Machine, op: Transfer) -> int:
    """Clocks of a DMA transfer: latency, then each contiguous run in whole words."""
    if isinstance(op, isa.Gather):
        return int(machine.dma_latency + op.n0 * op.count * -(-op.size // machine.dma_bytes))
    run, runs = op.size, 1
    for count, stride in ((op.n2, op.s2), (op.n1, op.s1), (op.n0, op.s0)):
        if runs == 1 and (stride == run or count == 1):
            run *= count
        else:
            runs *= count
    if isinstance(op, isa.Load) and op.packed:
        run = op.packed
    return int(machine.dma_latency + runs * -(-run // machine.dma_bytes))


def moved_bytes(op: Transfer) -> int:
    """Bytes that cross the border of DRAM."""
    if isinstance(op, isa.Gather):
        return int(op.n0 * op.count * op.size)
    return int(getattr(op, "packed", 0) or op.n0 * op.n1 * op.n2 * op.size)


def work(op: isa.Operands) -> tuple[int, int]:
    """(multiply-adds on the array, lane operations of the vector unit)."""
    if isinstance(op, isa.MatMul):
        return op.m * op.k * op.n, 0
    if isinstance(op, isa.Conv):
        return op.out * op.channels * op.kh * op.kw * op.ho * op.wo, 0
    if isinstance(op, isa.DepthConv | isa.PoolMax | isa.PoolSum):
        return 0, op.channels * op.ho * op.wo * op.kh * op.kw
    if isinstance(op, isa.Add | isa.Mul | isa.Select | isa.Table | isa.Polynomial):
        return 0, op.n * (3 if isinstance(op, isa.Polynomial) else 1)
    if isinstance(op, isa.Requantise | isa.Softmax | isa.LayerNorm):
        return 0, op.rows * op.cols * (1 if isinstance(op, isa.Requantise) else 4)
    return 0, 0


def duration(machine: Machine, op: isa.Operands) -> int:
    """Clocks that a command keeps its engine busy."""
    if isinstance(op, Transfer):
        return transfer_cycles(machine, op)
    if isinstance(op, isa.MatMul):
        return product_cycles(machine, op.k, op.n, op.m)
    if isinstance(op, isa.Conv):
        return product_cycles(machine, op.channels * op.kh * op.kw, op.out, op.ho * op.wo)
    if isinstance(op, isa.Barrier):
        return 1
    return VECTOR_OVERHEAD + -(-work(op)[1] // machine.lanes)


@dataclass(frozen=True)
class Event:
    """At a clock, the command with this number begins or ends."""

    clock: int
    index: int
    ends: bool


def events(machine: Machine, commands: Sequence[isa.Command]) -> Iterator[Event]:
    """The life of a stream, clock by clock; what ends at a clock comes before what begins at it.

    The command processor deals commands out to the queues of the engines, in the order of the stream. An engine
    begins the first of its queue when it is free and the counters of all engines are where the command wants them.

    Raises:
        ValueError: if nothing can ever begin again, though commands are left.
    """
    queues: list[deque[int]] = [deque() for _ in isa.ENGINES]
    done, free = [0] * len(queues), [True] * len(queues)
    ends: list[tuple[int, int]] = []
    clock = dealt = 0
    while True:
        began = True
        while began:  # a command that begins makes room in its queue
            while dealt < len(commands) and len(queues[commands[dealt].op.ENGINE]) < QUEUE:
                queues[commands[dealt].op.ENGINE].append(dealt)
                dealt += 1
            began = False
            for engine, queue in enumerate(queues):
                if queue and free[engine] and _ready(commands[queue[0]], done):
                    index = queue.popleft()
                    free[engine], began = False, True
                    heappush(ends, (clock + duration(machine, commands[index].op), index))
                    yield Event(clock, index, False)
        if not ends:
            break
        clock = ends[0][0]
        while ends and ends[0][0] == clock:
            _, index = heappop(ends)
            engine = commands[index].op.ENGINE
            free[engine] = True
            done[engine] += 1
            yield Event(clock, index, True)
    for queue in queues:
        if queue:
            counts = ", ".join(f"{name} {n}" for name, n in zip(isa.ENGINES, done, strict=True))
            raise ValueError(
                f"the machine hangs: command {queue[0]} ({commands[queue[0]]}) waits; done are {counts}"
            )


def _ready(command: isa.Command, done: Sequence[int]) -> bool:
    return all(have >= want for have, want in zip(done, command.waits, strict=True))


@dataclass
class LayerTime:
    """What one layer did. Times in clocks, ``busy`` by engine."""

    start: int
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

    def add(self, op: isa.Operands, start: int, end: int) -> None:
        """Count a command."""
        self.start, self.end = min(self.start, start), max(self.end, end)
        self.busy[op.ENGINE] += end - start
        macs, lanes = work(op)
        self.macs += macs
        self.lane_operations += lanes
        if isinstance(op, isa.Store):
            self.stored += moved_bytes(op)
        elif isinstance(op, Transfer):
            self.loaded += moved_bytes(op)


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

    def layers(self) -> dict[int, LayerTime]:
        """What each layer did, by its tag."""
        found: dict[int, LayerTime] = {}
        for command, start, end in zip(self.commands, self.starts, self.ends, strict=True):
            found.setdefault(command.tag, LayerTime(start)).add(command.op, start, end)
        return found

    def total(self) -> LayerTime:
        """All layers in one."""
        result = LayerTime(0)
        for command, start, end in zip(self.commands, self.starts, self.ends, strict=True):
            result.add(command.op, start, end)
        return result

    def shares(self) -> dict[int, int]:
        """For each layer, the clocks by which it moved the end of the work so far; they sum to all."""
        found: dict[int, int] = {}
        reached = 0
        for tag, layer in self.layers().items():
            found[tag] = max(0, layer.end - reached)
            reached = max(reached, layer.end)
        return found

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


def simulate(machine: Machine, commands: Sequence[isa.Command]) -> Timeline:
    """The timeline of a stream.

    Raises:
        ValueError: if the machine would hang.
    """
    starts, ends = [0] * len(commands), [0] * len(commands)
    for event in events(machine, commands):
        (ends if event.ends else starts)[event.index] = event.clock
    return Timeline(machine, commands, starts, ends)
