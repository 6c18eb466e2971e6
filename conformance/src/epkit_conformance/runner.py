"""Running cases in worker processes: a crash or a hang costs one case, is named, and the run goes on.

Workers are forked from a process that has built the cases and never touched the provider, so that a
driver is initialised only in workers. Where there is no fork, each worker builds the cases again.
"""

from __future__ import annotations

import faulthandler
import multiprocessing
import multiprocessing.connection
import signal
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from epkit.errors import EpkitError

from .case import Case
from .result import Result, State

Progress = Callable[[Case, Result], None]


@dataclass(frozen=True)
class Limits:
    """Limits of one case: seconds of wall time, bytes of address space (0: none)."""

    seconds: float = 60.0
    memory_bytes: int = 16 * 1024**3


def run_cases(
    cases: Sequence[Case],
    provider: str,
    *,
    jobs: int = 1,
    limits: Limits | None = None,
    progress: Progress | None = None,
) -> dict[str, Result]:
    """Run the cases and return their results by name, in the order of the cases."""
    pool = _Pool(cases, provider, max(1, min(jobs, len(cases))), limits or Limits())
    results: dict[str, Result] = {}
    for case, result in pool.results():
        results[case.name] = result
        if progress is not None:
            progress(case, result)
    return {case.name: results[case.name] for case in cases}


def run_here(case: Case, provider: str) -> Result:
    """Run one case in this process; whatever it raises becomes its result."""
    start = time.perf_counter()
    try:
        result = case.run(provider)
    except AssertionError as error:
        result = Result(State.FAILED, str(error))
    except EpkitError as error:
        result = Result(State.FAILED, str(error))
    except MemoryError:
        result = Result(State.CRASHED, "out of memory: the case needed more than its limit")
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        result = Result(
            State.FAILED,
            f"{type(error).__name__}: {error} ({place.filename}:{place.lineno}, in {place.name})",
        )
    return replace(result, seconds=time.perf_counter() - start)


class _Worker:
    """A process, and the case that it is at work on."""

    def __init__(self, pool: _Pool) -> None:
        context = pool.context
        self.pipe, theirs = context.Pipe()
        arguments = (theirs, pool.cases, pool.provider, pool.limits.memory_bytes)
        self.process: Any = context.Process(target=_serve, args=arguments, daemon=True)
        self.process.start()
        theirs.close()
        self.index: int | None = None
        self.started = 0.0

    def give(self, index: int) -> None:
        self.index, self.started = index, time.monotonic()
        self.pipe.send(index)

    def end(self, *, kill: bool = False) -> None:
        if kill:
            self.process.kill()
        else:
            self.pipe.send(None)
        self.process.join(10)
        self.pipe.close()


class _Pool:
    def __init__(self, cases: Sequence[Case], provider: str, jobs: int, limits: Limits) -> None:
        methods = multiprocessing.get_all_start_methods()
        self.context: Any = multiprocessing.get_context("fork" if "fork" in methods else "spawn")
        self.cases = list(cases)
        self.provider = provider
        self.jobs = jobs
        self.limits = limits

    def results(self) -> Iterator[tuple[Case, Result]]:
        """Results as they come."""
        todo = iter(range(len(self.cases)))
        workers: list[_Worker] = []
        try:
            for index in todo:
                workers.append(self._worker(index))
                if len(workers) == self.jobs:
                    break
            while workers:
                for worker, result in self._wait(workers):
                    assert worker.index is not None
                    case = self.cases[worker.index]
                    if result.state in (State.CRASHED, State.HUNG):
                        worker.end(kill=True)
                        workers.remove(worker)
                        worker = None  # type: ignore[assignment]  # it is dead
                    following = next(todo, None)
                    if following is not None and worker is None:
                        workers.append(self._worker(following))
                    elif following is not None:
                        worker.give(following)
                    elif worker is not None:
                        workers.remove(worker)
                        worker.end()
                    yield case, result
        finally:
            for worker in workers:
                worker.end(kill=True)

    def _worker(self, index: int) -> _Worker:
        worker = _Worker(self)
        worker.give(index)
        return worker

    def _wait(self, workers: list[_Worker]) -> Iterator[tuple[_Worker, Result]]:
        ready = multiprocessing.connection.wait([worker.pipe for worker in workers], timeout=0.25)
        for worker in list(workers):
            if worker.pipe in ready:
                yield worker, self._receive(worker)
            elif time.monotonic() - worker.started > self._allowed(worker):
                limit = self._allowed(worker)
                yield (
                    worker,
                    Result(State.HUNG, f"no answer within {limit:g} s; the worker was killed", seconds=limit),
                )

    def _allowed(self, worker: _Worker) -> float:
        assert worker.index is not None
        return max(self.limits.seconds, self.cases[worker.index].seconds)

    def _receive(self, worker: _Worker) -> Result:
        try:
            result = worker.pipe.recv()
            assert isinstance(result, Result)
            return result
        except (EOFError, OSError):
            worker.process.join(10)
            code = worker.process.exitcode
            seconds = time.monotonic() - worker.started
            return Result(State.CRASHED, f"the worker died: {_death(code)}", seconds=seconds)


def _death(code: int | None) -> str:
    if code is not None and code < 0:
        return f"signal {signal.Signals(-code).name}"
    return f"exit code {code}"


def _serve(pipe: Any, cases: Sequence[Case], provider: str, memory_bytes: int) -> None:
    """The worker's loop: an index comes, a result goes; None ends it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    faulthandler.disable()  # the parent tells how a worker died
    _limit_memory(memory_bytes)
    while (index := pipe.recv()) is not None:
        pipe.send(run_here(cases[index], provider))


def _limit_memory(nbytes: int) -> None:
    if not nbytes:
        return
    try:
        import resource
    except ImportError:
        return  # Windows: only the time is limited
    resource.setrlimit(resource.RLIMIT_AS, (nbytes, resource.getrlimit(resource.RLIMIT_AS)[1]))
