"""What ``compile`` returns, and the context that it runs in."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .budget import Budget
from .device import Device
from .memory import Stream, Tensor

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir


class RunContext(ABC):
    """One run of one partition. Grows by new methods; never loses one within a contract version.

    Attributes:
        device: where the program runs.
        stream: the run's queue on that device.
        observed: False where nobody watches the nodes of this run (no profile, no cancellation): ``begin`` and
            ``end`` may be left out then.
    """

    device: Device
    stream: Stream
    observed: bool = True

    @abstractmethod
    def empty(self, value: ir.Value, shape: Sequence[int], dtype: np.dtype[Any]) -> Tensor:
        """Memory for a value, from the core's arena on this device; contents undefined.

        It stays valid for as long as the steps that the provider stated (``memory_steps``) need it.

        Raises:
            DeviceMemoryError: if the device has too little memory.
        """

    @abstractmethod
    def begin(self, node: ir.Node) -> None:
        """Call before a node that is run on its own.

        Raises CancelledError if the caller cancelled the run.
        """

    @abstractmethod
    def end(self, node: ir.Node) -> None:
        """Call after it; the node goes into the profile, memory that it used last is given back."""

    def measure(self, **counters: float) -> None:  # noqa: B027 - optional, most devices count nothing
        """Between begin and end: what the device counts for this node, for the profile; sums over all calls.

        The profile's table has columns for ``cycles``, ``bytes`` (moved) and the quotient of ``macs`` (done) and
        ``peak_macs`` (possible in those cycles).
        """

    def event(  # noqa: B027 - optional, too
        self, name: str, row: str, start: int, duration: int, **details: object
    ) -> None:
        """Something that a part of the device did, for the profile's timeline, which has one row for each part.

        Times in nanoseconds of ``time.perf_counter_ns``.
        """


@dataclass(frozen=True)
class ProgramMemory:
    """Memory that a program holds by itself, in bytes; the sum over all its runs.

    Attributes:
        held: what it holds now, for values of runs.
        peak: the most that it held.
        allocations: how often it asked the system.
        reused: requests that were served without asking.
        lower_bound: the most bytes of values alive at once in the latest run: what no plan can do without.
        spared: bytes of values that needed no memory of their own in it: views, parts of a Concat that are written
            into its result, results that take the place of an input.
        packed: bytes of weights in the form that the program reads; not those that it reads as the model has them.
        mapped: of these, pages of a mapped file, which the system can take back.
    """

    held: int
    peak: int
    allocations: int
    reused: int
    lower_bound: int = 0
    spared: int = 0
    packed: int = 0
    mapped: int = 0


class Program(ABC):
    """A compiled partition. It must allow several ``run`` calls at once, each with its own context.

    Attributes:
        feed: None, or a shortcut for a session that is this program and nothing else, on the host and without
            anybody who watches. It takes a dict of inputs by the names of ``Subgraph.inputs`` and gives a dict of
            outputs by the names of ``Subgraph.outputs``: arrays that share memory with nothing else. It must check
            dtype, rank and fixed dimensions itself. Where anything is out of the ordinary it returns
            NotImplemented, or raises: the run is then done again the long way, which says what is wrong.
    """

    feed: Callable[[dict[str, Any]], Any] | None = None

    @abstractmethod
    def run(self, context: RunContext, inputs: Sequence[Tensor]) -> Sequence[Tensor]:
        """Compute the partition's outputs, in the order of ``Subgraph.outputs``.

        Inputs come in the order of ``Subgraph.inputs`` and must not be written. Any exception is reported
        with the provider's, the partition's and (after ``context.begin``) the node's name.
        """

    def capture(self, context: RunContext, inputs: Sequence[Tensor]) -> Program | None:
        """A program that replays this one for inputs of the same shapes, faster; None: not for these.

        Called after a few runs under the same shapes, if the application asked for capture. What it returns is
        run in place of this program; its results must be equal.
        """
        return None

    def memory(self) -> ProgramMemory | None:
        """Memory for values that the program manages itself, for the session's statistics."""
        return None

    def limit(self, budget: Budget) -> None:  # noqa: B027 - optional, most programs leave memory to the core
        """Called once, before the first run, where the application has set a budget for the program's device.

        A program that manages memory for values itself then asks ``budget.reserve`` before it takes any, and tells
        ``budget.release`` of what it gives back. Where it is refused, the run raises ``budget.refusal()``.
        """

    def close(self) -> None:  # noqa: B027 - optional, most programs own nothing
        """Give back what the program holds; called once, when the session is closed."""


@dataclass(frozen=True)
class MemoryStep:
    """One step of a program, as the memory planner sees it.

    Attributes:
        node: the node of the step, or None if the whole program is one step.
        reads: values that are read.
        writes: outputs whose memory the program asks from the core (``RunContext.empty``).
        aliases: outputs that it makes itself; they may be views of what it reads. An output of which only the
            run shows whether it is a view or new memory is named in both.
        joins: True if the one write is what is read, one after the other without gaps, as of a Concat along the first
            axis. What is read may then lie there already: it was written into its place. The program copies the rest.
    """

    node: ir.Node | None
    reads: tuple[ir.Value, ...]
    writes: tuple[ir.Value, ...]
    aliases: tuple[ir.Value, ...]
    joins: bool = False
