"""Layers: units in the order in which they run, those that can be merged into one pass over tiles together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from epkit.backend import MemoryStep, Subgraph
from epkit.errors import CompileError, Where

from .kernels import FAMILIES
from .kernels.movement import SAME_BYTES
from .machine import Machine
from .match import match
from .quant import QTensor, Unsupported
from .tiles import plan
from .unit import Unit

if TYPE_CHECKING:
    import onnx_ir as ir

MOST_FUSED = 4


@dataclass(frozen=True, eq=False)
class Layer:
    """Units of one pass: the first computes tiles, the others change them before they are stored.

    ``alias``: the output is the input's bytes, and there is nothing to do.
    """

    units: tuple[Unit, ...]
    alias: bool = False

    @property
    def node(self) -> ir.Node:
        """The node that stands for the layer in reports."""
        return self.units[0].node

    @property
    def outputs(self) -> tuple[QTensor, ...]:
        """What it writes."""
        return self.units[-1].outputs

    @property
    def inputs(self) -> tuple[QTensor, ...]:
        """What it reads at run time."""
        made = {q.value for unit in self.units for q in unit.outputs}
        read = (
            i for unit in self.units for i in unit.inputs if isinstance(i, QTensor) and i.constant is None
        )
        return tuple({q.value: q for q in read if q.value not in made}.values())

    @property
    def extra(self) -> int:
        """Bytes of scratchpad for each element of a tile that the fused units need."""
        return sum(_extra(unit) for unit in self.units[1:])

    @property
    def operators(self) -> str:
        """``Conv+Add``."""
        return "+".join(unit.kind for unit in self.units)


def _extra(unit: Unit) -> int:
    sizes = [i.size for i in unit.inputs if isinstance(i, QTensor)]
    return unit.output.size + sum(sizes) - min(sizes)  # the operand that the unit before it makes is there


def analyse(subgraph: Subgraph, machine: Machine) -> tuple[Layer, ...]:
    """The layers of a subgraph whose nodes were all claimed.

    Raises:
        CompileError: if one of them is in no unit after all.
    """
    found = match(subgraph, machine)
    units = [*found.units, *_leaving(subgraph, found.virtual, machine)]
    covered = {node for unit in units for node in unit.nodes}
    for node in subgraph.nodes:
        if node not in covered:
            why = found.refusals.get(node)
            raise CompileError(
                f"{node.op_type} was claimed, and without its neighbours it is no unit: {why}",
                where=Where(node=str(node.name)),
                remedy="report this to the makers of the plugin",
            )
    outside = set(subgraph.outputs)
    return _fused(units, {q.value for u in units for q in u.outputs if q.value in outside}, machine)


def _leaving(subgraph: Subgraph, virtual: dict[ir.Value, QTensor], machine: Machine) -> list[Unit]:
    """Units that write virtual values as real numbers for readers outside."""
    units = []
    for value in subgraph.outputs:
        if value in virtual:
            q, node = virtual[value], value.producer()
            assert node is not None
            output = replace(q, value=value, dtype="float32", constant=None)
            unit = Unit(
                "DequantizeLinear", node, (node,), (q,), (output,), {}, (0, 0), 1, ("", "DequantizeLinear")
            )
            units.append(FAMILIES["DequantizeLinear"].check(unit, machine))
    return units


def _fused(units: Sequence[Unit], outside: set[ir.Value], machine: Machine) -> tuple[Layer, ...]:
    readers: dict[ir.Value, int] = {}
    for unit in units:
        for item in unit.inputs:
            if isinstance(item, QTensor):
                readers[item.value] = readers.get(item.value, 0) + 1
    layers: list[Layer | None] = []
    ends: dict[ir.Value, int] = {}  # the layer that a value is the end of
    for unit in units:
        index = _host(unit, layers, ends, readers, outside, machine)
        if index is None:
            layer = Layer((unit,), _is_alias(unit))
        else:
            host = layers[index]
            assert host is not None
            layer, layers[index] = Layer((*host.units, unit)), None
        ends.update((q.value, len(layers)) for q in unit.outputs)
        layers.append(layer)
    return tuple(layer for layer in layers if layer is not None)


def _is_alias(unit: Unit) -> bool:
    if unit.kind not in (*SAME_BYTES, "QuantizeLinear") or len(unit.outputs) != 1:
        return False
    x = unit.quantised(0)
    return x.constant is None and x.same_numbers(unit.output)


def _host(
    unit: Unit,
    layers: Sequence[Layer | None],
    ends: dict[ir.Value, int],
    readers: dict[ir.Value, int],
    outside: set[ir.Value],
    machine: Machine,
) -> int | None:
    """The layer that the unit can be fused to."""
    if FAMILIES[unit.kind].tail is None or _is_alias(unit):
        return None
    for item in unit.inputs:
        if not isinstance(item, QTensor) or item.value in outside or readers[item.value] != 1:
            continue
        index = ends.get(item.value)
        host = None if index is None else layers[index]
        if host is not None and _fits(host, unit, item, machine):
            return index
    return None


def _fits(host: Layer, unit: Unit, via: QTensor, machine: Machine) -> bool:
    head = host.units[0]
    family = FAMILIES[head.kind]
    if host.alias or (family.tail is None and family.product is None):
        return False
    if len(host.units) >= MOST_FUSED or via.shape != unit.output.shape or head.output.shape != via.shape:
        return False
    if unit.kind == "DequantizeLinear" or head.kind == "DequantizeLinear":
        return False
    if family.product is not None:
        try:
            plan(family.product(head), machine, host.extra + _extra(unit))
        except Unsupported:
            return False
    return True


def memory_steps(layers: Sequence[Layer]) -> tuple[MemoryStep, ...]:
    """The layers as the core's memory planner sees them."""
    steps = []
    for layer in layers:
        outputs = tuple(q.value for q in layer.outputs)
        reads = tuple(q.value for q in layer.inputs)
        steps.append(
            MemoryStep(layer.node, reads, () if layer.alias else outputs, outputs if layer.alias else ())
        )
    return tuple(steps)


def nbytes(q: QTensor) -> int:
    """Bytes of a tensor in DRAM."""
    return int(np.prod(q.shape, dtype=np.int64)) * np.dtype(q.dtype).itemsize
