"""From a subgraph to a program: chains of formulas are fused, other nodes are kernel calls."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir

from epkit.backend import Kernel, Program, RunContext, Subgraph
from epkit.errors import EpkitError
from epkit.kernels.attributes import attribute_values

from .capture import Replay
from .epilogue import absorb
from .fuse import Chain
from .kernels.eight import before_product, fuse_products
from .kernels.formulas import Formula, formula_of
from .launch import stream_of
from .memory import Tensor
from .step import Step
from .together import Group, group
from .turned import join

LONGEST = 24
"""Nodes of a chain."""

WIDEST = 12
"""Inputs of a chain."""

ABSENT = -1

Members = list[tuple[ir.Node, Formula]]


def steps_of(
    subgraph: Subgraph, kernel_for: Callable[[ir.Node], Kernel], precision: str = "fp32"
) -> list[Step | Group]:
    """The steps of a subgraph. A formula joins that of its only reader; what one kernel can do is a group."""
    readers: dict[ir.Value, set[ir.Node]] = {}
    for node in subgraph.nodes:
        for value in node.inputs:
            if value is not None:
                readers.setdefault(value, set()).add(node)
    outside = set(subgraph.outputs)
    chains: dict[ir.Node, Members] = {}
    steps: dict[ir.Node, Step] = {}
    for node in subgraph.nodes:
        kernel = kernel_for(node)
        formula = formula_of(kernel)
        if formula is None:
            reads = tuple(value for value in node.inputs if value is not None)
            steps[node] = Step((node,), reads, None, kernel)
            continue
        members: Members = [(node, formula)]
        for value in () if before_product(node, readers) else node.inputs:
            producer = None if value is None else value.producer()
            if producer not in chains or value is None or value in outside or readers[value] != {node}:
                continue
            joined = [*chains[producer], *(pair for pair in members if pair not in chains[producer])]
            if len(joined) <= LONGEST and len(_inputs(joined)) <= WIDEST:
                members = joined
        for inner, _ in members[:-1]:
            chains.pop(inner, None)
            steps.pop(inner, None)
        chains[node] = members
        inputs = _inputs(members)
        chain = Chain(members, inputs, subgraph)
        steps[node] = Step(tuple(inner for inner, _ in members), tuple(inputs), chain, None)
    found = fuse_products(absorb(list(steps.values()), readers, subgraph), readers, subgraph, precision)
    return join(group(found, readers, subgraph, precision), readers, subgraph, precision)


def _inputs(members: Members) -> list[ir.Value]:
    made = {value for node, _ in members for value in node.outputs}
    found = (value for node, _ in members for value in node.inputs if value is not None and value not in made)
    return list(dict.fromkeys(found))


@dataclass(frozen=True)
class Call:
    """One step with its slots."""

    step: Step
    reads: tuple[int, ...]
    writes: tuple[int, ...]
    keywords: Mapping[str, Any]
    last_uses: tuple[int, ...]

    @property
    def node(self) -> ir.Node:
        """What names it."""
        return self.step.nodes[-1]

    def run(self, context: RunContext, slots: list[Tensor | None]) -> None:
        """Enqueue it, between two slots and the next."""
        arguments = [slots[slot] for slot in self.reads]
        if self.step.chain is not None:
            results: Sequence[Tensor] = (self.step.chain.run(context, arguments),)  # type: ignore[arg-type]
        else:
            assert self.step.kernel is not None
            result = self.step.kernel.function(*arguments, context=context, **self.keywords)
            results = result if isinstance(result, tuple) else (result,)
        for slot, tensor in zip(self.writes, results, strict=False):
            slots[slot] = tensor


@dataclass(frozen=True)
class Joint:
    """A group with its slots."""

    group: Group
    calls: tuple[Call, ...]
    slots: Mapping[ir.Value, int]
    last_uses: tuple[int, ...]

    @property
    def node(self) -> ir.Node:
        """What names it."""
        return self.group.nodes[-1]

    def run(self, context: RunContext, slots: list[Tensor | None]) -> None:
        """Enqueue it by its shortcut, or call by call."""
        given = {
            value: tensor for value in self.group.reads if (tensor := slots[self.slots[value]]) is not None
        }
        made = self.group.shortcut.run(context, given)
        if made is not None:
            for value, tensor in made.items():
                slots[self.slots[value]] = tensor
            return
        for call in self.calls:
            call.run(context, slots)


class CudaProgram(Program):
    """Steps over numbered slots; a run enqueues them on its stream."""

    def __init__(
        self, subgraph: Subgraph, steps: Sequence[Step | Group], constant: Callable[[Any, bool], Tensor]
    ) -> None:
        self.name = subgraph.name
        self.output_values = subgraph.outputs
        self._slots: dict[ir.Value, int] = {value: slot for slot, value in enumerate(subgraph.inputs)}
        constants: dict[int, Tensor] = {}
        by_columns = weights_of_products(subgraph)
        for step in steps:
            for value in step.reads:
                if value not in self._slots and (array := subgraph.constant(value)) is not None:
                    constants[self._slot(value)] = constant(array, value in by_columns)
            for value in step.outputs:
                self._slot(value)
        self._inputs = len(subgraph.inputs)
        self._outputs = tuple(self._slots[value] for value in subgraph.outputs)
        self._frame = [constants.get(slot) for slot in range(len(self._slots))]
        self._frame.append(None)  # the last slot is ABSENT
        last = self._last_uses(steps, {*self._outputs, *constants})
        self._calls = [self._bound(step, subgraph, last.get(at, ())) for at, step in enumerate(steps)]

    def _slot(self, value: ir.Value) -> int:
        return self._slots.setdefault(value, len(self._slots))

    def _last_uses(self, steps: Sequence[Step | Group], keep: set[int]) -> dict[int, tuple[int, ...]]:
        """For each step, the slots that nobody needs after it: their memory goes back to the pool."""
        last = {self._slots[v]: at for at, step in enumerate(steps) for v in (*step.reads, *step.outputs)}
        result: dict[int, tuple[int, ...]] = {}
        for slot, at in last.items():
            if slot not in keep:
                result[at] = (*result.get(at, ()), slot)
        return result

    def _bound(self, step: Step | Group, subgraph: Subgraph, last_uses: tuple[int, ...]) -> Call | Joint:
        if isinstance(step, Step):
            return self._call(step, subgraph, last_uses)
        calls = tuple(self._call(inner, subgraph, ()) for inner in step.steps)
        slots = {value: self._slots[value] for value in (*step.reads, *step.outputs)}
        return Joint(step, calls, slots, last_uses)

    def _call(self, step: Step, subgraph: Subgraph, last_uses: tuple[int, ...]) -> Call:
        plain = step.kernel is not None and len(step.nodes) == 1
        reads: Sequence[ir.Value | None] = step.nodes[0].inputs if plain else step.reads
        inputs = tuple(ABSENT if value is None else self._slots[value] for value in reads)
        keywords: dict[str, Any] = {}
        if step.kernel is not None:
            node, wanted = step.nodes[0], step.kernel.attributes
            attributes = attribute_values(node)
            keywords = {name: v for name, v in attributes.items() if wanted is None or name in wanted}
            if step.activation:
                keywords["activation"] = step.activation
            filled = {"node": step.nodes[-1], "opset": subgraph.opset(node), "n_outputs": len(node.outputs)}
            keywords.update({name: v for name, v in filled.items() if name in step.kernel.wants})
        return Call(step, inputs, tuple(map(self._slot, step.outputs)), keywords, last_uses)

    def run(self, context: RunContext, inputs: Sequence[Tensor]) -> Sequence[Tensor]:
        stream = stream_of(context)
        slots: list[Tensor | None] = self._frame.copy()
        slots[: self._inputs] = inputs
        with stream.machine.using(stream.raw):
            for call in self._calls:
                context.begin(call.node)
                try:
                    call.run(context, slots)
                except EpkitError as error:
                    error.at(node=str(call.node.name))
                    raise
                for slot in call.last_uses:
                    slots[slot] = None
                context.end(call.node)
        return [slots[slot] for slot in self._outputs]  # type: ignore[misc]

    def capture(self, context: RunContext, inputs: Sequence[Tensor]) -> Program | None:
        return Replay.of(self, context, inputs)


def weights_of_products(subgraph: Subgraph) -> set[ir.Value]:
    """Constant matrices that are only ever the second factor of a product: their columns are kept dense."""
    readers: dict[ir.Value, list[bool]] = {}
    for node in subgraph.nodes:
        for index, value in enumerate(node.inputs):
            if value is not None:
                plain = node.op_type == "MatMul" and not node.domain and index == 1
                readers.setdefault(value, []).append(
                    plain and value.shape is not None and len(value.shape) == 2
                )
    return {value for value, found in readers.items() if all(found) and subgraph.constant(value) is not None}
