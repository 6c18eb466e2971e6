"""Running cases in worker processes: a crash or a hang costs one case, is named, and the run goes on.

On Linux, workers are forked from a process that has built the cases and never touched the provider, so that a
driver is initialised only in workers. Elsewhere they are spawned, and build the cases again: nothing of a case
is pickled but its name.
"""

from __future__ import annotations

import faulthandler
import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TextIO

from epkit.errors import EpkitError

from .case import Case
from .catalogue import all_cases
from .observer import HiddenWork
from .result import Result, State

Progress = Callable[[Case, Result], None]
Rebuild = Callable[[], Sequence[Case]]

STARTING = 300.0
"""Seconds that a worker may take to start and to build the cases."""


@dataclass(frozen=True)
class Limits:
    """Limits of one case: seconds of wall time, bytes of memory above what its worker has already (0: none)."""

    seconds: float = 60.0
    memory_bytes: int = 16 * 1024**3


DRIVERS = ("pyopencl", "cupy")
"""Modules whose drivers have threads that a fork loses, so that the child waits for them without end."""


def start_method() -> str:
    """Fork, which needs not make the cases again, where the system has it and no such driver is loaded."""
    safe = sys.platform == "linux" and not any(name in sys.modules for name in DRIVERS)
    return "fork" if safe else "spawn"


def run_cases(
    cases: Sequence[Case],
    provider: str,
    *,
    jobs: int = 1,
    limits: Limits | None = None,
    progress: Progress | None = None,
    started: Callable[[Case], None] | None = None,
    method: str | None = None,
    rebuild: Rebuild = all_cases,
) -> dict[str, Result]:
    """Run the cases and return their results by name, in the order of the cases.

    Args:
        cases: what to run.
        provider: the provider under test.
        jobs: worker processes at a time.
        limits: for each case.
        progress: called with each case and its result, as they come.
        started: called with each case that a worker begins.
        method: how workers start, ``"fork"`` or ``"spawn"``; by default the quicker one that is safe here.
        rebuild: gives a spawned worker the cases again; must be a function of a module.
    """
    method = method or start_method()
    source = list(cases) if method == "fork" else rebuild
    pool = _Pool(cases, source, provider, max(1, min(jobs, len(cases))), limits or Limits(), method)
    pool.started = started or (lambda case: None)
    results: dict[str, Result] = {}
    for case, result in pool.results():
        results[case.name] = result
        if progress is not None:
            progress(case, result)
    return {case.name: results[case.name] for case in cases}


class OneByOne:
    """A worker process that is kept from case to case, for a caller that comes with one at a time.

    It is spawned, because the caller may have threads; so the provider must be an installed one.
    """

    def __init__(self, provider: str, limits: Limits | None = None, rebuild: Rebuild = all_cases) -> None:
        self._pool = _Pool((), rebuild, provider, 1, limits or Limits(), "spawn")
        self._worker: _Worker | None = None

    def run(self, case: Case) -> Result:
        """Run the case in the worker; in a new one if the last case took it along."""
        self._worker = self._worker or _Worker(self._pool)
        self._worker.give(case)
        result = None
        while result is None:
            result = next((result for _, result in self._pool.wait([self._worker])), None)
        if result.state in (State.CRASHED, State.HUNG):
            self.close(kill=True)
        return result

    def close(self, *, kill: bool = False) -> None:
        """End the worker, if there is one."""
        if self._worker is not None:
            self._worker.end(kill=kill)
            self._worker = None


def run_here(case: Case, provider: str) -> Result:
    """Run one case in this process; whatever it raises becomes its result."""
    start = time.perf_counter()
    try:
        result = case.run(provider)
    except HiddenWork as error:
        result = Result(State.FALLBACK, str(error))
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
        self.pipe, theirs = pool.context.Pipe()
        descriptor, log = tempfile.mkstemp(prefix="epkit-conformance-")
        os.close(descriptor)
        self.log = Path(log)
        arguments = (theirs, pool.source, pool.provider, pool.limits.memory_bytes, str(self.log))
        self.process: Any = pool.context.Process(target=_serve, args=arguments, daemon=True)
        self.process.start()
        theirs.close()
        self.case: Case | None = None
        self.ready = False
        self.since = 0.0

    def give(self, case: Case) -> None:
        self.case, self.since = case, time.monotonic()
        with suppress(OSError):  # it died before it began: result() tells
            self.pipe.send(case.name)

    def end(self, *, kill: bool = False) -> None:
        if kill:
            self.process.kill()
        else:
            with suppress(OSError):
                self.pipe.send(None)
        self.process.join(10)
        self.pipe.close()
        self.log.unlink(missing_ok=True)

    def greets(self) -> bool:
        """True if the worker says that it is ready, which is not the case's time; False if it died before."""
        try:
            self.pipe.recv()
        except (EOFError, OSError):
            return False
        self.ready, self.since = True, time.monotonic()
        return True

    def result(self) -> Result:
        """What the worker sent; if it died, how."""
        try:
            result = self.pipe.recv()
            assert isinstance(result, Result)
            return result
        except (EOFError, OSError):
            self.process.join(10)
            text = f"the worker died: {_death(self.process.exitcode)}{self._place()}"
            return Result(State.CRASHED, text, seconds=time.monotonic() - self.since)

    def hung(self, limit: float) -> Result:
        """The result of a case that took too long. Asked by a signal, the worker writes down where it is."""
        if hasattr(signal, "SIGUSR1") and self.process.is_alive():
            os.kill(self.process.pid, signal.SIGUSR1)
            time.sleep(0.1)
        text = f"no answer within {limit:g} s; the worker was killed{self._place()}"
        return Result(State.HUNG, text, seconds=limit)

    def _place(self) -> str:
        """Where the worker was, from the stack that its fault handler wrote."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        current = next((n for n, line in enumerate(lines) if line.startswith("Current thread")), 0)
        inner = [line.strip() for line in lines[current:] if line.startswith("  File ")]
        return f"; it was at {inner[0]}" if inner else ""


class _Pool:
    def __init__(
        self,
        cases: Sequence[Case],
        source: Sequence[Case] | Rebuild,
        provider: str,
        jobs: int,
        limits: Limits,
        method: str,
    ) -> None:
        self.context: Any = multiprocessing.get_context(method)
        self.cases = list(cases)
        self.source = source
        self.provider = provider
        self.jobs = jobs
        self.limits = limits
        self.started: Callable[[Case], None] = lambda case: None

    def results(self) -> Iterator[tuple[Case, Result]]:
        """Results as they come."""
        todo = iter(self.cases)
        workers: list[_Worker] = []
        try:
            for case in todo:
                workers.append(_Worker(self))
                self._give(workers[-1], case)
                if len(workers) == self.jobs:
                    break
            while workers:
                for worker, result in self.wait(workers):
                    assert worker.case is not None
                    done = worker.case
                    workers.remove(worker)
                    dead = result.state in (State.CRASHED, State.HUNG)
                    following = next(todo, None)
                    if following is None or dead:
                        worker.end(kill=dead)
                    if following is not None:
                        workers.append(_Worker(self) if dead else worker)
                        self._give(workers[-1], following)
                    yield done, result
        finally:
            for worker in workers:
                worker.end(kill=True)

    def _give(self, worker: _Worker, case: Case) -> None:
        worker.give(case)
        self.started(case)

    def wait(self, workers: list[_Worker]) -> Iterator[tuple[_Worker, Result]]:
        """The results that are there after a short while, if any."""
        ready = multiprocessing.connection.wait([worker.pipe for worker in workers], timeout=0.25)
        for worker in list(workers):
            assert worker.case is not None
            limit = max(self.limits.seconds, worker.case.seconds) if worker.ready else STARTING
            if worker.pipe in ready:
                if worker.ready or not worker.greets():
                    yield worker, worker.result()
            elif time.monotonic() - worker.since > limit:
                yield worker, worker.hung(limit)


def _death(code: int | None) -> str:
    if code is not None and code < 0:
        return f"signal {signal.Signals(-code).name}"
    return f"exit code {code}"


# ---- in the worker ----


def _serve(pipe: Any, source: Sequence[Case] | Rebuild, provider: str, memory_bytes: int, log: str) -> None:
    """The worker's loop: it says that it is ready; then a name comes, a result goes; None ends it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with open(log, "w", encoding="utf-8") as file:
        _arm(file)
        if hasattr(faulthandler, "register"):
            faulthandler.register(signal.SIGUSR1, file)
        cases = {case.name: case for case in (source() if callable(source) else source)}
        pipe.send(None)
        while (name := pipe.recv()) is not None:
            _arm(file)
            _limit_memory(memory_bytes)
            pipe.send(run_here(cases[name], provider))
        faulthandler.disable()


def _arm(file: TextIO) -> None:
    """Let a crash write its stack, from which the parent tells the place.

    Anew for each case: a compiler in a driver (LLVM) sets handlers of its own, and `enable` alone
    leaves those when the fault handler was on before.
    """
    faulthandler.disable()
    faulthandler.enable(file)


def _limit_memory(nbytes: int) -> None:
    """Let the process have so much more than it has. Address space is no measure: drivers reserve terabytes."""
    status = Path("/proc/self/status")
    if not nbytes or not status.exists():
        return  # no Linux: only the time is limited
    import resource

    lines = status.read_text(encoding="ascii", errors="replace").splitlines()
    now = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmData:"))
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    soft = now + nbytes if hard == resource.RLIM_INFINITY else min(now + nbytes, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))
