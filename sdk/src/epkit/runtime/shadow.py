"""Verification of a session's first run: every partition's results beside the fallback's.

The first time that a partition runs, the fallback computes the same nodes from the same inputs. What differs
by more than rounding explains is noted, and the session moves the partition (see ``recovery``).
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import onnx_ir as ir

from ..backend.bound import Bound
from ..backend.claim import Claim
from ..backend.device import HOST
from ..backend.memory import HostStream, Tensor
from ..backend.program import Program, ProgramMemory, RunContext
from ..backend.subgraph import Subgraph
from ..compiling import Compiled
from ..partition.partitions import Partition, PartitionedGraph
from .difference import difference, tolerance


@dataclass
class Shadow:
    """Programs that are watched.

    Attributes:
        compiled: the model with these programs.
        wrong: partitions whose results differ, and how.
    """

    compiled: Compiled
    wrong: dict[str, str] = field(default_factory=dict)


def shadow_programs(compiled: Compiled, fallback_name: str) -> Shadow | None:
    """Watch the partitions of all providers but the fallback; None if there is nothing to watch."""
    bounds = compiled.plan.partitioned.bounds
    fallback = next(bound for bound in bounds if bound.name == fallback_name)
    shadow = Shadow(compiled)
    watched: dict[str, Program] = {}
    for part in _all(compiled.plan.partitioned.main):
        if part.provider is None or bounds[part.provider] is fallback:
            continue
        reference = _reference(fallback, part.subgraph)
        if reference is not None:
            program = compiled.programs[part.name]
            watched[part.name] = Watched(
                program, reference, part.subgraph, bounds[part.provider], shadow.wrong
            )
    if not watched:
        return None
    shadow.compiled = replace(compiled, programs={**compiled.programs, **watched})
    return shadow


def _all(graph: PartitionedGraph) -> Sequence[Partition]:
    return [*graph.partitions, *(part for body in graph.bodies.values() for part in _all(body))]


def _reference(fallback: Bound, subgraph: Subgraph) -> Program | None:
    """The fallback's program for the same nodes, if it takes them all."""
    claims = [answer for answer in fallback.provider.claim(subgraph) if isinstance(answer, Claim)]
    claimed = {node for claim in claims for node in claim.nodes}
    return fallback.provider.compile(subgraph) if claimed.issuperset(subgraph.nodes) else None


class Watched(Program):
    """A program whose first run is checked."""

    def __init__(
        self, program: Program, reference: Program, subgraph: Subgraph, bound: Bound, wrong: dict[str, str]
    ) -> None:
        self.program, self.reference, self.subgraph, self.bound = program, reference, subgraph, bound
        self.wrong = wrong
        self._checked = False
        self._lock = threading.Lock()

    def run(self, context: RunContext, inputs: Sequence[Tensor]) -> Sequence[Tensor]:
        if self._checked:
            return self.program.run(context, inputs)
        with self._lock:
            given = [self._on_host(context, tensor) for tensor in inputs]
            results = self.program.run(context, inputs)
            if not self._checked:
                found = [self._on_host(context, tensor) for tensor in results]
                self._compare(found, self.reference.run(HostContext(), given))
                self._checked = True
            return results

    def _compare(self, found: Sequence[Any], expected: Sequence[Any]) -> None:
        for value, one, other in zip(self.subgraph.outputs, found, expected, strict=True):
            apart = difference(one, np.asarray(other) if isinstance(other, np.generic) else other)
            if not apart.within(tolerance(other, None)):
                self.wrong[self.subgraph.name] = f"{value.name} is wrong by {apart}"
                return

    def _on_host(self, context: RunContext, tensor: Tensor) -> Any:
        if self.bound.device.host_memory or not hasattr(tensor, "dtype"):
            return np.array(tensor) if isinstance(tensor, np.ndarray | np.generic) else tensor
        array = np.empty(tuple(tensor.shape), tensor.dtype)
        self.bound.allocator.copy_out(tensor, array, context.stream)
        context.stream.synchronize()
        return array

    def memory(self) -> ProgramMemory | None:
        return self.program.memory()

    def capture(self, context: RunContext, inputs: Sequence[Tensor]) -> Program | None:
        return self.program.capture(context, inputs)

    def close(self) -> None:
        self.reference.close()
        self.program.close()


class HostContext(RunContext):
    """A context apart from any run: plain memory, no profile."""

    def __init__(self) -> None:
        self.device = HOST
        self.stream = HostStream()

    def empty(self, value: ir.Value, shape: Sequence[int], dtype: np.dtype[Any]) -> Tensor:
        return np.empty(tuple(shape), dtype)

    def begin(self, node: ir.Node) -> None:
        return None

    def end(self, node: ir.Node) -> None:
        return None
