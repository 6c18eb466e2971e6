"""Chains of formulas as one kernel: intermediate values stay in registers, whatever is broadcast or transposed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir

from epkit.backend import RunContext, Subgraph, element_type
from epkit.dtypes import numpy_dtype
from epkit.kernels._strides import collapse
from epkit.kernels.attributes import attribute_values

from .kernels.formulas import Formula, Site
from .launch import launch
from .memory import Tensor
from .source import NARROW, PRELUDE, computed, stored
from .strides import walk

BLOCK = 256
"""Threads of a block."""

GRID = 1 << 16
"""Blocks at most; a thread computes several elements where there are more."""


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
        arrays = [self._spread(value, t.array) for value, t in zip(self.inputs, tensors, strict=True)]
        shape = np.broadcast_shapes(*(tuple(array.shape) for array in arrays))
        out: Tensor = context.empty(self.output, shape, numpy_dtype(element_type(self.output)))
        dims, steps = collapse(shape, [walk(array, shape) for array in arrays])
        dense = [1] if dims else []
        modes = tuple(
            "one" if array.size == 1 else "dense" if step == dense else "far"
            for array, step in zip(arrays, steps, strict=True)
        )
        rank = len(dims) if "far" in modes else 0
        source = self.source(rank, modes, wide=out.size >= 2**30)
        count = np.int64(out.size)
        arguments: list[Any] = [count, *arrays, out.array]
        if rank:
            arguments += map(np.int64, dims)
            for mode, step in zip(modes, steps, strict=True):
                arguments += map(np.int64, step if mode == "far" else [])
        launch(context, source, "chain", min(GRID, -(-out.size // BLOCK)), BLOCK, arguments)
        return out

    def _spread(self, value: ir.Value, array: Any) -> Any:
        """One number a channel stands at axis 1 of the node's first input."""
        for node, formula in self.nodes:
            for index in formula.per_channel:
                if index < len(node.inputs) and node.inputs[index] is value and node.inputs[0] is not None:
                    rank = len(node.inputs[0].shape or ())
                    return array.reshape((*array.shape, *[1] * max(0, rank - 2)))
        return array

    def source(self, rank: int, modes: tuple[str, ...], *, wide: bool = False) -> str:
        """The CUDA C++ of the chain for ``rank`` axes, each input read as its mode says; kept."""
        key = (rank, modes, wide)
        if key not in self.sources:
            self.sources[key] = self._write(rank, modes, "long long" if wide else "int")
        return self.sources[key]

    def _write(self, rank: int, modes: tuple[str, ...], index: str) -> str:
        types = [stored(element_type(value)) for value in self.inputs]
        result = stored(element_type(self.output))
        far = [number for number, mode in enumerate(modes) if mode == "far"]
        parameters = ["long long n", *(f"const {t}* __restrict__ p{i}" for i, t in enumerate(types))]
        parameters += [f"{result}* __restrict__ q"]
        parameters += [f"long long d{axis}" for axis in range(rank)]
        parameters += [f"long long s{number}_{axis}" for number in far for axis in range(rank)]
        body = [*self._places(rank, far, index), *self._values(types, modes)]
        step = f"({index})gridDim.x * blockDim.x"
        start = f"({index})blockIdx.x * blockDim.x + threadIdx.x"
        lines = "\n    ".join(body)
        return (
            f'{PRELUDE}\nextern "C" __global__ void chain({", ".join(parameters)}) {{\n'
            f"  for ({index} i = {start}; i < n; i += {step}) {{\n    {lines}\n  }}\n}}\n"
        )

    def _places(self, rank: int, far: Sequence[int], index: str) -> list[str]:
        """Where element i lies in each input that is read by strides."""
        if not far:
            return []
        lines = [f"{index} rest = i;", *(f"long long at{number} = 0;" for number in far)]
        for axis in reversed(range(rank)):
            size = f"({index})d{axis}"
            lines.append(f"{{ const {index} c = {'rest' if axis == 0 else f'rest % {size}'};")
            lines += [f"at{number} += c * s{number}_{axis};" for number in far]
            lines.append("}" if axis == 0 else f"rest /= {size}; }}")
        return lines

    def _values(self, types: Sequence[str], modes: Sequence[str]) -> list[str]:
        """Load, compute node by node, store."""
        lines: list[str] = []
        names: dict[ir.Value, tuple[str, str]] = {}
        for number, (value, c_type) in enumerate(zip(self.inputs, types, strict=True)):
            place = {"one": "0", "dense": "i", "far": f"at{number}"}[modes[number]]
            lines.append(f"const {computed(c_type)} x{number} = widen(p{number}[{place}]);")
            names[value] = (f"x{number}", computed(c_type))
        for number, (node, formula) in enumerate(self.nodes):
            found = [None if value is None else names[value] for value in node.inputs]
            kept = stored(element_type(node.outputs[0]))
            out = computed(kept)
            site = Site(
                [None if item is None else item[0] for item in found],
                [out if item is None else item[1] for item in found],
                out,
                attribute_values(node),
                self.opsets.opset(node),
            )
            expression = f"({out})({formula.write(site)})"
            if kept in NARROW:
                expression = f"widen(stored_as<{kept}>({expression}))"
            lines.append(f"const {out} v{number} = {expression};")
            names[node.outputs[0]] = (f"v{number}", out)
        lines.append(f"narrow({names[self.output][0]}, q[i]);")
        return lines
