"""Level 4: a device with memory of its own, and what crosses its border."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any

import numpy as np

import epkit
from epkit.backend import HostAllocator
from epkit.dtypes import ALL, numpy_dtype

from ..case import Case
from ..evidence import copied_bytes, recorded_run
from ..probes import Subject, on_each
from ..result import Result, State
from ..watch import watched
from .concurrency import Bench

SHAPES: tuple[tuple[int, ...], ...] = ((), (0,), (1,), (3,), (64,), (65,), (2, 0, 3), (3, 5, 7), (257, 129))


# ---- the allocator by itself ----


def brings_its_own_allocator(bench: Bench) -> None:
    """A device with memory of its own has an allocator of its own."""
    assert not isinstance(bench.allocator, HostAllocator), (
        f"{bench.device.name} says host_memory=False and allocates with the host's allocator: "
        "override allocator(), or say host_memory=True"
    )


def states_an_alignment(bench: Bench) -> None:
    """The alignment is a power of two, and addresses (where they can be seen) keep it."""
    alignment = bench.allocator.alignment
    assert alignment > 0 and alignment & (alignment - 1) == 0, f"alignment {alignment} is no power of two"
    for nbytes in (1, 7, alignment, alignment + 1, 4097):
        tensor = bench.tensor(np.empty(nbytes, np.uint8))
        address = _address(tensor)
        assert address is None or address % alignment == 0, (
            f"a buffer of {nbytes} bytes lies at {address:#x}, not at a multiple of {alignment}"
        )


def copies_every_type_and_size(bench: Bench) -> None:
    """In and out again, byte for byte: all element types, odd sizes, no elements."""
    stream = bench.stream()
    rng = np.random.default_rng(1)
    for name in sorted(ALL - {"string"}):
        dtype = numpy_dtype(name)
        for shape in SHAPES:
            count = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
            raw = rng.integers(0, 2 if dtype == np.bool_ else 256, count, np.uint8)
            array = raw.view(dtype).reshape(shape)
            buffer = bench.allocator.allocate(max(1, array.nbytes))
            tensor = bench.allocator.view(buffer, 0, shape, dtype)
            assert tuple(tensor.shape) == shape, f"a view of {shape} has shape {tensor.shape}"
            assert tensor.dtype == dtype, f"a view of {dtype} has dtype {tensor.dtype}"
            bench.allocator.copy_in(array, tensor, stream)
            got = bench.read(tensor, stream)
            assert got.tobytes() == array.tobytes(), f"{name}{list(shape)} came back with other bytes"
            bench.allocator.free(buffer)


def keeps_views_apart(bench: Bench) -> None:
    """Views at different offsets of one buffer are different bytes, and the same offset is the same bytes."""
    stream, step = bench.stream(), max(bench.allocator.alignment, 64)
    buffer = bench.allocator.allocate(8 * step)
    arrays = [np.full(16, index + 1, np.float32) for index in range(8)]
    views = [bench.allocator.view(buffer, index * step, (16,), np.dtype(np.float32)) for index in range(8)]
    for array, view in zip(arrays, views, strict=True):
        bench.allocator.copy_in(array, view, stream)
    for index, array in enumerate(arrays):
        again = bench.allocator.view(buffer, index * step, (4, 4), np.dtype(np.float32))
        got = bench.read(again, stream)
        assert np.array_equal(got.ravel(), array), (
            f"the view at offset {index * step} holds {got.ravel()[:3]}"
        )
    bench.allocator.free(buffer)


def keeps_buffers_apart(bench: Bench) -> None:
    """Buffers that live at the same time share no byte, through many allocations and frees."""
    stream = bench.stream()
    rng = np.random.default_rng(2)
    live: list[tuple[Any, Any, np.ndarray[Any, Any]]] = []
    for turn in range(200):
        array = np.full(int(rng.integers(1, 600)), turn, np.int32)
        buffer = bench.allocator.allocate(array.nbytes)
        tensor = bench.allocator.view(buffer, 0, array.shape, array.dtype)
        bench.allocator.copy_in(array, tensor, stream)
        live.append((buffer, tensor, array))
        if len(live) > 8:
            buffer, tensor, array = live.pop(int(rng.integers(len(live))))
            assert np.array_equal(bench.read(tensor, stream), array), (
                "a buffer was changed through another one"
            )
            bench.allocator.free(buffer)
    for buffer, tensor, array in live:
        assert np.array_equal(bench.read(tensor, stream), array), "a buffer was changed through another one"
        bench.allocator.free(buffer)


def survives_a_double_free(bench: Bench) -> None:
    """Freeing twice is refused, or harmless: no memory is given out to two owners."""
    stream = bench.stream()
    first = bench.allocator.allocate(1024)
    bench.allocator.free(first)
    try:
        bench.allocator.free(first)
    except Exception:
        return
    del first
    arrays = [np.full(256, index + 1, np.float32) for index in range(4)]
    buffers = [bench.allocator.allocate(array.nbytes) for array in arrays]
    tensors = [bench.allocator.view(buffer, 0, (256,), np.dtype(np.float32)) for buffer in buffers]
    for array, tensor in zip(arrays, tensors, strict=True):
        bench.allocator.copy_in(array, tensor, stream)
    for array, tensor in zip(arrays, tensors, strict=True):
        assert np.array_equal(bench.read(tensor, stream), array), (
            "after a buffer had been freed twice, two later ones were the same memory"
        )
    for buffer in buffers:  # only now: the next case of this worker would be given what has two owners
        bench.allocator.free(buffer)


def survives_a_use_after_free(bench: Bench) -> None:
    """A view of what was freed is refused, or harms nothing: not what lived then, and not what comes later."""
    stream = bench.stream()
    arrays = [np.full(256, index + 1, np.float32) for index in range(5)]
    gone = bench.allocator.allocate(arrays[0].nbytes)
    tensors = [_filled(bench, array, stream) for array in arrays[:2]]
    bench.allocator.free(gone)
    with suppress(Exception):
        bench.allocator.view(gone, 0, arrays[0].shape, arrays[0].dtype)
    tensors += [_filled(bench, array, stream) for array in arrays[2:]]
    for array, tensor in zip(arrays, tensors, strict=True):
        assert np.array_equal(bench.read(tensor, stream), array), (
            "a buffer was changed, after another one had been freed and asked for a view"
        )


def _filled(bench: Bench, array: np.ndarray[Any, Any], stream: Any) -> Any:
    tensor = bench.tensor(array)
    bench.allocator.copy_in(array, tensor, stream)
    stream.synchronize()
    return tensor


def says_when_memory_is_out(bench: Bench) -> None:
    """More than there can be is a MemoryError, and the allocator works on."""
    try:
        bench.allocator.free(bench.allocator.allocate(1 << 60))
    except MemoryError:
        keeps_views_apart(bench)
        return
    except Exception as error:
        raise AssertionError(
            f"allocate raised {type(error).__name__}, which must be MemoryError: {error}"
        ) from error
    raise AssertionError("2**60 bytes were given out: allocate must raise MemoryError")


def _address(tensor: Any) -> int | None:
    """Where a tensor lies, if it says so in a common way."""
    if isinstance(tensor, np.ndarray):
        return int(tensor.ctypes.data)
    described = getattr(tensor, "__cuda_array_interface__", None)
    if isinstance(described, dict):
        return int(described["data"][0])
    pointer = getattr(tensor, "data_ptr", None)
    return int(pointer()) if callable(pointer) else None


# ---- sessions ----


def crosses_the_border_once(subject: Subject) -> None:
    """Inputs go in once, outputs come out once, and nothing else moves: none between two nodes."""
    watch = watched(subject.provider)
    with subject.load(registry=watch.registry) as session:
        feeds = subject.probe.feeds()
        before = watch.calls("copy_in", "copy_out")
        outputs, profile = recorded_run(session, feeds)
        subject.check(outputs, feeds)
        moved = watch.calls("copy_in", "copy_out") - before
        transfers = [event for event in profile.recorder.events if event.category == "transfer"]
        hidden = moved - len(transfers)
        allowed = len(feeds) + len(outputs)
        assert len(transfers) <= allowed, (
            f"{subject.probe.label}: {len(transfers)} copies, {allowed} would do"
        )
        assert hidden <= 0, (
            f"{subject.probe.label}: {hidden} copies behind the record's back: the program works on the host"
        )
        assert copied_bytes(profile) > 0 or not any(array.size for array in feeds.values())


def computes_in_its_memory(subject: Subject) -> None:
    """Between the copies there are tensors of the device, of the right shape and dtype, and no NumPy arrays."""
    watch = watched(subject.provider)
    with subject.load(registry=watch.registry) as session:
        feeds = subject.probe.feeds()
        subject.check(session.run(None, feeds), feeds)
        assert watch.calls("allocate") > 0, f"{subject.probe.label}: nothing was ever allocated on the device"
        (arena,) = [item for item in session.memory.arenas if item.device != "host"]
        assert arena.peak > 0, f"{subject.probe.label}: the arena of {arena.device} was never used"
    assert not watch.faults, f"{subject.probe.label}: {'; '.join(watch.faults)}"


def accounts_for_its_memory(subject: Subject) -> None:
    """Nothing is in use between runs, the arena is reused, and all is freed with the session."""
    watch = watched(subject.provider)
    with subject.load(registry=watch.registry) as session:
        for seed in range(3):
            subject.run_checked(session, seed=seed)
        before = _device_arena(session).allocations
        for seed in range(20):
            subject.run_checked(session, seed=seed)
        arena = _device_arena(session)
        assert arena.in_use == 0, f"{subject.probe.label}: {arena.in_use} bytes in use between runs"
        assert arena.allocations == before, f"{subject.probe.label}: runs of one shape allocated anew"
    left = watch.calls("allocate") - watch.calls("free")
    assert left == 0, f"{subject.probe.label}: {left} buffers were not freed with the session"


def _device_arena(session: epkit.Session) -> Any:
    return next(arena for arena in session.memory.arenas if arena.device != "host")


BARE = (
    brings_its_own_allocator,
    states_an_alignment,
    copies_every_type_and_size,
    keeps_views_apart,
    keeps_buffers_apart,
    survives_a_double_free,
    survives_a_use_after_free,
    says_when_memory_is_out,
)
EACH = (crosses_the_border_once, computes_in_its_memory, accounts_for_its_memory)


def cases() -> Iterator[Case]:
    """One case a rule; none applies to a provider that works in the host's memory."""
    for bare in BARE:
        yield _case(bare.__name__, partial(_alone, check=bare))
    for check in EACH:
        yield _case(check.__name__, partial(on_each, check=check))


def _case(name: str, run: Callable[[str], Result]) -> Case:
    def where_it_applies(provider: str) -> Result:
        with Bench(provider) as bench:
            if bench.device.host_memory:
                return Result(State.UNSUPPORTED, f"{bench.device.name} works in the host's memory")
        return run(provider)

    return Case(f"device/{name}", 4, "device", where_it_applies)


def _alone(provider: str, check: Callable[[Bench], None]) -> Result:
    with Bench(provider) as bench:
        check(bench)
    return Result(State.PASSED)
