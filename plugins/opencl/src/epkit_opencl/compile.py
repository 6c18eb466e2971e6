"""From a subgraph to a program: chains of formulas are fused, other nodes are kernel calls."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir

from epkit.backend import Kernel, MemoryStep, Program, RunContext, Subgraph
from epkit.kernels.attributes import attribute_values

from .fuse import Chain
from .kernels.formulas import Formula, formula_of
from .kernels.movement import gives_views
from .kernels.views import ALIASES
from .memory import Tensor
from .replay import record

LONGEST = 24
"""Nodes of a chain."""

WIDEST = 12
"""Inputs of a chain."""

ABSENT = -1


@dataclass(frozen=True)
class Step:
    """One launch: a chain, or one node.

    Attributes:
        nodes: what it computes; the last one names it.
        reads: values that it needs.
        chain: None for a kernel call.
        kernel: of the node, if it is no chain.
    """

    nodes: tuple[ir.Node, ...]
    reads: tuple[ir.Value, ...]
    chain: Chain | None
    kernel: Kernel | None

    @property
    def outputs(self) -> tuple[ir.Value, ...]:
        """What it makes."""
        if self.chain is not None:
            return (self.chain.output,)
        return tuple(self.nodes[-1].outputs)

    def memory(self, alignment: int, results: Container[ir.Value]) -> MemoryStep:
        """The step as the memory planner sees it, for memory of this alignment. Kernels may return views.

        A replay asks for memory for all results, whatever they were in the run that was captured.
        """
        node, named = self.nodes[-1], tuple(value for value in self.outputs if value.name)
        if self.chain is not None:
            return MemoryStep(node, self.reads, named, ())
        if follow_each_other(node):
            return MemoryStep(node, self.reads, named, (), joins=True)
        op_type = "" if node.domain else node.op_type
        are_views = op_type in ALIASES or (op_type == "Split" and gives_views(node, alignment))
        if are_views and not any(value in results for value in named):
            return MemoryStep(node, self.reads, (), named)
        return MemoryStep(node, self.reads, named, named)


def follow_each_other(node: ir.Node) -> bool:
    """Whether a node is a Concat whose inputs surely lie one after the other in its result."""
    shape = node.outputs[0].shape
    if node.op_type != "Concat" or node.domain or shape is None or "axis" not in node.attributes:
        return False
    axis = node.attributes["axis"].as_int()
    return all(dim == 1 for dim in tuple(shape)[: axis + len(shape) if axis < 0 else axis])


def steps_of(subgraph: Subgraph, kernel_for: Callable[[ir.Node], Kernel]) -> list[Step]:
    """The steps of a subgraph. A formula joins that of its only reader."""
    kernels = {node: kernel_for(node) for node in subgraph.nodes}
    formulas = {node: found for node, k in kernels.items() if (found := formula_of(k)) is not None}
    readers: dict[ir.Value, list[ir.Node]] = {}
    for node in subgraph.nodes:
        for value in node.inputs:
            if value is not None:
                readers.setdefault(value, []).append(node)
    outside = set(subgraph.outputs)
    chains: dict[ir.Node, list[tuple[ir.Node, Formula]]] = {}
    steps: dict[ir.Node, Step] = {}
    for node in subgraph.nodes:
        if node not in formulas:
            reads = tuple(value for value in node.inputs if value is not None)
            steps[node] = Step((node,), reads, None, kernels[node])
            continue
        members = [(node, formulas[node])]
        for value in node.inputs:
            producer = None if value is None else value.producer()
            if producer in chains and value is not None and value not in outside:
                joined = [pair for pair in (*chains[producer], *members) if pair is not None]
                whole = set(readers[value]) == {node} and len(dict.fromkeys(n for n, _ in joined)) <= LONGEST
                if whole and len(_inputs(joined)) <= WIDEST:
                    members = list(dict(joined).items())
        for inner, _ in members[:-1]:
            chains.pop(inner, None)
            steps.pop(inner, None)
        chains[node] = members
        inputs = _inputs(members)
        steps[node] = Step(
            tuple(n for n, _ in members), tuple(inputs), Chain(members, inputs, subgraph), None
        )
    return list(steps.values())


def _inputs(members: Sequence[tuple[ir.Node, Formula]]) -> list[ir.Value]:
    made = {value for node, _ in members for value in node.outputs}
    found = (value for node, _ in members for value in node.inputs if value is not None and value not in made)
    return list(dict.fromkeys(found))


class ClProgram(Program):
    """Steps over numbered slots; every run enqueues them on its own queue."""

    def __init__(self, subgraph: Subgraph, steps: Sequence[Step], constant: Callable[[Any], Tensor]) -> None:
        self.subgraph = subgraph
        self._slots: dict[ir.Value, int] = {value: slot for slot, value in enumerate(subgraph.inputs)}
        constants: dict[int, Tensor] = {}
        for step in steps:
            for value in step.reads:
                if value not in self._slots and (array := subgraph.constant(value)) is not None:
                    constants[self._slot(value)] = constant(array)
            for value in step.outputs:
                self._slot(value)
        self._inputs = len(subgraph.inputs)
        self._outputs = tuple(self._slots[value] for value in subgraph.outputs)
        self._frame = [constants.get(slot) for slot in range(len(self._slots))]
        self._frame.append(None)  # the last slot is ABSENT
        self._calls = [self._call(step, subgraph) for step in steps]

    def _slot(self, value: ir.Value) -> int:
        return self._slots.setdefault(value, len(self._slots))

    def _call(
        self, step: Step, subgraph: Subgraph
    ) -> tuple[Step, tuple[int, ...], tuple[int, ...], Mapping[str, Any]]:
        reads: Sequence[ir.Value | None] = step.reads if step.chain is not None else step.nodes[0].inputs
        inputs = tuple(ABSENT if value is None else self._slots[value] for value in reads)
        outputs = tuple(self._slot(value) for value in step.outputs)
        keywords: dict[str, Any] = {}
        if step.kernel is not None:
            node = step.nodes[0]
            wanted = step.kernel.attributes
            keywords = {
                name: value
                for name, value in attribute_values(node).items()
                if wanted is None or name in wanted
            }
            filled = {"node": node, "opset": subgraph.opset(node), "n_outputs": len(node.outputs)}
            keywords.update({name: value for name, value in filled.items() if name in step.kernel.wants})
        return step, inputs, outputs, keywords

    def run(self, context: RunContext, inputs: Sequence[Tensor]) -> Sequence[Tensor]:
        slots = self._frame.copy()
        slots[: self._inputs] = inputs
        for step, reads, writes, keywords in self._calls:
            context.begin(step.nodes[-1])
            arguments = [slots[slot] for slot in reads]
            if step.chain is not None:
                result: Any = step.chain.run(context, arguments)  # type: ignore[arg-type]
            else:
                assert step.kernel is not None
                result = step.kernel.function(*arguments, context=context, **keywords)
            for slot, tensor in zip(writes, result if isinstance(result, tuple) else (result,), strict=False):
                slots[slot] = tensor
            context.end(step.nodes[-1])
        return [slots[slot] for slot in self._outputs]  # type: ignore[misc]

    def capture(self, context: RunContext, inputs: Sequence[Tensor]) -> Program | None:
        return record(self, self.subgraph, context, inputs)
