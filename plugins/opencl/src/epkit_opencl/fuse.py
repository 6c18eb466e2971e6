"""Chains of formulas as one kernel: every intermediate value stays in a register, whatever is broadcast."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir

from epkit.backend import RunContext, Subgraph, element_type
from epkit.dtypes import numpy_dtype
from epkit.kernels.attributes import attribute_values

from .kernels.formulas import Formula, Site
from .kernels.mathematics import mathematics
from .launch import C_TYPES, empty, launch, pragma
from .memory import Tensor
from .strides import broadcast, collapsed

GROUP = 64
"""Work-items of a group; the size is rounded up to it."""


WIDE = 32
"""From this size on, the last axis has a dimension of the range for itself."""


def _computed(value: ir.Value) -> str:
    """The C type in which a value is computed."""
    found = C_TYPES[element_type(value)]
    return "float" if found == "half" else found


def _place(rank: int, far: Sequence[int], wide: bool) -> list[str]:
    """The statements that find the element's place in every input that is broadcast.

    Where the last axis is long it has a dimension of the range for itself: its index needs no division, and the
    compilers of CPUs make vectors of it.
    """
    if not wide:
        lines = ["const int i = get_global_id(0);", "if (i >= n) return;"]
        lines += ["int rest = i;", *(f"int at{index} = 0;" for index in far)] if far else []
    else:
        last = rank - 1
        lines = [
            "const int column = get_global_id(0);",
            f"if (column >= d{last}) return;",
            f"int rest = get_global_id(1); const int i = rest * d{last} + column;",
            *(f"int at{index} = column * s{index}_{last};" for index in far),
        ]
    for axis in reversed(range(rank - 1 if wide else rank)):
        lines.append("{ const int c = " + ("rest" if axis == 0 else f"rest % d{axis}") + ";")
        lines += [f"at{index} += c * s{index}_{axis};" for index in far]
        lines.append("}" if axis == 0 else f"rest /= d{axis}; }}")
    return lines


@dataclass
class Chain:
    """Nodes that compute one value, elementwise, from ``inputs``.

    Attributes:
        nodes: in topological order, each with its formula.
        inputs: values from outside, in the order of the kernel's arguments.
    """

    nodes: list[tuple[ir.Node, Formula]]
    inputs: list[ir.Value]
    opsets: Subgraph
    sources: dict[tuple[Any, ...], str] = field(default_factory=dict)

    @property
    def output(self) -> ir.Value:
        """The one value that leaves the chain."""
        return self.nodes[-1][0].outputs[0]

    def run(self, context: RunContext, tensors: Sequence[Tensor]) -> Tensor:
        """Compute the output from the inputs, in the order of ``inputs``."""
        shapes = [self._channelled(value, tensor) for value, tensor in zip(self.inputs, tensors, strict=True)]
        shape = np.broadcast_shapes(*shapes)
        dtype = numpy_dtype(element_type(self.output))
        out: Tensor = empty(context, self.output, shape, dtype)
        dims, strides = collapsed(shape, [broadcast(own, shape) for own in shapes])
        modes = tuple(
            "one" if tensor.size == 1 else "dense" if len(dims) <= 1 and walk == [1] else "far"
            for tensor, walk in zip(tensors, strides, strict=True)
        )
        rank = len(dims) if "far" in modes else 0
        wide = rank > 1 and dims[-1] >= WIDE
        key = (rank, modes, wide)
        if key not in self.sources:
            self.sources[key] = self._source(rank, modes, wide)
        arguments: list[Any] = [out.size, *tensors, out]
        if rank:
            arguments += dims
            for mode, walk in zip(modes, strides, strict=True):
                arguments += walk if mode == "far" else []
        row = dims[-1] if wide else out.size
        size, group = [-(-row // GROUP) * GROUP], [GROUP]
        if wide:
            size, group = [*size, out.size // row], [*group, 1]
        launch(context, self.sources[key], "chain", size, arguments, group=group)
        return out

    def _channelled(self, value: ir.Value, tensor: Tensor) -> tuple[int, ...]:
        """The shape of an input; one number a channel stands at axis 1 of the node's first input."""
        for node, formula in self.nodes:
            for index in formula.per_channel:
                if index < len(node.inputs) and node.inputs[index] is value and node.inputs[0] is not None:
                    rank = len(node.inputs[0].shape or ())
                    return (*tensor.shape, *[1] * max(0, rank - 2))
        return tensor.shape

    def _source(self, rank: int, modes: tuple[str, ...], wide: bool) -> str:
        stored = [C_TYPES[element_type(value)] for value in self.inputs]
        types = [_computed(value) for value in self.inputs]
        result = C_TYPES[element_type(self.output)]
        parameters = ["const int n"]
        parameters += [f"__global const {c}* restrict p{i}, const long o{i}" for i, c in enumerate(stored)]
        parameters += [f"__global {result}* restrict q, const long oq"]
        parameters += [f"const int d{axis}" for axis in range(rank)]
        far = [index for index, mode in enumerate(modes) if mode == "far"]
        parameters += [f"const int s{index}_{axis}" for index in far for axis in range(rank)]
        lines = _place(rank, far, wide)
        lines += self._numbers(modes, stored, types)
        body = "\n  ".join(lines)
        head = pragma([*types, result]) + mathematics(body)
        return f"{head}__kernel void chain({', '.join(parameters)}) {{\n  {body}\n}}\n"

    def _numbers(self, modes: tuple[str, ...], stored: Sequence[str], types: Sequence[str]) -> list[str]:
        """The statements that read the inputs, compute every node and store the last one."""
        lines: list[str] = []
        names: dict[ir.Value, tuple[str, str]] = {}
        for index, (value, c) in enumerate(zip(self.inputs, types, strict=True)):
            place = {"one": "0", "dense": "i", "far": f"at{index}"}[modes[index]]
            at = f"o{index} + {place}"
            read = f"vload_half({at}, p{index})" if stored[index] == "half" else f"p{index}[{at}]"
            lines.append(f"const {c} x{index} = {read};")
            names[value] = (f"x{index}", c)
        for index, (node, formula) in enumerate(self.nodes):
            found = [None if value is None else names[value] for value in node.inputs]
            out = _computed(node.outputs[0])
            site = Site(
                [None if item is None else item[0] for item in found],
                [out if item is None else item[1] for item in found],
                out,
                attribute_values(node),
                self.opsets.opset(node),
            )
            number = f"({out})({formula.write(site)})"
            if element_type(node.outputs[0]) == "float16" and node.outputs[0] is not self.output:
                number = f"as_half({number})"
            lines.append(f"const {out} v{index} = {number};")
            names[node.outputs[0]] = (f"v{index}", out)
        last = names[self.output][0]
        lines.append(
            f"vstore_half_rte({last}, oq + i, q);"
            if C_TYPES[element_type(self.output)] == "half"
            else f"q[oq + i] = {last};"
        )
        return lines
