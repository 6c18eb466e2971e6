"""A provider made of kernels: ``claim`` and ``compile`` follow from the declarations."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from ..errors import EpkitError, RunError, Where
from ..kernels.attributes import attribute_values
from .claim import Claim, Refusal
from .kernel import Kernel, KernelTable
from .program import MemoryStep, Program, RunContext
from .provider import Provider
from .subgraph import Subgraph

if TYPE_CHECKING:
    import onnx_ir as ir

    from .memory import Tensor


class KernelProvider(Provider):
    """Set ``kernels`` and ``devices``, and the provider is complete.

    A device with memory of its own overrides :meth:`constant` to put weights there.
    """

    kernels: ClassVar[Sequence[Kernel]] = ()

    @cached_property
    def table(self) -> KernelTable:
        """The kernels by operator."""
        return KernelTable(self.kernels)

    def claim(self, graph: Subgraph) -> Iterable[Claim | Refusal]:
        for node in graph.nodes:
            yield self.table.refusal(node, graph) or Claim((node,))

    def knows(self, domain: str, op_type: str) -> bool:
        return self.table.has(domain, op_type)

    def memory_steps(self, subgraph: Subgraph) -> Sequence[MemoryStep]:
        return [self._memory_step(node, subgraph) for node in subgraph.nodes]

    def _memory_step(self, node: ir.Node, subgraph: Subgraph) -> MemoryStep:
        reads = tuple(value for value in node.inputs if value is not None)
        outputs = tuple(value for value in node.outputs if value.name)
        kernel = self.kernel_for(node, subgraph)
        if kernel.shapes is not None:
            return MemoryStep(node, reads, outputs, (), joins=kernel.joins and _follow_each_other(node))
        # a kernel that knows the context may ask it for memory, or return a view: both are provided for
        return MemoryStep(node, reads, outputs if "context" in kernel.wants else (), outputs)

    def compile(self, subgraph: Subgraph) -> Program:
        return KernelProgram(subgraph, lambda node: self.kernel_for(node, subgraph), self.constant)

    def kernel_for(self, node: ir.Node, subgraph: Subgraph) -> Kernel:
        """The kernel of a node that was claimed.

        Raises:
            ValueError: if no kernel takes it after all.
        """
        found = self.table.find(node, subgraph)
        if isinstance(found, Refusal):
            raise ValueError(f"node {node.name} was claimed, and now: {found.reason}")
        return found

    def constant(self, array: Any) -> Tensor:
        """A weight (read-only NumPy array) as the kernels want it; called once for each at compile time."""
        return array


def _follow_each_other(node: ir.Node) -> bool:
    """True if the inputs of a Concat surely lie one after the other in its result."""
    shape = node.outputs[0].shape
    if shape is None or "axis" not in node.attributes:
        return False
    axis = node.attributes["axis"].as_int()
    return all(dim == 1 for dim in tuple(shape)[: axis + len(shape) if axis < 0 else axis])


@dataclass(frozen=True)
class Call:
    """One kernel call: which slots go in and out, and which are not needed afterwards.

    Attributes:
        wanted: how many results the node's last named output asks for.
    """

    node: ir.Node
    kernel: Kernel
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    attributes: Mapping[str, Any]
    last_uses: tuple[int, ...]
    wanted: int


ABSENT = -1


class KernelProgram(Program):
    """Calls kernels one after the other over a list of slots."""

    def __init__(
        self,
        subgraph: Subgraph,
        kernel_for: Callable[[ir.Node], Kernel],
        constant: Callable[[Any], Tensor],
    ) -> None:
        self.name = subgraph.name
        self._slots: dict[ir.Value, int] = {value: slot for slot, value in enumerate(subgraph.inputs)}
        constants: dict[int, Tensor] = {}
        for node in subgraph.nodes:
            for value in node.inputs:
                if (
                    value is not None
                    and value not in self._slots
                    and (array := subgraph.constant(value)) is not None
                ):
                    constants[self._slot(value)] = constant(array)
            for value in node.outputs:
                self._slot(value)
        self._inputs = len(subgraph.inputs)
        self._outputs = tuple(self._slots[value] for value in subgraph.outputs)
        self._frame: list[Tensor] = [constants.get(slot) for slot in range(len(self._slots))]
        self._frame.append(None)  # the last slot is ABSENT
        last = self._last_uses(subgraph, {*self._outputs, *constants})
        self._calls = [
            self._call(node, kernel_for(node), subgraph, last.get(node, ())) for node in subgraph.nodes
        ]

    def _slot(self, value: ir.Value) -> int:
        return self._slots.setdefault(value, len(self._slots))

    def _last_uses(self, subgraph: Subgraph, keep: set[int]) -> dict[ir.Node, tuple[int, ...]]:
        """For each node, the slots that nobody needs after it."""
        last: dict[int, ir.Node] = {}
        for node in subgraph.nodes:
            for value in (*node.inputs, *node.outputs):
                if value is not None and self._slots[value] not in keep:
                    last[self._slots[value]] = node
        result: dict[ir.Node, tuple[int, ...]] = {}
        for slot, node in last.items():
            result[node] = (*result.get(node, ()), slot)
        return result

    def _call(self, node: ir.Node, kernel: Kernel, subgraph: Subgraph, last_uses: tuple[int, ...]) -> Call:
        attributes = attribute_values(node)
        if kernel.attributes is not None:
            attributes = {name: value for name, value in attributes.items() if name in kernel.attributes}
        filled = {"node": node, "opset": subgraph.opset(node), "n_outputs": len(node.outputs)}
        attributes.update({name: value for name, value in filled.items() if name in kernel.wants})
        inputs = tuple(ABSENT if value is None else self._slots[value] for value in node.inputs)
        outputs = tuple(map(self._slot, node.outputs))
        wanted = max((place for place, value in enumerate(node.outputs, 1) if value.name), default=0)
        return Call(node, kernel, inputs, outputs, attributes, last_uses, wanted)

    def run(self, context: RunContext, inputs: Sequence[Tensor]) -> Sequence[Tensor]:
        slots = self._frame.copy()
        slots[: self._inputs] = inputs
        for call in self._calls:
            context.begin(call.node)
            arguments = [slots[slot] for slot in call.inputs]
            try:
                results = invoke(call, context, arguments)
            except EpkitError as error:
                error.at(node=str(call.node.name))
                raise
            except Exception as error:
                raise _failed(call, arguments, error) from error
            if len(results) < call.wanted:
                raise _too_few(call, len(results))
            for slot, result in zip(call.outputs, results, strict=False):
                slots[slot] = result
            for slot in call.last_uses:
                slots[slot] = None
            context.end(call.node)
        return [slots[slot] for slot in self._outputs]


def invoke(call: Call, context: RunContext, arguments: list[Tensor]) -> Sequence[Tensor]:
    """Call the kernel's function, with core memory for its outputs if it wants that."""
    keywords = call.attributes
    if "context" in call.kernel.wants:
        keywords = {**keywords, "context": context}
    if call.kernel.shapes is None:
        result = call.kernel.function(*arguments, **keywords)
    else:
        wanted = call.kernel.shapes(*arguments, **keywords)
        result = tuple(
            context.empty(value, shape, dtype)
            for value, (shape, dtype) in zip(call.node.outputs, wanted, strict=False)
        )
        call.kernel.function(*arguments, **keywords, out=result)
    return result if isinstance(result, tuple) else (result,)


def _failed(call: Call, arguments: Sequence[Tensor], error: Exception) -> RunError:
    shapes = ", ".join(describe_argument(argument) for argument in arguments)
    return RunError(
        f"{call.kernel.op_type} failed: {error or type(error).__name__}",
        where=Where(node=str(call.node.name)),
        remedy=f"check the inputs of this node; they were {shapes or 'none'}",
    )


def _too_few(call: Call, given: int) -> RunError:
    return RunError(
        f"{call.kernel.op_type} gave {given} of {call.wanted} outputs",
        where=Where(node=str(call.node.name)),
        remedy="the kernel must give a tuple with every output that the node names, "
        "or refuse such nodes in its when=",
    )


def describe_argument(argument: Tensor) -> str:
    """``float32[2, 3]`` for tensors, the type's name for anything else."""
    if hasattr(argument, "shape") and hasattr(argument, "dtype"):
        return f"{argument.dtype}{list(argument.shape)}"
    return "absent" if argument is None else type(argument).__name__
