"""The provider: claims by kernels, shape arithmetic left to the host, weights uploaded once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
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

from .compile import CudaProgram, steps_of
from .device import Options, find_devices, open_machine
from .kernels import all_kernels
from .machine import Machine
from .memory import CudaAllocator, StreamPool, Tensor
from .step import Step
from .together import Group

REMEMBERED = 1 << 16
"""Bytes up to which the host keeps a view of a constant: sizes, axes, small tables."""

SHAPE_MAKERS = ("Shape", "Size")


class CudaProvider(KernelProvider):
    """Kernels on one NVIDIA GPU."""

    name = "cuda"
    version = "0.1.0"
    Options = Options

    def devices(self) -> Devices:
        return find_devices(self.options)

    @cached_property
    def machine(self) -> Machine:
        """The chosen GPU."""
        return open_machine(self.options.device)

    @cached_property
    def streams(self) -> StreamPool:
        """The streams of this provider's runs."""
        return StreamPool(self.machine, self.options.stream)

    @cached_property
    def table(self) -> KernelTable:
        return KernelTable(all_kernels(self.machine, self.options.precision))

    def claim(self, graph: Subgraph) -> Iterable[Claim | Refusal]:
        host = shape_arithmetic(graph)
        for node in graph.nodes:
            if node in host:
                yield Refusal(node, "cost", "it computes with shapes, which the host knows without a copy")
                continue
            found = self.table.find(node, graph)
            yield found if isinstance(found, Refusal) else Claim((node,))

    def _steps(self, subgraph: Subgraph) -> list[Step | Group]:
        def kernel_for(node: ir.Node) -> Kernel:
            return self.kernel_for(node, subgraph)

        return steps_of(subgraph, kernel_for, self.options.precision)

    def memory_steps(self, subgraph: Subgraph) -> Sequence[MemoryStep]:
        return [step.memory() for step in self._steps(subgraph)]

    def compile(self, subgraph: Subgraph) -> Program:
        return CudaProgram(subgraph, self._steps(subgraph), self.constant)

    def constant(self, array: Any, by_columns: bool = False) -> Tensor:
        """A weight on the device; ``by_columns``: a matrix whose columns are dense there."""
        machine, stream = self.machine, self.streams.take()
        with machine.using(stream.raw):
            target = machine.xp.empty(array.shape, array.dtype)
        stream.send(np.ascontiguousarray(array).reshape(array.shape), target)
        if by_columns:
            with machine.using(stream.raw):
                target = machine.xp.ascontiguousarray(target.T).T
        stream.close()
        tensor = Tensor(target, array if array.nbytes <= REMEMBERED else None)
        tensor.packed = {}
        return tensor

    def allocator(self, device: Device) -> Allocator:
        return CudaAllocator(self.machine)

    def stream(self, device: Device) -> Stream:
        return self.streams.take()

    def fingerprint(self, device: Device) -> str:
        return self.machine.driver

    def close(self) -> None:
        if "streams" in self.__dict__:
            self.streams.close()


def shape_arithmetic(graph: Subgraph) -> set[ir.Node]:
    """Nodes that compute only from shapes and constants: small integers, which decide sizes."""
    shapes: set[ir.Value] = set()
    found: set[ir.Node] = set()
    for node in graph.nodes:
        if node.op_type in SHAPE_MAKERS and not node.domain:
            shapes.update(node.outputs)  # the device knows a shape as well: who has the input says it
            continue
        read = [value for value in node.inputs if value is not None]
        known = [value in shapes or graph.constant(value) is not None for value in read]
        small = all(value.shape is None or len(value.shape) <= 1 for value in (*read, *node.outputs))
        if read and all(known) and small and any(value in shapes for value in read):
            found.add(node)
            shapes.update(node.outputs)
    return found
