"""If, Loop and Scan as steps of the native engine: which of them it takes, and their bodies in the flat list of steps.

A body's steps stand between those of the graph around it, and read its values by their slots. What a slot holds is
dropped after its last use in the region (a graph) that makes it; to that region, all that happens in a body happens at
the end of the control-flow node.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from typing import TYPE_CHECKING

from epkit.backend import KernelTable, Refusal, Subgraph

from .lower.step import Body, Operand, Step, longs
from .lower.types import kind_of, native_type

if TYPE_CHECKING:
    import onnx_ir as ir

ABSENT = -1
CONTROL = frozenset({"If", "Loop", "Scan"})
STEPS = frozenset({"move", "branch", "begin", "trip", "next", "finish"})
"""The engine's names."""


def is_control_flow(node: ir.Node) -> bool:
    """True for If, Loop and Scan."""
    return node.domain == "" and node.op_type in CONTROL


# ---- what is taken ----


def refusal(node: ir.Node, graph: Subgraph, table: KernelTable) -> Refusal | None:
    """Why a control-flow node stays with the runtime; None if the engine runs it whole.

    Args:
        table: of kernels, one of which must take each node of the bodies.
    """
    if node.op_type == "Scan" and graph.opset(node) < 9:
        return Refusal(node, "opset", "Scan-8, with an axis of batches, has no native form", "opset >= 9")
    bodies = graph.bodies(node)
    if node.op_type != "If":
        given, formal = len(node.inputs), len(node.attributes["body"].as_graph().inputs)
        if formal != max(given, 2 if node.op_type == "Loop" else 0):
            return Refusal(node, "attribute", f"its body has {formal} inputs for {given} of the node")
    for name, body in bodies.items():
        for inner in body.nodes:
            found = refusal(inner, body, table) if is_control_flow(inner) else table.find(inner, body)
            if isinstance(found, Refusal):
                reason = f"{inner.name} in {name} is not taken: {found.reason}"
                return Refusal(node, found.code, reason, found.constraint, found.actual)
    return _mistyped(node, list(bodies.values()))


def _mistyped(node: ir.Node, bodies: Sequence[Subgraph]) -> Refusal | None:
    """A refusal if values that go from one name to another are no tensors, or not of one type."""
    for values in _same_values(node, bodies):
        kinds = [kind_of(value) for value in values]
        if len(set(kinds)) > 1 or not native_type(kinds[0])[1]:
            names = ", ".join(dict.fromkeys(str(value.name) for value in values))
            shown = ", ".join(dict.fromkeys(kind or "no tensor of a known type" for kind in kinds))
            reason = f"{names}: the engine carries tensors of one type of numbers, and found {shown}"
            return Refusal(node, "dtype", reason, "tensors of numbers", shown)
    return None


def _same_values(node: ir.Node, bodies: Sequence[Subgraph]) -> Iterator[list[ir.Value]]:
    """Values that a run may take for each other."""
    ports = Ports.of(node, bodies)
    rows: list[tuple[ir.Value | None, ...]] = [
        (ports.outputs[i], *(body.outputs[i] for body in bodies)) for i in range(len(ports.outputs))
    ]
    if node.op_type != "If":
        carried, kept = ports.carried, len(ports.outputs)
        formals, results = ports.formals, bodies[0].outputs[len(bodies[0].outputs) - kept :]
        rows = [(ports.outputs[i], results[i]) for i in range(kept)]
        rows += [(ports.initial[i], formals[ports.first + i], results[i]) for i in range(carried)]
        rows += list(zip(ports.sliced, formals[ports.first + carried :], strict=True))
    for row in rows:
        yield [value for value in row if value is not None]


@dataclass(frozen=True)
class Ports:
    """The inputs and outputs of a control-flow node by what they are for.

    Attributes:
        head: the condition of an If; the number of trips and the condition of a Loop, None where absent.
        initial: the first of the values that are carried from trip to trip.
        sliced: inputs of a Scan that go into its trips slice by slice.
        formals: the body's own inputs: of a Loop the trip's number and the condition, what is carried, slices.
        outputs: the last of what is carried, then what is collected; None where one is not named.
    """

    head: tuple[ir.Value | None, ...]
    initial: tuple[ir.Value, ...]
    sliced: tuple[ir.Value, ...]
    formals: tuple[ir.Value, ...]
    outputs: tuple[ir.Value | None, ...]

    @property
    def carried(self) -> int:
        """How many values are carried."""
        return len(self.initial)

    @property
    def first(self) -> int:
        """The place of the first one among the formals."""
        return len(self.formals) - self.carried - len(self.sliced)

    @classmethod
    def of(cls, node: ir.Node, bodies: Sequence[Subgraph]) -> Ports:
        """Read a node."""
        outputs = tuple(value if value.name else None for value in node.outputs)
        inputs = tuple(node.inputs)
        if node.op_type == "If":
            return cls(inputs[:1], (), (), (), outputs)
        heads = 2 if node.op_type == "Loop" else 0
        head = (*inputs[:heads], *(None,) * (heads - len(inputs)))
        rest = tuple(value for value in inputs[heads:] if value is not None)
        n_sliced = 0 if heads else node.attributes["num_scan_inputs"].as_int()
        split = len(rest) - n_sliced
        missing = (len(bodies[0].outputs) - heads // 2) - len(outputs)
        formals = bodies[0].inputs[: heads + len(rest)]
        return cls(head, rest[:split], rest[split:], formals, (*outputs, *(None,) * missing))


# ---- steps in one list ----


@dataclass(eq=False)
class Row:
    """A step in the engine's list.

    Attributes:
        step: of a node, or of control flow.
        reads, writes: slots.
        region: steps of one region run all or none.
        target: of control flow, the row to go on with.
        loop: of control flow, its number.
        frees: slots that nobody needs afterwards.
    """

    step: Step
    reads: list[int]
    writes: list[int]
    region: int
    target: Row | None = None
    loop: int = ABSENT
    frees: list[int] = field(default_factory=list)


class _Region:
    """The rows of one graph, those of the bodies within it among them."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.rows: list[Row] = []
        self.made: set[int] = set()
        self._uses: list[tuple[Row, set[int]]] = []

    def add(self, row: Row, made: Sequence[int] | None = None) -> Row:
        """One step; ``made`` if not all that it writes belongs here."""
        made = row.writes if made is None else made
        self.rows.append(row)
        self.made.update(made)
        self._uses.append((row, {*row.reads, *made} - {ABSENT}))
        return row

    def enclose(self, rows: Sequence[Row], made: Sequence[int], inner: set[int]) -> None:
        """All of a control-flow node, whose bodies' own slots are ``inner``."""
        self.rows += rows
        self.made.update(made)
        touched = {slot for row in rows for slot in (*row.reads, *row.writes)}
        self._uses.append((rows[-1], (touched | set(made)) - inner - {ABSENT}))

    def touched(self) -> set[int]:
        """The slots that its steps use."""
        return {slot for _, slots in self._uses for slot in slots}

    def settle(self, kept: set[int]) -> None:
        """Drop each slot that is made here after its last use, but for those that are kept."""
        last = {slot: row for row, slots in self._uses for slot in slots if slot in self.made}
        for slot, row in last.items():
            if slot not in kept:
                row.frees.append(slot)


class Flat:
    """Steps with bodies as one list of rows, and the loops among them.

    Args:
        slot: numbers an operand.
        result: numbers an output; ABSENT if nobody reads it.
    """

    def __init__(self, slot: Callable[[Operand], int], result: Callable[[Operand], int]) -> None:
        self.loops: list[tuple[object, ...]] = []
        self._slot, self._result = slot, result
        self._numbers = count()

    def rows(self, steps: Sequence[Step], inputs: Sequence[int], outputs: Sequence[int]) -> list[Row]:
        """The rows of a partition."""
        region = self._region(steps)
        region.made.update(inputs)
        region.settle(set(outputs))
        return region.rows

    def _region(self, steps: Sequence[Step]) -> _Region:
        region = _Region(next(self._numbers))
        for step in steps:
            if step.bodies:
                (self._if if step.nodes[0].op_type == "If" else self._loop)(step, region)
            else:
                reads = [self._slot(value) for value in step.inputs]
                region.add(Row(step, reads, [self._result(value) for value in step.outputs], region.number))
        return region

    def _slots(self, values: Sequence[Operand]) -> list[int]:
        return [self._slot(value) for value in values]

    def _if(self, step: Step, around: _Region) -> None:
        ports = Ports.of(step.nodes[0], [body.graph for body in step.bodies])
        outputs = [self._result(value) for value in ports.outputs]
        end = _row("move", step, [], [], around)
        regions = []
        branches = {body.name: body for body in step.bodies}
        for body in (branches["then_branch"], branches["else_branch"]):
            region = self._region(body.steps)
            pairs = [
                (self._slot(v), to) for v, to in zip(body.graph.outputs, outputs, strict=True) if to != ABSENT
            ]
            region.add(_row("move", step, [a for a, _ in pairs], [b for _, b in pairs], region), made=())
            regions.append(region)
        yes, no = regions
        rows = [_row("branch", step, self._slots(ports.head), [], around, no.rows[0]), *yes.rows]
        rows += [_row("branch", step, [], [], yes, end), *no.rows, end]
        for region in regions:
            region.settle(set())
        around.enclose(rows, [slot for slot in outputs if slot != ABSENT], yes.made | no.made)

    def _loop(self, step: Step, around: _Region) -> None:
        (body,) = step.bodies
        ports = Ports.of(step.nodes[0], [body.graph])
        number, carried, scan = len(self.loops), ports.carried, step.nodes[0].op_type == "Scan"
        self.loops.append(())  # bodies have loops, too
        formals = self._slots(ports.formals)
        within = formals[ports.first : ports.first + carried]
        sliced = formals[ports.first + carried :] if scan else formals[:2]
        outputs = [self._result(value) for value in ports.outputs]
        results = self._slots(body.graph.outputs)
        heads = 0 if scan else 1
        collected = [
            slot if to != ABSENT else ABSENT
            for slot, to in zip(results[heads + carried :], outputs[carried:], strict=True)
        ]
        region = self._region(body.steps)
        given = [*results[: heads + carried], *collected]
        after = region.add(_row("next", step, given, within, region, loop=number), made=())
        region.made.update(formals)
        used = region.touched()
        trip = _row(
            "trip",
            step,
            self._slots(ports.sliced),
            [s if s in used else ABSENT for s in sliced],
            region,
            loop=number,
        )
        after.target = trip
        region.settle(set())
        wanted = [(a, b) for a, b in zip(within, outputs[:carried], strict=True) if b != ABSENT]
        leave = _row("move", step, [a for a, _ in wanted], [b for _, b in wanted], around)
        leave.frees = list(dict.fromkeys(within))
        trip.target = leave
        around.add(_row("move", step, self._slots(ports.initial), within, around), made=())
        heads_in = [*self._slots(ports.sliced if scan else ports.head), *within]
        begin = _row("begin", step, heads_in, [], around, loop=number)
        finish = _row("finish", step, [], [], around, loop=number)
        made = [slot for slot in outputs if slot != ABSENT]
        around.enclose([begin, trip, *region.rows, leave, finish], made, region.made)
        self.loops[number] = (scan, carried, *_axes(step.nodes[0], ports, outputs, body))


def _row(
    name: str,
    step: Step,
    reads: list[int],
    writes: list[int],
    region: _Region,
    target: Row | None = None,
    loop: int = ABSENT,
) -> Row:
    """A step of control flow."""
    named = Step(name, (), (), nodes=step.nodes)
    return Row(named, reads, writes, region.number, target, loop)


def _axes(node: ir.Node, ports: Ports, outputs: Sequence[int], body: Body) -> tuple[object, object]:
    """How inputs are sliced and outputs collected, as the engine reads it."""
    n_out = len(outputs) - ports.carried
    sliced = list(
        zip(
            _numbers(node, "scan_input_axes", len(ports.sliced)),
            map(bool, _numbers(node, "scan_input_directions", len(ports.sliced))),
            strict=True,
        )
    )
    axes = _numbers(node, "scan_output_axes", n_out)
    backwards = map(bool, _numbers(node, "scan_output_directions", n_out))
    items = body.graph.outputs[len(body.graph.outputs) - n_out :]
    shapes = [
        [] if value.shape is None else [dim if isinstance(dim, int) else 0 for dim in value.shape]
        for value in items
    ]
    return sliced, list(zip(outputs[ports.carried :], axes, backwards, shapes, strict=True))


def _numbers(node: ir.Node, name: str, length: int) -> tuple[int, ...]:
    attribute = node.attributes.get(name)
    return (0,) * length if attribute is None else tuple(attribute.as_ints())


def numbered(rows: Sequence[Row]) -> list[Row]:
    """The rows with targets and loops written into the attributes of control flow."""
    places = {id(row): index for index, row in enumerate(rows)}
    for row in rows:
        if row.step.kernel in STEPS:
            target = len(rows) if row.target is None else places[id(row.target)]
            row.step = replace(row.step, attributes=longs(target, row.loop))
    return list(rows)
