"""The smallest provider, whole: it runs ``Relu`` and ``Neg`` of float32 on the host, and nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

import epkit.backend as ep

FUNCTIONS: dict[str, Any] = {"Relu": lambda x: np.maximum(x, np.float32(0)), "Neg": np.negative}


class NullProvider(ep.Provider):
    name = "null"
    version = "1.0"

    def devices(self) -> ep.Devices:
        return ep.Devices((ep.Device("null:0", "example", "no hardware at all"),))

    def claim(self, graph: ep.Subgraph) -> Iterable[ep.Claim | ep.Refusal]:
        for node in graph.nodes:
            if node.domain != "" or node.op_type not in FUNCTIONS:
                yield ep.Refusal(node, "no-kernel", f"null runs only {', '.join(FUNCTIONS)}")
            elif (found := ep.element_type(node.inputs[0])) != "float32":
                yield ep.Refusal(node, "dtype", f"null needs float32, found {found}", "T in float32", found)
            else:
                yield ep.Claim((node,))

    def compile(self, subgraph: ep.Subgraph) -> ep.Program:
        return NullProgram(subgraph)


class NullProgram(ep.Program):
    def __init__(self, subgraph: ep.Subgraph) -> None:
        self.subgraph = subgraph

    def run(self, context: ep.RunContext, inputs: Sequence[ep.Tensor]) -> Sequence[ep.Tensor]:
        values = dict(zip(self.subgraph.inputs, inputs, strict=True))
        for node in self.subgraph.nodes:
            source = node.inputs[0]
            array = values[source] if source in values else self.subgraph.constant(source)
            values[node.outputs[0]] = FUNCTIONS[node.op_type](array)
        return [values[value] for value in self.subgraph.outputs]


@ep.hookimpl
def epkit_providers() -> Sequence[type[ep.Provider]]:
    return [NullProvider]
