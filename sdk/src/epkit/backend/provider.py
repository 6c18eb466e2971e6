"""The contract: what a plugin implements so that epkit can run models on its hardware.

Five members make a provider: ``name``, ``version``, ``devices``, ``claim``, ``compile``.
Everything else has a host default.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

from .claim import Claim, Refusal
from .contract import CONTRACT_VERSION
from .custom import CustomOperator
from .device import Device, Devices
from .memory import Allocator, HostAllocator, HostStream, Stream
from .options import NoOptions
from .program import MemoryStep, Program
from .subgraph import Subgraph


class Provider(ABC):
    """An execution provider. One instance belongs to one session.

    Attributes:
        name: the name that applications use; equal to the entry point's name.
        version: the plugin's version.
        contract: oldest and newest contract version that the plugin supports.
        Options: a frozen dataclass of the provider's options.
        options: the instance's options.
        maps_saved: True if ``restore`` takes a view of the saved file's map, which stays valid as long as the
            provider holds it, in place of bytes of its own. It begins at a multiple of 64.
    """

    name: ClassVar[str]
    version: ClassVar[str]
    contract: ClassVar[tuple[int, int]] = (CONTRACT_VERSION, CONTRACT_VERSION)
    Options: ClassVar[type[Any]] = NoOptions
    maps_saved: ClassVar[bool] = False

    def __init__(self, options: Any = None) -> None:
        self.options = self.Options() if options is None else options

    @abstractmethod
    def devices(self) -> Devices:
        """The hardware that is there; the first one found is used.

        None found, with a reason, is a valid answer.
        """

    @abstractmethod
    def claim(self, graph: Subgraph) -> Iterable[Claim | Refusal]:
        """Which nodes the provider can run, and why not the others.

        Asked for the main graph and for each body of If, Loop and Scan. Must be a pure function of the graph
        and the options.
        """

    @abstractmethod
    def compile(self, subgraph: Subgraph) -> Program:
        """Compile nodes that were claimed. Subgraphs are convex: no path leaves one and comes back."""

    # ---- optional: each has a host default ----

    def allocator(self, device: Device) -> Allocator:
        """Raw memory of a device whose ``host_memory`` is False."""
        return HostAllocator()

    def stream(self, device: Device) -> Stream:
        """A new queue on the device, for one run."""
        return HostStream()

    def memory_steps(self, subgraph: Subgraph) -> Sequence[MemoryStep]:
        """The steps of the program that ``compile`` will return, for the memory planner.

        By default the program is one step that makes all its outputs itself.
        """
        return (MemoryStep(None, subgraph.inputs, (), subgraph.outputs),)

    def fingerprint(self, device: Device) -> str:
        """What a saved program depends on besides version, options and model: driver, device revision."""
        return ""

    def save(self, program: Program) -> bytes | Sequence[bytes | memoryview] | None:
        """A program as bytes, or as pieces of them, to be restored by a later process.

        None: programs are compiled anew each time.
        """
        return None

    def restore(self, saved: Any, subgraph: Subgraph) -> Program:
        """The program that ``save`` gave; called only if nothing in the fingerprint has changed.

        Args:
            saved: bytes; a memoryview if the provider ``maps_saved``.
            subgraph: what the program was compiled from.
        """
        raise NotImplementedError(f"{self.name} saves programs and must restore them")

    def revive(self, saved: Any, weights: Mapping[str, Any]) -> Program | None:
        """The program that ``save`` gave, from that alone: for a session that is one program on the host.

        Of this program only ``feed``, ``memory`` and ``close`` are used. Where its ``feed`` does not answer, the model
        is loaded in full, and ``restore`` gives the program that is used from then on.

        Args:
            saved: as for ``restore``.
            weights: initializers of the optimised model by their names, as mapped read-only arrays: those that need
                not be saved once more. Small ones are not among them.

        Returns:
            The program; None if there is none without the subgraph.
        """
        return None

    def knows(self, domain: str, op_type: str) -> bool:
        """Whether the provider has kernels for an operator.

        Models may use operators outside the standard that a provider of the session knows. And fusions are tried
        only for operators, of the standard or not, that one of them knows; see ``docs/optimiser.md``.
        """
        return False

    def add_operators(self, operators: Sequence[CustomOperator]) -> None:  # noqa: B027 - optional
        """Custom operators of the application and of operator packages.

        Take them if you run portable functions.
        """

    def reset(self) -> None:  # noqa: B027 - optional, most devices never hang
        """Start the device again after a failure, so that programs that were compiled before run again.

        Called by ``Session.reset``, while nothing runs.
        """

    def close(self) -> None:  # noqa: B027 - optional, most providers own nothing
        """Give back what the instance holds; called once, when its session is closed."""
