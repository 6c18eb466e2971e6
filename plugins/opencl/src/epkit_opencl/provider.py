"""The provider: claims by kernels, shape arithmetic left to the host, weights uploaded once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache, cached_property
from typing import Any

import numpy as np
import onnx_ir as ir

from epkit.backend import (
    Allocator,
    Claim,
    Device,
    Devices,
    Kernel,
    KernelProvider,
    KernelTable,
    MemoryStep,
    Program,
    Refusal,
    Stream,
    Subgraph,
)

from .compile import ClProgram, Step, steps_of
from .device import Gpu, Limits, Options, find_devices, handle_of, limits_of, open_device
from .kernels import all_kernels
from .memory import MIRRORED, ClAllocator, ClStream, Lanes, Tensor, weight_buffer

SHAPE_MAKERS = ("Shape", "Size")


class OpenClProvider(KernelProvider):
    """Kernels in OpenCL C on one device."""

    name = "opencl"
    version = "0.1.0"
    Options = Options

    def __init__(self, options: object = None) -> None:
        super().__init__(options)
        self._weights: list[Any] = []

    def devices(self) -> Devices:
        return find_devices(self.options)

    @cached_property
    def gpu(self) -> Gpu:
        """The chosen device."""
        return open_device(handle_of(self.devices().found[0]))

    @cached_property
    def limits(self) -> Limits:
        """What kernels may use of it."""
        return limits_of(self.gpu.handle, self.options)

    @cached_property
    def lanes(self) -> Lanes:
        """Queues between two runs."""
        return Lanes(self.gpu)

    @cached_property
    def table(self) -> KernelTable:
        return table_of(self.limits)

    def claim(self, graph: Subgraph) -> Iterable[Claim | Refusal]:
        host = shape_arithmetic(graph)
        for node in graph.nodes:
            if node in host:
                yield Refusal(node, "cost", "it computes with shapes, which the host knows without a copy")
                continue
            found = self.table.find(node, graph)
            yield found if isinstance(found, Refusal) else Claim((node,))

    def _steps(self, subgraph: Subgraph) -> list[Step]:
        def kernel_for(node: ir.Node) -> Kernel:
            return self.kernel_for(node, subgraph)

        return steps_of(subgraph, kernel_for)

    def memory_steps(self, subgraph: Subgraph) -> Sequence[MemoryStep]:
        results = frozenset(subgraph.outputs)
        return [step.memory(self.limits.alignment, results) for step in self._steps(subgraph)]

    def compile(self, subgraph: Subgraph) -> Program:
        return ClProgram(subgraph, self._steps(subgraph), self.constant)

    def constant(self, array: Any) -> Tensor:
        flat = np.ascontiguousarray(array)
        buffer = weight_buffer(self.gpu, self.limits, flat if flat.nbytes else np.zeros(1, np.uint8))
        self._weights.append(buffer)
        host = np.array(array) if array.nbytes <= MIRRORED else None
        tensor = Tensor(buffer, 0, tuple(array.shape), array.dtype, host)
        tensor.packed = {}
        return tensor

    def allocator(self, device: Device) -> Allocator:
        return ClAllocator(self.gpu, self.limits, self.lanes)

    def stream(self, device: Device) -> Stream:
        return ClStream(self.gpu, self.limits, self.lanes.take(), self.lanes.give)

    def fingerprint(self, device: Device) -> str:
        return self.gpu.driver

    def close(self) -> None:
        for buffer in self._weights:
            buffer.release()
        self._weights.clear()
        self.lanes.shrink()


@cache
def table_of(limits: Limits) -> KernelTable:
    """The kernels for such devices; made once, since every session asks."""
    return KernelTable(all_kernels(limits))


def shape_arithmetic(graph: Subgraph) -> set[ir.Node]:
    """Nodes that compute only from shapes and constants: small integers, which decide sizes."""
    shapes: set[ir.Value] = set()
    found: set[ir.Node] = set()
    for node in graph.nodes:
        if node.op_type in SHAPE_MAKERS and not node.domain:
            shapes.update(node.outputs)
            continue
        read = [value for value in node.inputs if value is not None]
        known = [value in shapes or graph.constant(value) is not None for value in read]
        small = all(value.shape is None or len(value.shape) <= 1 for value in (*read, *node.outputs))
        if read and all(known) and small and any(value in shapes for value in read):
            found.add(node)
            shapes.update(node.outputs)
    return found
