"""Level 5: queues of work, and several threads at once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from epkit.backend import Allocator, Device, HostStream, Provider, Stream
from epkit.backend.registry import default

from ..case import REFERENCE, Case
from ..probes import Subject, on_each
from ..result import Result, State
from ..watch import watched

THREADS = 4
RUNS = 12


class Bench:
    """A provider's device, bare: its allocator and its streams, without a model."""

    def __init__(self, provider: str) -> None:
        self.provider: Provider
        self.provider, devices = default.create(provider)
        self.device: Device = devices.found[0]
        self.allocator: Allocator = self.provider.allocator(self.device)
        self._buffers: list[Any] = []
        self._streams: list[Stream] = []

    def stream(self) -> Stream:
        """A new stream, closed at the end."""
        self._streams.append(self.provider.stream(self.device))
        return self._streams[-1]

    def tensor(self, array: np.ndarray[Any, Any]) -> Any:
        """Fresh memory of the array's shape and dtype, freed at the end."""
        self._buffers.append(self.allocator.allocate(max(1, array.nbytes)))
        return self.allocator.view(self._buffers[-1], 0, array.shape, array.dtype)

    def read(self, tensor: Any, stream: Stream) -> np.ndarray[Any, Any]:
        """The tensor's contents once the stream has come so far."""
        array = np.empty(tuple(tensor.shape), tensor.dtype)
        self.allocator.copy_out(tensor, array, stream)
        stream.synchronize()
        return array

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, *_: object) -> None:
        for stream in self._streams:
            stream.synchronize()
            stream.close()
        for buffer in self._buffers:
            self.allocator.free(buffer)
        self.provider.close()


def keeps_order(bench: Bench) -> None:
    """Work on one stream is done in the order in which it was enqueued."""
    stream = bench.stream()
    arrays = [np.full(1000, value, np.float32) for value in range(32)]
    tensor = bench.tensor(arrays[0])
    found = [np.empty_like(array) for array in arrays]
    for array, out in zip(arrays, found, strict=True):
        bench.allocator.copy_in(array, tensor, stream)
        bench.allocator.copy_out(tensor, out, stream)
    stream.synchronize()
    for array, out in zip(arrays, found, strict=True):
        assert np.array_equal(array, out), f"copy {array[0]:g} was read back as {out[0]:g}: out of order"


def waits_for_an_event(bench: Bench) -> None:
    """After an event's wait, all work before it is done; what follows does not disturb it."""
    stream = bench.stream()
    array, out = np.arange(1000, dtype=np.float32), np.zeros(1000, np.float32)
    tensor = bench.tensor(array)
    bench.allocator.copy_in(array, tensor, stream)
    bench.allocator.copy_out(tensor, out, stream)
    event = stream.record()
    event.wait()
    assert np.array_equal(array, out), "the event was over before the copy in front of it"
    event.wait()
    stream.synchronize()
    stream.synchronize()


def keeps_streams_apart(bench: Bench) -> None:
    """Several streams at once, each with its own order and its own end."""
    streams = [bench.stream() for _ in range(THREADS)]
    arrays = [np.full(500, value, np.int64) for value in range(THREADS)]
    tensors = [bench.tensor(array) for array in arrays]
    for array, tensor, stream in zip(arrays, tensors, streams, strict=True):
        bench.allocator.copy_in(array, tensor, stream)
    for array, tensor, stream in reversed(list(zip(arrays, tensors, streams, strict=True))):
        assert np.array_equal(bench.read(tensor, stream), array), (
            "a stream's copy was not done, or another's was"
        )


def serves_threads(bench: Bench) -> None:
    """Allocator and streams are used by several threads, each with a stream of its own."""

    def work(index: int) -> None:
        stream = bench.provider.stream(bench.device)
        for turn in range(RUNS):
            array = np.full(257, 1000 * index + turn, np.int32)
            buffer = bench.allocator.allocate(array.nbytes)
            tensor = bench.allocator.view(buffer, 0, array.shape, array.dtype)
            bench.allocator.copy_in(array, tensor, stream)
            assert np.array_equal(bench.read(tensor, stream), array), "another thread's data"
            bench.allocator.free(buffer)
        stream.close()

    in_threads(work)


def one_session_many_threads(subject: Subject) -> None:
    """Runs of one session in several threads do not touch each other."""
    with subject.load() as session:

        def work(index: int) -> None:
            for turn in range(RUNS):
                rows = 3 + 5 * index if subject.dynamic else 3
                subject.run_checked(session, rows, 100 * index + turn, "while other threads ran the session")

        in_threads(work)


def many_sessions_many_threads(subject: Subject) -> None:
    """Sessions are loaded, run and closed in several threads at once."""

    def work(index: int) -> None:
        for turn in range(3):
            with subject.load() as session:
                subject.run_checked(session, seed=100 * index + turn, when="beside other sessions")

    in_threads(work)


def enters_programs_together(subject: Subject) -> None:
    """Two runs that are inside one program at the same time: each waits for the other at its first node."""
    watch = watched(subject.provider)
    meeting = threading.Barrier(2)
    met: set[int] = set()

    def meet(node: Any) -> None:
        if threading.get_ident() not in met:
            met.add(threading.get_ident())
            try:
                meeting.wait(timeout=1)
            except threading.BrokenBarrierError:
                return  # the program does not let two in, or reports its nodes late: slow, and right

    with subject.load(registry=watch.registry) as session:
        subject.run_checked(session)
        watch.on_begin = meet
        in_threads(lambda index: subject.run_checked(session, seed=index, when="in two threads at once"), 2)


def closes_while_running(subject: Subject) -> None:
    """Closing a session waits for its runs, and each of them ends well or is refused."""
    from epkit.errors import RunError

    session = subject.load()
    started = threading.Barrier(THREADS + 1)

    def work(index: int) -> None:
        feeds = subject.probe.feeds(seed=index)
        started.wait()
        for _ in range(RUNS):
            try:
                outputs = session.run(None, feeds)
            except RunError as error:
                assert "closed" in str(error), str(error)
                return
            subject.check(outputs, feeds, "while the session was being closed")

    def close() -> None:
        started.wait()
        session.close()

    in_threads(work, besides=close)


def in_threads(
    work: Callable[[int], Any], count: int = THREADS, besides: Callable[[], Any] = lambda: None
) -> None:
    """Run ``work(index)`` in threads; the first error of any is raised here."""
    errors: list[BaseException] = []

    def guarded(index: int) -> None:
        try:
            work(index)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(index,), daemon=True) for index in range(count)]
    for thread in threads:
        thread.start()
    besides()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


BARE = (keeps_order, waits_for_an_event, keeps_streams_apart, serves_threads)
EACH = (one_session_many_threads, many_sessions_many_threads, enters_programs_together, closes_while_running)


def cases() -> Iterator[Case]:
    """Streams by themselves, where the device has any; threads for everybody."""
    for bare in BARE:
        yield Case(f"streams/{bare.__name__}", 5, "streams", partial(_on_bench, check=bare))
    for check in EACH:
        yield Case(f"threads/{check.__name__}", 5, "threads", partial(on_each, check=check), oracle=REFERENCE)


def _on_bench(provider: str, check: Callable[[Bench], None]) -> Result:
    with Bench(provider) as bench:
        if bench.device.host_memory:
            return Result(
                State.UNSUPPORTED, f"{bench.device.name} works in the host's memory, in the caller's thread"
            )
        if type(bench.stream()) is HostStream:
            return Result(
                State.UNSUPPORTED, "the provider has no stream of its own: all its work is done in the call"
            )
        check(bench)
    return Result(State.PASSED)
