"""From a partition to a native program: steps over slots, run by one native loop.

Nodes that no lowering takes are steps of their portable kernel: the loop comes back to Python for them and goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from epkit.backend import Budget, Kernel, Program, ProgramMemory, RunContext, Subgraph, Tensor
from epkit.dtypes import name_of, numpy_dtype
from epkit.errors import DeviceMemoryError, EpkitError, RunError, Where
from epkit.kernels.attributes import attribute_values

from .constants import Dequantised
from .control import STEPS, Flat, Ports, Row, is_control_flow, numbered
from .fuse import Fuser
from .image import Parts, image_of
from .layout import Blocked, keep_blocked
from .lower import LOWERINGS
from .lower.halves import through_float32
from .lower.step import Body, Lowering, Operand, Step, View
from .lower.types import kind_of, native_type
from .native import FLOAT32, FORMS, bf16_form, cpus, engine, kernels
from .pages import Scratch, settled
from .prepared import Prepared
from .shared import shared

if TYPE_CHECKING:
    import onnx_ir as ir

ABSENT = -1
LAYOUT = ("to_blocked", "from_blocked")
OUT_OF_MEMORY = 3
SHARED = 1 << 20
"""Bytes of constants from which threads prepare them together: for fewer, to wake one takes as long."""


class NativeProgram(Program):
    """Steps of a partition in the native engine."""

    def __init__(
        self,
        subgraph: Subgraph,
        kernel_for: Callable[[ir.Node], Kernel],
        isa: str,
        threads: int,
        precision: str = "fp32",
        prepared: Prepared | None = None,
    ) -> None:
        self.prepared = prepared or Prepared()
        self._budget: Budget | None = None
        self._builder: _Builder | None = _Builder(
            subgraph, kernel_for, kernels(isa), _narrow(isa, precision), self.prepared
        )
        builder = self._builder
        module: Any = engine()
        self._failure: type[Exception] = module.Failure
        slots, inputs, constants, steps, outputs, loops = builder.parts()
        self.steps = [row.step for row in builder.rows]
        self._engine = module.Program(slots, inputs, constants, steps, outputs, threads, loops)
        if not builder.wants_context:
            self.feed = self._engine.feed
        builder.forget()

    def run(self, context: RunContext, inputs: Sequence[Tensor]) -> Sequence[Tensor]:
        before = after = None
        if context.observed:
            before, after = self._watchers(context)
        try:
            return self._engine.run(inputs, context, before, after)  # type: ignore[no-any-return]
        except self._failure as error:
            raise self._explained(error) from error.__cause__

    def pieces(self) -> list[bytes | memoryview]:
        """The program to be saved: what was packed, and its image if it can be taken up without its nodes."""
        assert self._builder is not None
        return self.prepared.pieces(self._builder.image())

    def _watchers(self, context: RunContext) -> tuple[Callable[[int], None], Callable[[int], None]]:
        """What tells the context of each node, once; a fused step's time is its first node's.

        Where a node has several steps, the last one counts, and changes of layout only where there is nothing else.
        """
        numbered = sorted(enumerate(self.steps), key=lambda item: item[1].kernel not in LAYOUT)
        last = {node: index for index, step in numbered for node in step.nodes}
        reported = [[n for n in step.nodes if last[n] == index] for index, step in enumerate(self.steps)]

        def before(index: int) -> None:
            for node in reported[index][:1]:
                context.begin(node)

        def after(index: int) -> None:
            for position, node in enumerate(reported[index]):
                if position:
                    context.begin(node)
                context.end(node)

        return before, after

    def _explained(self, error: Exception) -> EpkitError:
        """What a failed step means, with the node that it was."""
        index, status, message, inputs = error.args
        cause = error.__cause__
        if index < 0:
            return RunError(message, remedy="report this: an input did not have the type that was inferred")
        nodes = self.steps[index].nodes
        where = Where(
            node=str(nodes[-1].name), parts="\n".join(str(n.name) for n in nodes) if nodes[1:] else ""
        )
        if isinstance(cause, EpkitError):
            return cause.at(node=where.node, parts=where.parts)
        operators = ", ".join(dict.fromkeys(str(item.op_type) for item in nodes))
        if self._budget is not None and status == OUT_OF_MEMORY and (refusal := self._budget.refusal()):
            return refusal.at(node=where.node, parts=where.parts)
        if isinstance(cause, MemoryError) or status == OUT_OF_MEMORY:
            return DeviceMemoryError(
                f"the host has too little memory for {operators}: {message or cause}",
                where=where,
                remedy="use smaller inputs, close other sessions, or run fewer at once",
            )
        text = message or (str(cause) or type(cause).__name__)
        return RunError(
            f"{operators} failed: {text}",
            where=where,
            remedy=f"check the inputs of this node; they were {_given(cause, inputs)}",
        )

    def memory(self) -> ProgramMemory:
        packed, mapped = self.prepared.nbytes()
        return replace(ProgramMemory(*self._engine.memory()), packed=packed, mapped=mapped)

    def limit(self, budget: Budget) -> None:
        self._budget = budget
        self._engine.limit(budget)

    def close(self) -> None:
        """Give everything back, packed weights too; runs under way end first."""
        self._engine.close()
        module: Any = engine()
        self._engine = module.Program([], [], [], [], [], 1)
        self._engine.close()
        self.feed = None
        self.prepared, self.steps, self._builder = Prepared(), [], None

    def __str__(self) -> str:
        return "\n".join(
            f"{step.kernel or 'python'}: {', '.join(str(n.name) for n in step.nodes)}" for step in self.steps
        )


def _given(cause: BaseException | None, inputs: list[Any] | None) -> str:
    """The types and shapes of a failed step's inputs: noted by its portable kernel, or told by the engine."""
    notes = getattr(cause, "__notes__", [])
    if inputs is None:
        return str(notes[0]) if notes else "not known"
    return ", ".join("None" if item is None else f"{item[0]}{item[1]}" for item in inputs) or "none"


class _Builder:
    """Numbers the slots, lowers the nodes, packs it all for the engine."""

    def __init__(
        self,
        graph: Subgraph,
        kernel_for: Callable[[ir.Node], Kernel],
        table: dict[str, int],
        narrow: int,
        prepared: Prepared,
    ) -> None:
        self.graph = Dequantised.of(graph, self._compute)
        self.wants_context = False
        self.rows: list[Row] = []
        self._kernel_for = kernel_for
        self._table = table
        self._narrow = narrow
        self._prepared = prepared
        self._cpus = cpus()
        self._scratch = Scratch()
        self._slots: dict[Any, int] = {}
        self._types: list[str] = []
        self._kept: list[np.ndarray[Any, Any]] = []
        self._constants: dict[int, np.ndarray[Any, Any]] = {}
        self._steps = self._lower(self.graph)
        self._scratch = Scratch()  # all is prepared

    # ---- lowering ----

    def _lower(self, graph: Subgraph) -> list[Step]:
        """The steps of a graph; those of bodies are in the steps of their nodes."""
        nodes = [node for node in graph.nodes if node.attributes.data and is_control_flow(node)]
        control = {node: self._control(node, graph) for node in nodes}
        # what a body reads, nothing is fused away of: the body may give it as it is, without a node
        read = [value for step in control.values() for value in step.inputs if value is not None]
        graph = replace(graph, outputs=(*graph.outputs, *read))
        fuser = Fuser(graph)
        pending: list[Step | ir.Node] = []
        order = {node: index for index, node in enumerate(graph.nodes)}
        absorbed: set[ir.Node] = set()
        for node in graph.nodes:
            if node in absorbed or (node.op_type == "DequantizeLinear" and self.graph.is_made(node)):
                continue
            view = View(node, graph, order, self._prepare, self._narrow)
            lowering = LOWERINGS.get((node.domain, node.op_type))
            step = control.get(node) if lowering is None else self._lowered(view, lowering)
            if step is not None:
                absorbed.update(step.nodes)
                fuser.read(step.inputs)
                pending.append(step)
            elif fuser.add(view):
                pending.append(node)
            else:
                pending.append(Step("", tuple(node.inputs), view.outputs, nodes=(node,)))
        return keep_blocked(_needed(pending, fuser, graph), graph)

    def _control(self, node: ir.Node, graph: Subgraph) -> Step:
        """A node with its bodies; its inputs are all that they read, too."""
        bodies = tuple(Body(name, body, self._lower(body)) for name, body in graph.bodies(node).items())
        formals = Ports.of(node, [body.graph for body in bodies]).formals
        read = dict.fromkeys(v for body in bodies for v in body.graph.inputs if v not in formals)
        return Step("", (*node.inputs, *read), tuple(node.outputs), nodes=(node,), bodies=bodies)

    def _lowered(self, view: View, lowering: Lowering) -> Step | None:
        step = lowering(view) or through_float32(view, lowering, self._table)
        if step is None or step.kernel not in self._table:
            return None
        known = all(native_type(kind_of(v))[1] for v in step.outputs if v is not None)
        others = view.node.outputs[1:]
        return (
            step if known and all(v in step.outputs or not _is_read(v, self.graph) for v in others) else None
        )

    def _prepare(
        self, kernel: str, attributes: bytes, *arrays: np.ndarray[Any, Any] | None
    ) -> np.ndarray[Any, Any]:
        """The bytes that a kernel makes of constants."""

        def make() -> np.ndarray[Any, Any]:
            nbytes = sum(array.nbytes for array in arrays if array is not None)
            threads = self._cpus if nbytes >= SHARED else 1
            return prepare(self._table[kernel], attributes, arrays, threads, self._scratch)

        return self._prepared.get(kernel, attributes, arrays, make)

    def _compute(self, node: ir.Node, inputs: list[Any]) -> np.ndarray[Any, Any]:
        """The result of a node for constants."""
        (result,) = portable_step(node, self._kernel_for(node), self.graph)(None, inputs)
        return np.asarray(result)

    # ---- slots ----

    def _slot(self, operand: Operand) -> int:
        """The slot of a value, or of a constant that a lowering made."""
        if operand is None:
            return ABSENT
        key = id(operand) if isinstance(operand, np.ndarray) else operand
        if key not in self._slots:
            self._slots[key] = len(self._types)
            array = None
            if not isinstance(operand, Blocked):
                array = operand if isinstance(operand, np.ndarray) else self.graph.constant(operand)
            if isinstance(operand, Blocked):
                self._types.append(kind_of(operand.value))
            elif isinstance(operand, np.ndarray):
                self._kept.append(operand)  # its id stays its own
                self._types.append(name_of(operand.dtype))
            else:
                self._types.append(kind_of(operand))
            if array is not None:
                self._constants[self._slots[key]] = array
        return self._slots[key]

    # ---- the program ----

    def image(self) -> dict[str, Any] | None:
        """The program as plain values, if it can be had without the nodes; see ``image.py``."""
        weights = {
            slot: str(value.name)
            for value, slot in self._slots.items()
            if slot in self._constants
            and not isinstance(value, int | Blocked)
            and value.is_initializer()
            and value.graph is self.graph.nodes[0].graph
        }
        return image_of(self.parts(), self._types, self._table, weights, self._prepared)

    def forget(self) -> None:
        """Let go of constants that were only packed."""
        self.graph.made.clear()

    def parts(self) -> Parts:
        """What the engine makes its program of: slots, inputs, constants, steps, outputs."""
        inputs = [(str(v.name), self._slot(v), _declared(v)) for v in self.graph.inputs]
        outputs = [(str(v.name), self._slot(v)) for v in self.graph.outputs]
        results = [slot for _, slot in outputs]
        flat = Flat(self._slot, self._result)
        self.rows = numbered(flat.rows(self._steps, [slot for _, slot, _ in inputs], results))
        escapes = self._escapes(results)
        steps = [self._packed(row) for row in self.rows]
        slots = []
        for number, kind in enumerate(self._types):
            code, bits = native_type(kind)
            slots.append((code, bits, numpy_dtype(kind) if bits else None, number in escapes))
        moved = self._moved()
        given = {slot for _, slot, _ in inputs}  # a constant that another partition computes, too
        constants = [
            (slot, _settled(self._constants[slot], slot in moved))
            for slot in sorted(self._constants.keys() - given)
        ]
        return slots, inputs, constants, steps, outputs, flat.loops

    def _packed(self, row: Row) -> tuple[Any, ...]:
        """A step as the engine reads it."""
        step, reads, free = row.step, row.reads, row.frees
        kernel: Any = step.kernel if step.kernel in STEPS else self._table.get(step.kernel)
        over = [n for k, j in step.over if reads[j] in free and reads.count(reads[j]) == 1 for n in (k, j)]
        return (
            self._python(step) if kernel is None else kernel,
            step.attributes,
            reads,
            row.writes,
            free,
            self._python(step) if self._may_fall_back(step) else None,
            over,
            step.joins,
            row.region,
        )

    def _result(self, value: Operand) -> int:
        """The slot of an output; none if nobody reads it."""
        if isinstance(value, Blocked):
            return self._slot(value)
        if value is None or not _is_read(value, self.graph):
            return ABSENT
        return self._slot(value)

    def _escapes(self, results: Sequence[int]) -> set[int]:
        """Slots that Python sees: results, what portable kernels read, and what those may be views of."""
        found = set(results)
        for row in reversed(self.rows):
            if not row.step.kernel:
                found.update(row.reads)
            elif row.step.alias and row.writes[0] in found:
                found.add(row.reads[0])
            elif row.step.kernel == "move":
                found.update(a for a, b in zip(row.reads, row.writes, strict=True) if b in found)
        return found

    def _moved(self) -> set[int]:
        """Slots that only Gather reads, row by row: a table of words is not copied to be aligned."""
        return set(self._constants) - {
            slot for row in self.rows for slot in row.reads[row.step.kernel == "gather" :]
        }

    def _may_fall_back(self, step: Step) -> bool:
        """True if the step is just one node, whose portable kernel can take over where the native one cannot."""
        if not step.kernel or len(step.nodes) != 1 or step.kernel in LAYOUT or step.kernel in STEPS:
            return False
        node = step.nodes[0]
        same = len(step.inputs) == len(node.inputs) and len(step.outputs) == len(node.outputs)
        theirs = (value if value.name else None for value in node.outputs)
        pairs = zip((*step.inputs, *step.outputs), (*node.inputs, *theirs), strict=same)
        return same and all(ours is theirs for ours, theirs in pairs)

    def _python(self, step: Step) -> Callable[[RunContext | None, list[Any]], tuple[Any, ...]]:
        (node,) = step.nodes
        kernel = self._kernel_for(node)
        self.wants_context |= "context" in kernel.wants
        return portable_step(node, kernel, self.graph)


def _narrow(isa: str, precision: str) -> int:
    """How products with constant weights are done."""
    form = bf16_form(isa) if precision == "bf16" else ""
    return FORMS.index(form) if form else FLOAT32


@shared
def prepare(
    kernel: int,
    attributes: bytes,
    arrays: Sequence[np.ndarray[Any, Any] | None],
    threads: int,
    scratch: Scratch,
) -> np.ndarray[Any, Any]:
    """Run one kernel on constants: an array of the bytes that it gives."""
    module: Any = engine()
    given = [array for array in arrays if array is not None]
    slots = [(*native_type(k), numpy_dtype(k), True) for k in (*(name_of(a.dtype) for a in given), "uint8")]
    numbers = iter(range(len(given)))
    reads = [ABSENT if array is None else next(numbers) for array in arrays]
    step: tuple[Any, ...] = (kernel, attributes, reads, [len(given)], [])
    largest = max(given, key=lambda array: array.nbytes)
    constants = [(i, scratch.aligned(a) if a is largest else _settled(a)) for i, a in enumerate(given)]
    program = module.Program(slots, [], constants, [step], [("y", len(given))], threads)
    (result,) = program.run([], None, None, None)
    return result  # type: ignore[no-any-return]


def _is_read(value: ir.Value, graph: Dequantised) -> bool:
    """Whether somebody needs it, a node or whoever runs the program."""
    return bool(value.uses()) or value in graph.results


def portable_step(
    node: ir.Node, kernel: Kernel, graph: Dequantised
) -> Callable[[RunContext | None, list[Any]], tuple[Any, ...]]:
    """A node's portable kernel as the engine calls it: context and inputs in, a tuple of outputs out."""
    attributes = attribute_values(node)
    if kernel.attributes is not None:
        attributes = {name: value for name, value in attributes.items() if name in kernel.attributes}
    filled = {"node": node, "opset": graph.opset(node), "n_outputs": len(node.outputs)}
    attributes |= {name: value for name, value in filled.items() if name in kernel.wants}
    read = [_is_read(value, graph) for value in node.outputs]

    def call(context: RunContext | None, inputs: list[Any]) -> tuple[Any, ...]:
        keywords = {**attributes, "context": context} if "context" in kernel.wants else attributes
        try:
            if kernel.shapes is None:
                result = kernel.function(*inputs, **keywords)
                results = result if isinstance(result, tuple) else (result,)
                if any(read[len(results) :]):
                    raise ValueError(f"with these attributes it has {len(results)} outputs, not {len(read)}")
                return results
            out = tuple(np.empty(shape, dtype) for shape, dtype in kernel.shapes(*inputs, **keywords))
            kernel.function(*inputs, **keywords, out=out)
            return out
        except Exception as error:
            error.add_note(", ".join(map(_describe, inputs)) or "none")
            raise

    return call


def _describe(value: Any) -> str:
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"{value.dtype}{list(value.shape)}"
    return type(value).__name__


def _declared(value: ir.Value) -> tuple[int, ...] | None:
    """The declared shape, -1 where a dimension is not fixed."""
    if value.shape is None:
        return None
    return tuple(d if isinstance(d, int) else -1 for d in value.shape)


def _settled(array: np.ndarray[Any, Any], is_moved: bool = False) -> Any:
    """A constant as the engine wants it: contiguous, and aligned unless it is only moved."""
    return array if is_moved and array.flags.c_contiguous else settled(array)


def _needed(pending: Sequence[Step | ir.Node], fuser: Fuser, graph: Subgraph) -> list[Step]:
    """The steps, chains among them, without results that nobody reads, as of a Pad that a convolution does."""
    wanted: set[ir.Value] = set(graph.outputs)
    kept: list[Step] = []
    for item in reversed(pending):
        step = item if isinstance(item, Step) else fuser.step(item, wanted)
        if step is None or (step.kernel and not any(value in wanted for value in step.outputs)):
            continue
        kept.append(step)
        wanted.update(v for v in step.inputs if v is not None and not isinstance(v, np.ndarray))
    return kept[::-1]
