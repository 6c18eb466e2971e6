"""A provider on a device with memory of its own, whose kernels run in a stream.

device = FakeDevice()
registry = registry_of(device_provider("toy", device))
with epkit.load(model, providers=["toy"], registry=registry) as session:
    session(x=array)
device.assert_clean()
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import reduce
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ..backend.claim import Claim, Refusal
from ..backend.device import Device, Devices
from ..backend.kernel import Kernel, kernel
from ..backend.kernel_provider import KernelProvider
from ..backend.memory import Allocator, Stream, Tensor
from ..backend.program import RunContext
from ..backend.subgraph import Subgraph
from .awkward import Picker, claim_groups, everything
from .memory import DeviceBuffer, DeviceTensor, FakeMemory
from .stream import FakeStream, LateStream, Queue, ThreadStream

if TYPE_CHECKING:
    import onnx_ir as ir

NUMBERS = frozenset({"float32", "float64", "int32", "int64"})
Shaped = Sequence[tuple[Sequence[int], np.dtype[Any]]]


class FakeDevice:
    """Memory, and streams that are late (or, with ``threads``, have a worker each)."""

    def __init__(self, *, threads: bool = False, alignment: int = 256, limit: int | None = None) -> None:
        self.memory = FakeMemory(alignment, limit)
        self.queue = Queue()
        self._kind = ThreadStream if threads else LateStream

    def stream(self) -> FakeStream:
        """A new queue."""
        return self._kind(self.queue)

    def faults(self) -> list[str]:
        """Everything that was done wrong so far."""
        return [*self.memory.faults, *self.queue.faults]

    def assert_clean(self) -> None:
        """After the last session was closed: nothing was misused, nothing is left over.

        Raises:
            AssertionError: naming what went wrong.
        """
        assert not self.faults(), "; ".join(self.faults())
        assert self.memory.in_use == 0, f"{self.memory.in_use} bytes were never freed"
        assert not self.queue.open, f"{len(self.queue.open)} streams were never closed"


class FakeDeviceProvider(KernelProvider):
    """Kernels on a :class:`FakeDevice`; see :func:`device_provider`."""

    version = "1.0"
    device: ClassVar[FakeDevice]
    pick: ClassVar[Picker]

    def __init__(self, options: object = None) -> None:
        super().__init__(options)
        self._weights: list[DeviceBuffer] = []

    def devices(self) -> Devices:
        limit = self.device.memory.limit
        return Devices(
            (Device(f"{self.name}:0", "toy", "a device that notices misuse", limit, host_memory=False),)
        )

    def claim(self, graph: Subgraph) -> Iterable[Claim | Refusal]:
        return claim_groups(self, type(self).pick, graph)

    def allocator(self, device: Device) -> Allocator:
        return self.device.memory

    def stream(self, device: Device) -> Stream:
        return self.device.stream()

    def constant(self, array: Any) -> Tensor:
        buffer, tensor = self.device.memory.upload(array)
        self._weights.append(buffer)
        return tensor

    def close(self) -> None:
        for buffer in self._weights:
            self.device.memory.free(buffer)


def device_provider(
    name: str, device: FakeDevice, pick: Picker = everything, extra: Iterable[Kernel] = ()
) -> type[FakeDeviceProvider]:
    """A provider class of that name on a device; it claims what ``pick`` names (see ``awkward``)."""
    members = {"name": name, "device": device, "pick": staticmethod(pick), "kernels": (*KERNELS, *extra)}
    return type(name, (FakeDeviceProvider,), members)


def launch(
    context: RunContext,
    function: Callable[..., Any],
    inputs: Sequence[DeviceTensor],
    outputs: Sequence[DeviceTensor],
) -> None:
    """Enqueue a computation on arrays: it reads its inputs when its turn comes, and not before."""

    def work() -> None:
        with np.errstate(all="ignore"):
            results = function(*(tensor.peek() for tensor in inputs))
        for tensor, result in zip(
            outputs, results if isinstance(results, tuple) else (results,), strict=True
        ):
            tensor.poke(np.asarray(result))

    assert isinstance(context.stream, FakeStream)
    context.stream.enqueue(work, inputs, outputs)


# ---- kernels ----


def _broadcast(*inputs: Any, **_: Any) -> Shaped:
    return [(np.broadcast_shapes(*(x.shape for x in inputs)), inputs[0].dtype)]


def _elementwise(op_type: str, since: int, function: Callable[..., Any]) -> Kernel:
    @kernel(op_type, since=since, types={"T": NUMBERS}, shapes=_broadcast)
    def compute(*inputs: Any, context: RunContext, out: Sequence[Any]) -> None:
        launch(context, function, inputs, out)

    return compute


def _product(a: Any, b: Any, **_: Any) -> Shaped:
    return [(np.matmul(np.empty(a.shape, bool), np.empty(b.shape, bool)).shape, a.dtype)]


@kernel("MatMul", since=9, types={"T": NUMBERS}, shapes=_product)
def matmul(a: Any, b: Any, *, context: RunContext, out: Sequence[Any]) -> None:
    """Matrix product."""
    launch(context, np.matmul, (a, b), out)


def _transposed(x: Any, *, perm: Sequence[int] | None = None, **_: Any) -> Shaped:
    order = range(len(x.shape))[::-1] if perm is None else perm
    return [(tuple(x.shape[axis] for axis in order), x.dtype)]


@kernel("Transpose", types={"T": NUMBERS}, shapes=_transposed)
def transpose(x: Any, *, perm: Sequence[int] | None = None, context: RunContext, out: Sequence[Any]) -> None:
    """Axes in another order."""
    launch(context, lambda array: np.transpose(array, perm), (x,), out)


def _joined(*inputs: Any, axis: int, **_: Any) -> Shaped:
    shape = list(inputs[0].shape)
    shape[axis] = sum(x.shape[axis] for x in inputs)
    return [(shape, inputs[0].dtype)]


@kernel("Concat", since=4, types={"T": NUMBERS}, shapes=_joined)
def concat(*inputs: Any, axis: int, context: RunContext, out: Sequence[Any]) -> None:
    """Joined along an axis."""
    launch(context, lambda *arrays: np.concatenate(arrays, axis), inputs, out)


@kernel("Identity", types={"T": NUMBERS})
def identity(x: Any) -> Any:
    """The same bytes."""
    return x.view(x.shape)


@kernel("Flatten", since=9, types={"T": NUMBERS})
def flatten(x: Any, *, axis: int = 1) -> Any:
    """The same bytes as a matrix."""
    rows = int(np.prod(x.shape[:axis], dtype=np.int64))
    columns = int(np.prod(x.shape[axis:], dtype=np.int64))
    return x.view((rows, columns))


@kernel("NonZero", since=9, types={"T": NUMBERS})
def nonzero(x: Any, *, context: RunContext, node: ir.Node) -> Any:
    """Indices of what is not zero: the result's shape is known only when the data are."""
    context.stream.synchronize()
    found = np.array(np.nonzero(x.peek()), np.int64)
    result = context.empty(node.outputs[0], found.shape, found.dtype)
    launch(context, lambda _: found, (x,), (result,))
    return result


KERNELS: tuple[Kernel, ...] = (
    _elementwise("Relu", 6, lambda x: np.maximum(x, x.dtype.type(0))),
    _elementwise("Neg", 6, np.negative),
    _elementwise("Abs", 6, np.abs),
    _elementwise("Tanh", 6, np.tanh),
    _elementwise("Sigmoid", 6, lambda x: 1 / (1 + np.exp(-x))),
    _elementwise("Add", 7, np.add),
    _elementwise("Sub", 7, np.subtract),
    _elementwise("Mul", 7, np.multiply),
    _elementwise("Max", 8, lambda *arrays: reduce(np.maximum, arrays)),
    _elementwise("Min", 8, lambda *arrays: reduce(np.minimum, arrays)),
    matmul,
    transpose,
    concat,
    identity,
    flatten,
    nonzero,
)
