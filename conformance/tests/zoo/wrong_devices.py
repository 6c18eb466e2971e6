"""Providers with memory and queues of their own that do not behave."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from sound import Sound, SoundDevice, reported_by

from epkit.backend import Allocator, Device, Devices, RunContext, Stream, kernel
from epkit.testing.device import KERNELS
from epkit.testing.memory import DeviceBuffer, DeviceTensor, FakeMemory
from epkit.testing.stream import LateStream, Queue


@reported_by("device/brings_its_own_allocator")
class ClaimsADevice(Sound):
    """says that its device has memory of its own, and works in the host's"""

    def devices(self) -> Devices:
        return Devices((Device("toy:0", "toy", host_memory=False),))

    def memory_steps(self, subgraph: Any) -> Any:
        return super().memory_steps(subgraph)


@kernel("Neg", since=6, types={"T": {"float32"}}, shapes=lambda x, **_: [(x.shape, x.dtype)])
def _on_the_host(x: Any, *, context: RunContext, out: Sequence[Any]) -> None:
    allocator = HOST_WORKER[-1]
    array = np.empty(x.shape, x.dtype)
    allocator.copy_out(x, array, context.stream)
    context.stream.synchronize()
    np.negative(array, out=array)
    allocator.copy_in(array, out[0], context.stream)
    context.stream.synchronize()


HOST_WORKER: list[Allocator] = []


@reported_by("device/crosses_the_border_once")
class ComputesOnTheHost(SoundDevice):
    """copies out, computes on the host, copies in again"""

    kernels = (_on_the_host, *KERNELS)

    def compile(self, subgraph: Any) -> Any:
        HOST_WORKER.append(self.allocator(self.devices().found[0]))
        return super().compile(subgraph)


class _Slack(FakeMemory):
    """Leaves a gap in front of each buffer."""

    def view(self, buffer: Any, offset: int, shape: Sequence[int], dtype: Any) -> Any:
        return _Addressed(buffer, offset, tuple(shape), np.dtype(dtype))


class _Addressed(DeviceTensor):
    def data_ptr(self) -> int:
        """Where it lies: not where it was promised to."""
        return self.span[0] + 8


@reported_by("device/states_an_alignment")
class IgnoresAlignment(SoundDevice):
    """promises 256 bytes, and keeps eight"""

    memory = _Slack()


class _WithoutOffset(FakeMemory):
    def view(self, buffer: Any, offset: int, shape: Sequence[int], dtype: Any) -> Any:
        return super().view(buffer, 0, shape, dtype)


@reported_by("device/keeps_views_apart", "device/says_when_memory_is_out", may=["*"])
class IgnoresOffsets(SoundDevice):
    """puts every view at the start of its buffer"""

    memory = _WithoutOffset()


class _FreeList(FakeMemory):
    """Reuses buffers by size, and does not notice that one comes back twice."""

    def __init__(self) -> None:
        super().__init__()
        self.spare: dict[int, list[DeviceBuffer]] = {}

    def allocate(self, nbytes: int) -> DeviceBuffer:
        spare = self.spare.setdefault(nbytes, [])
        return spare.pop() if spare else super().allocate(nbytes)

    def free(self, buffer: Any) -> None:
        self.spare.setdefault(len(buffer.data), []).append(buffer)


@reported_by("device/survives_a_double_free")
class FreesTwice(SoundDevice):
    """gives one buffer to two owners after it was freed twice"""

    memory = _FreeList()


class _Truncating(FakeMemory):
    def copy_in(self, array: Any, tensor: Any, stream: Stream) -> None:
        if array.nbytes % 4 and array.nbytes > 4:
            flat = array.copy().reshape(-1).view(np.uint8)
            flat[-(array.nbytes % 4) :] = 0
            kept = flat.view(array.dtype).reshape(array.shape)
            super().copy_in(kept, tensor, stream)
            stream.synchronize()
        else:
            super().copy_in(array, tensor, stream)


@reported_by("device/copies_every_type_and_size")
class CopiesWholeWords(SoundDevice):
    """copies multiples of four bytes"""

    memory = _Truncating()


class _RaisesOtherwise(FakeMemory):
    def allocate(self, nbytes: int) -> DeviceBuffer:
        if nbytes > 1 << 40:
            raise RuntimeError("acme error 7")
        return super().allocate(nbytes)


@reported_by("device/says_when_memory_is_out")
class HidesThatMemoryIsOut(SoundDevice):
    """raises an error of its own when memory is out"""

    memory = _RaisesOtherwise()


@reported_by("device/accounts_for_its_memory", "contract/gives_back_sessions")
class NeverFreesWeights(SoundDevice):
    """leaves its weights on the device"""

    def compile(self, subgraph: Any) -> Any:
        self.allocator(self.devices().found[0]).allocate(512)
        return super().compile(subgraph)


class _Careless(LateStream):
    def synchronize(self) -> None:
        """Wait for nothing."""

    def record(self) -> Any:
        event = super().record()
        event.stream.wait_for(event.work)
        return event

    def close(self) -> None:
        self.record()
        super().close()


@reported_by("streams/keeps_streams_apart", "device/copies_every_type_and_size", may=["*"])
class DoesNotSynchronise(SoundDevice):
    """returns from synchronize before the work is done"""

    def stream(self, device: Device) -> Stream:
        return _Careless(Queue())


class _Early(LateStream):
    def record(self) -> Any:
        class Early:
            def wait(self) -> None:
                """Come back at once."""

        return Early()

    def synchronize(self) -> None:
        super().record().wait()


@reported_by("streams/waits_for_an_event")
class HasEventsThatAreOver(SoundDevice):
    """has events that nobody waits for"""

    def stream(self, device: Device) -> Stream:
        return _Early(Queue())


class _Backwards(LateStream):
    def wait_for(self, work: Any) -> None:
        while self._works:
            self.execute(self._works.pop())


@reported_by("streams/keeps_order", may=["*"])
class WorksBackwards(SoundDevice):
    """does the latest work first"""

    def stream(self, device: Device) -> Stream:
        return _Backwards(Queue())
