"""Which nodes of a graph form units: quantised nodes between DequantizeLinear and QuantizeLinear, operators
that quantise themselves, and operators that only move integers.

A DequantizeLinear on the way costs nothing: its result stays what it was, integers with a scale. So does what
moves such a result, until a QuantizeLinear ends it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx_ir import Value

from epkit.backend import Subgraph, element_type, static_shape
from epkit.kernels.attributes import attribute_values

from .kernels import FAMILIES, movement
from .machine import Machine
from .quant import QTensor, Unsupported, clamp_of
from .unit import Operand, Unit

if TYPE_CHECKING:
    import onnx_ir as ir

HOW_TO_QUANTISE = "quantise the model first: python -m epkit_npu_sim.quantise MODEL.onnx MODEL.int8.onnx"
ON_INTEGERS = frozenset((*movement.FAMILIES, "Where", "MaxPool", "Relu", "Clip", "ReduceMax"))
"""Operators that the standard defines on int8 and uint8, and that need no scale."""

INTEGERS = ("int8", "uint8", "int16", "uint16")
RAW = frozenset([("Gather", 1), ("Where", 0)])
"""Operands, by their place, that are no quantised numbers: indices and conditions."""

ENDS_IN_Q = frozenset(
    {*FAMILIES} - {*movement.FAMILIES, "QuantizeLinear", "DequantizeLinear"} | {"Concat", "Resize"}
)
ACTIVATIONS = ("Relu", "Clip")
TAKES_ACTIVATION = frozenset(
    ("Conv", "MatMul", "Gemm", "Add", "Sub", "Mul", "AveragePool", "GlobalAveragePool", "ReduceMean")
)

QOPERATORS: dict[tuple[str, str], tuple[str, tuple[int, ...], int, int | None]] = {
    ("", "QLinearConv"): ("Conv", (0, 3), 6, 8),
    ("", "QLinearMatMul"): ("MatMul", (0, 3), 6, None),
    ("com.microsoft", "QGemm"): ("Gemm", (0, 3), 7, 6),
    ("com.microsoft", "QLinearAdd"): ("Add", (0, 3), 6, None),
    ("com.microsoft", "QLinearMul"): ("Mul", (0, 3), 6, None),
    ("com.microsoft", "QLinearAveragePool"): ("AveragePool", (0,), 3, None),
    ("com.microsoft", "QLinearGlobalAveragePool"): ("GlobalAveragePool", (0,), 3, None),
    ("com.microsoft", "QLinearSigmoid"): ("Sigmoid", (0,), 3, None),
    ("com.microsoft", "QLinearLeakyRelu"): ("LeakyRelu", (0,), 3, None),
    ("com.microsoft", "QLinearSoftmax"): ("Softmax", (0,), 3, None),
    ("com.microsoft", "QLinearConcat"): ("Concat", (), 0, None),
}
"""Operator -> (kind, inputs that are quantised operands (none: all behind the result's scale), the input that is its
result's scale, bias); scale and zero point follow an operand."""


@dataclass
class Matched:
    """Units in an order in which they can run, and why each other node is none."""

    units: list[Unit] = field(default_factory=list)
    refusals: dict[ir.Node, Unsupported] = field(default_factory=dict)
    virtual: dict[ir.Value, QTensor] = field(default_factory=dict)


def match(graph: Subgraph, machine: Machine) -> Matched:
    """Find the units of a graph."""
    matcher = _Matcher(graph, machine)
    for node in graph.nodes:
        try:
            matcher.visit(node)
        except Unsupported as refused:
            matcher.found.refusals.setdefault(node, refused)
    return matcher.pruned()


class _Matcher:
    def __init__(self, graph: Subgraph, machine: Machine) -> None:
        self.graph = graph
        self.machine = machine
        self.found = Matched()
        self.sources: dict[ir.Value, tuple[ir.Node, ...]] = {}  # nodes behind a virtual value
        self.nodes = frozenset(graph.nodes)
        self.fresh: set[ir.Value] = set()  # integers of virtual values, which the graph does not name

    # ---- what a node is ----

    def visit(self, node: ir.Node) -> None:
        """Turn a node, with those before it, into a unit; or raise Unsupported."""
        name = node.op_type
        if (node.domain, name) in QOPERATORS:
            self._qoperator(node)
        elif node.domain not in ("", "com.microsoft"):
            raise Unsupported("no-kernel", f"the machine has no {node.domain}.{name}")
        elif name == "DequantizeLinear":
            value = node.outputs[0]
            self.found.virtual[value] = self._dequantised(node)
            self.sources[value] = (node,)
            raise Unsupported("cost", "its result is used by no node of this machine: the host dequantises")
        elif name == "QuantizeLinear":
            self._quantised(node)
        elif name in ON_INTEGERS and element_type(node.inputs[name == "Where"]) in INTEGERS:
            self._on_integers(node)
        elif name in movement.FAMILIES and name != "Concat" and self._reads_integers(node):
            self._move(node)
        else:
            raise self._no_integers(node)

    def _no_integers(self, node: ir.Node) -> Unsupported:
        kind = element_type(node.inputs[0]) if node.inputs else ""
        if node.op_type not in FAMILIES:
            return Unsupported(
                "no-kernel", f"the machine has no {node.op_type} (docs/npu_sim lists what it has)"
            )
        told = (
            f"{node.op_type} on {kind or 'an unknown type'} does not stand between DequantizeLinear "
            f"and QuantizeLinear, and the machine computes with integers only; {HOW_TO_QUANTISE}"
        )
        return Unsupported("dtype", told, "int8 or uint8", kind)

    def _quantised(self, node: ir.Node) -> None:
        """A QuantizeLinear: the end of a unit."""
        output = self._scaled(node.outputs[0], node.inputs[1], _at(node, 2), node)
        source = node.inputs[0]
        assert source is not None
        if source in self.found.virtual:
            behind = self.found.virtual[source]
            self._add(node, "QuantizeLinear", (node,), (behind,), (output,), output.limits())
            return
        chain: list[ir.Node] = [node]
        last, limits = source.producer(), output.limits()
        if last is None or last not in self.nodes:
            told = "it quantises real numbers that come from the host: the host does that"
            raise Unsupported("dtype", told, "int8", "float32")
        if last.domain == "" and last.op_type in ACTIVATIONS and not self._reads_integers(last):
            before = last.inputs[0]
            assert before is not None
            producer = before.producer()
            if producer is not None and producer.op_type in TAKES_ACTIVATION and _only_use(before):
                limits = clamp_of(output, *self._bounds(last))
                chain.insert(0, last)
                last = producer
        self._end(last, chain, output, limits)

    def _end(self, last: ir.Node, chain: list[ir.Node], output: QTensor, limits: tuple[int, int]) -> None:
        bias: Operand = None
        if last.domain == "" and last.op_type == "Add" and (found := self._product_behind(last)) is not None:
            product, bias = found
            chain.insert(0, last)
            last = product
        if last.domain not in ("", "com.microsoft") or last.op_type not in ENDS_IN_Q:
            raise Unsupported("no-kernel", f"it quantises the result of {last.op_type}, which runs elsewhere")
        if not _only_use(last.outputs[0]):
            raise self._refused(last, Unsupported("group", "its real result is used before it is quantised"))
        try:
            inputs = self._operands(last)
            if bias is not None:
                inputs = (*inputs, bias)
            self._add(last, last.op_type, (last, *chain), inputs, (output,), limits)
        except Unsupported as refused:
            raise self._refused(last, refused) from None

    def _refused(self, node: ir.Node, why: Unsupported) -> Unsupported:
        """Note it for the operator too, and say so of its QuantizeLinear."""
        self.found.refusals[node] = why
        return Unsupported(
            why.code, f"it quantises the result of {node.op_type}: {why.reason}", why.constraint, why.actual
        )

    def _product_behind(self, add: ir.Node) -> tuple[ir.Node, Operand] | None:
        """MatMul, and the constant row that is added to it, if that is what this is."""
        for index in (0, 1):
            value, other = add.inputs[index], add.inputs[1 - index]
            producer = None if value is None else value.producer()
            if value is None or producer is None or producer.op_type != "MatMul" or not _only_use(value):
                continue
            constant = self.graph.constant(other)
            shape = static_shape(value)
            if constant is not None and shape and constant.size == shape[-1] == constant.shape[-1]:
                return producer, constant
        return None

    def _on_integers(self, node: ir.Node) -> None:
        data = {"Concat": len(node.inputs), "Gather": 2, "Where": 3}.get(node.op_type, 1)
        inputs = [self._raw(v) if index < data else self._known(v) for index, v in enumerate(node.inputs)]
        count = len(node.outputs) if node.op_type == "Split" else 1
        outputs = tuple(self._raw(value) for value in node.outputs[:count] if value.name)
        self._add(node, node.op_type, (node,), inputs, outputs, outputs[0].limits())

    def _move(self, node: ir.Node) -> None:
        """A move of integers that stand for reals: its result is virtual too."""
        inputs = self._operands(node)
        source = inputs[0]
        assert isinstance(source, QTensor)
        outputs = tuple(
            replace(
                source, value=Value(name=f"{value.name}/integers"), shape=self._shape(value), constant=None
            )
            for value in node.outputs
        )
        unit = self._add(node, node.op_type, (node,), inputs, outputs, source.limits())
        for value, q in zip(node.outputs, outputs, strict=True):
            self.found.virtual[value] = q
            self.sources[value] = unit.nodes
            self.fresh.add(q.value)

    def _qoperator(self, node: ir.Node) -> None:
        kind, operands, result, bias = QOPERATORS[node.domain, node.op_type]
        operands = operands or tuple(range(2, len(node.inputs), 3))
        inputs: list[Operand] = [
            self._scaled(node.inputs[i], node.inputs[i + 1], _at(node, i + 2), node) for i in operands
        ]
        if bias is not None and _at(node, bias) is not None:
            inputs.append(self._known(node.inputs[bias]))
        if attribute_values(node).get("channels_last", 0):
            raise Unsupported("attribute", "channels_last", "0", "1")
        output = self._scaled(node.outputs[0], _at(node, result), _at(node, result + 1), node)
        self._add(node, kind, (node,), tuple(inputs), (output,), output.limits())

    def _add(
        self,
        node: ir.Node,
        kind: str,
        nodes: Sequence[ir.Node],
        inputs: Sequence[Operand],
        outputs: tuple[QTensor, ...],
        limits: tuple[int, int],
    ) -> Unit:
        behind = [n for value in (v for inner in nodes for v in inner.inputs) if value in self.sources
                  for n in self.sources[value]]  # fmt: skip
        covered = tuple(dict.fromkeys((*behind, *nodes)))
        attributes = attribute_values(node)
        unit = Unit(
            kind, node, covered, tuple(inputs), outputs, attributes, limits,
            self.graph.opset(node) if node.domain == "" else 13, (node.domain, node.op_type),
        )  # fmt: skip
        if any(value.uses() or value.is_graph_output() for value in node.outputs[max(1, len(outputs)) :]):
            told = f"a second result of {node.op_type}, such as indices or statistics"
            raise Unsupported("attribute", told, "one output", str(len(node.outputs)))
        parts = () if kind == "Concat" else (i for i in inputs if isinstance(i, QTensor))
        for q in (*parts, *outputs):
            if 0 in q.shape:
                raise Unsupported("shape", f"{q.value.name} has no elements", "sizes > 0", str(list(q.shape)))
        unit = FAMILIES[kind].check(unit, self.machine)
        self.found.units.append(unit)
        for member in covered:
            self.found.refusals.pop(member, None)
        return unit

    # ---- operands ----

    def _reads_integers(self, node: ir.Node) -> bool:
        return node.inputs[0] in self.found.virtual

    def _operands(self, node: ir.Node) -> tuple[Operand, ...]:
        found: list[Operand] = []
        for index, value in enumerate(node.inputs):
            constant = self.graph.constant(value)
            if (node.op_type, index) in RAW:
                found.append(self._raw(value))
            elif value is None or constant is not None:
                found.append(constant)
            elif value in self.found.virtual:
                found.append(self.found.virtual[value])
            else:
                told = f"its input {value.name} is not quantised; {HOW_TO_QUANTISE}"
                raise Unsupported("dtype", told, "int8", element_type(value))
        return tuple(found)

    def _known(self, value: ir.Value | None) -> Any:
        """The constant that a parameter must be; None if it is absent."""
        constant = self.graph.constant(value)
        if value is not None and constant is None:
            raise Unsupported("constant", f"{value.name} must be known at compile time")
        return constant

    def _bounds(self, node: ir.Node) -> tuple[float, float]:
        """The range of Relu or Clip."""
        if node.op_type == "Relu":
            return 0.0, float("inf")
        attributes = attribute_values(node)
        bounds = [float(attributes.get("min", -np.inf)), float(attributes.get("max", np.inf))]
        for index in (1, 2):
            if (bound := self._known(_at(node, index))) is not None:
                bounds[index - 1] = float(bound)
        return bounds[0], bounds[1]

    def _dequantised(self, node: ir.Node) -> QTensor:
        return self._scaled(node.inputs[0], node.inputs[1], _at(node, 2), node)

    def _scaled(
        self, value: ir.Value | None, scale: ir.Value | None, zero: ir.Value | None, node: ir.Node
    ) -> QTensor:
        """The integers behind a quantising operand or result."""
        assert value is not None
        factors, zeros = self.graph.constant(scale), self.graph.constant(zero)
        if factors is None or (zero is not None and zeros is None):
            raise Unsupported(
                "constant", f"scale and zero point of {value.name} must be known at compile time"
            )
        if factors.dtype != np.float32:
            told = f"the scale of {value.name} is {factors.dtype}"
            raise Unsupported("dtype", told, "float32", str(factors.dtype))
        attributes = attribute_values(node)
        if attributes.get("block_size", 0):
            raise Unsupported("attribute", "scales by block", "block_size = 0", str(attributes["block_size"]))
        dtype = element_type(value)
        constant = self.graph.constant(value)
        if dtype not in INTEGERS and not (dtype == "int32" and constant is not None):
            raise Unsupported("dtype", f"{value.name} is {dtype}", "int8, uint8, int16 or uint16", dtype)
        wide = np.zeros(factors.shape, np.int64) if zeros is None else zeros.astype(np.int64)
        axes = {"DequantizeLinear": attributes.get("axis", 1), "QLinearMatMul": 1,
                "QGemm": 1 - attributes.get("transB", 0)}  # fmt: skip
        axis = int(axes.get(node.op_type, 0))
        return QTensor(value, self._shape(value), dtype, factors, wide, axis, constant)

    def _raw(self, value: ir.Value | None) -> QTensor:
        """Integers that stand for themselves."""
        assert value is not None
        one, none = np.ones((), np.float32), np.zeros((), np.int64)
        return QTensor(
            value, self._shape(value), element_type(value), one, none, constant=self.graph.constant(value)
        )

    def _shape(self, value: ir.Value) -> tuple[int, ...]:
        shape = static_shape(value)
        if shape is not None:
            return shape
        unknown = [str(d) for d in value.shape or () if not isinstance(d, int)]
        name = next((d for d in unknown if d.isidentifier()), "NAME")
        what = (
            f"dimension `{unknown[0]}` of {value.name} is symbolic"
            if unknown
            else f"{value.name} has no shape"
        )
        told = f"{what}: fix it with --fix {name}=1, or load(..., fix={{'{name}': 1}})"
        raise Unsupported("dynamic-shape", told, "known sizes", ", ".join(unknown))

    # ---- the end ----

    def pruned(self) -> Matched:
        """Leave out moves of virtual values that end in no unit; order the rest."""
        place = {node: index for index, node in enumerate(self.graph.nodes)}
        kept: list[Unit] = []
        used: set[ir.Value] = set()
        for unit in sorted(self.found.units, key=lambda u: -max(place[n] for n in u.nodes)):
            if self.fresh.issuperset(q.value for q in unit.outputs) and not any(
                q.value in used for q in unit.outputs
            ):
                why = Unsupported("cost", "it moves real numbers for nodes that run elsewhere")
                self.found.refusals.update(dict.fromkeys(unit.nodes, why))
                continue
            kept.append(unit)
            used.update(i.value for i in unit.inputs if isinstance(i, QTensor))
        for unit in kept:
            for node in unit.nodes:
                self.found.refusals.pop(node, None)
        self.found.units = kept[::-1]
        return self.found


def _at(node: ir.Node, index: int) -> ir.Value | None:
    return node.inputs[index] if index < len(node.inputs) else None


def _only_use(value: ir.Value) -> bool:
    """True if one node reads it, and nobody outside the graph."""
    return len(value.uses()) == 1 and not value.is_graph_output()
