"""A provider that hands whole subgraphs, as ONNX models, to ``onnx.reference``.

It stands for every vendor whose compiler reads ONNX: its partitions go through ``Subgraph.to_model``, and
it takes If, Loop and Scan whole, bodies included.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import numpy as np
from onnx.reference import ReferenceEvaluator

from ..backend.claim import Claim, Refusal
from ..backend.device import Device, Devices
from ..backend.program import Program, RunContext
from ..backend.provider import Provider
from ..backend.subgraph import Subgraph
from .awkward import Picker, everything


class ReferenceProvider(Provider):
    """Claims what its picker names; see :func:`reference_provider`."""

    version = "1.0"
    pick: ClassVar[Picker]

    def devices(self) -> Devices:
        return Devices((Device(f"{self.name}:0", "toy", "onnx.reference"),))

    def claim(self, graph: Subgraph) -> Iterable[Claim | Refusal]:
        groups = [tuple(group) for group in type(self).pick(graph)]
        yield from map(Claim, groups)
        claimed = {node for group in groups for node in group}
        yield from (
            Refusal(node, "cost", f"{self.name} did not pick {node.name}")
            for node in graph.nodes
            if node not in claimed
        )

    def compile(self, subgraph: Subgraph) -> Program:
        return ReferenceProgram(subgraph)


class ReferenceProgram(Program):
    """One evaluator for the whole partition; nodes are not seen one by one."""

    def __init__(self, subgraph: Subgraph) -> None:
        self.evaluator = ReferenceEvaluator(subgraph.to_model())

    def run(self, context: RunContext, inputs: Sequence[Any]) -> Sequence[Any]:
        feeds = dict(zip(self.evaluator.input_names, inputs, strict=True))
        with np.errstate(all="ignore"):
            return list(self.evaluator.run(None, feeds))


def reference_provider(name: str, pick: Picker = everything) -> type[ReferenceProvider]:
    """A provider class of that name."""
    return type(name, (ReferenceProvider,), {"name": name, "pick": staticmethod(pick)})
