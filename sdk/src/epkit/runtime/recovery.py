"""What a session does where a provider fails in a run, or computes something wrong: its nodes move.

The model is loaded again with the nodes of the faulty partition pinned to the fallback, so that the placement
says at any time who runs what, and why.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import onnx_ir as ir

from ..compiling import Compiled
from ..errors import CancelledError, EpkitError, InputError
from ..model.walk import nodes_inside
from ..partition.partitions import Partition, Partitioned, PartitionedGraph
from ..partition.pins import Pins

ON_FAILURE = ("error", "fallback")
VERIFY = ("never", "first-run")


@dataclass
class Recovery:
    """How a session gets over a faulty partition.

    Attributes:
        fallback: the provider that takes over.
        moves: True if a failure moves the partition; else it is raised.
        verifies: True if each partition's first results are compared with the fallback's.
        pins: nodes that the application or an earlier fault placed.
        load: compiles the model with other pins.
    """

    fallback: str
    moves: bool
    verifies: bool
    pins: Pins
    load: Callable[[Pins], Compiled]

    def faults(self, error: EpkitError, partitioned: Partitioned) -> dict[str, str]:
        """The partition that failed and what it said; empty if the error is not a provider's, or must be raised."""
        part = _partitions(partitioned).get(error.where.partition)
        if not self.moves or part is None or isinstance(error, CancelledError | InputError):
            return {}
        assert part.provider is not None
        bound = partitioned.bounds[part.provider]
        return {} if bound.name == self.fallback else {part.name: error.what}

    def without(self, partitioned: Partitioned, faults: Mapping[str, str]) -> Compiled:
        """The model compiled anew, with the nodes of these partitions on the fallback."""
        self.pin(partitioned, faults)
        return self.load(self.pins)

    def pin(self, partitioned: Partitioned, faults: Mapping[str, str]) -> None:
        """From now on, the nodes of these partitions are the fallback's."""
        parts = _partitions(partitioned)
        for name, why in faults.items():
            names = set(_names(parts[name], partitioned.model))
            self.pins = self.pins.moved(
                sorted(names), self.fallback, f"moved after a fault in {name} ({why})"
            )

    def told(self, faults: Mapping[str, str]) -> tuple[str, ...]:
        """What the session says of it."""
        return tuple(f"{partition} was moved to {self.fallback}: {why}" for partition, why in faults.items())


def _partitions(partitioned: Partitioned) -> dict[str, Partition]:
    return {part.name: part for part in _all_partitions(partitioned.main) if part.provider is not None}


def _all_partitions(graph: PartitionedGraph) -> Iterator[Partition]:
    yield from graph.partitions
    for body in graph.bodies.values():
        yield from _all_partitions(body)


def _names(part: Partition, model: ir.Model) -> Iterator[str]:
    """The nodes, those in their bodies, and those inside of the functions that they call."""
    for node in (each for owner in part.subgraph.nodes for each in (owner, *nodes_inside(owner))):
        yield str(node.name)
        function = model.functions.get(node.op_identifier())
        if function is not None:
            for inner in function:
                yield str(inner.name)
                yield f"{node.name}/{inner.name}"
