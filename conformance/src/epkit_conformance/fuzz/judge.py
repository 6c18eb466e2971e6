"""What became of a trial: run in a worker process, so that a crash or a hang is a find like any other."""

from __future__ import annotations

import faulthandler
import multiprocessing
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx

import epkit
import epkit.api  # so that workers need not import it one by one
from epkit.errors import PlacementError

from ..case import Case
from ..result import Result, State
from ..runner import Limits, run_here
from .trial import Expected, Trial


@dataclass(frozen=True)
class Verdict:
    """A state, why, and what was found where it is wrong."""

    state: State
    detail: str = ""
    found: Sequence[Any] = field(default=(), compare=False)


class Judge:
    """Tries models on a provider in a process of its own, which is replaced when it dies or hangs."""

    def __init__(self, provider: str, limits: Limits) -> None:
        self.provider = provider
        self.limits = limits
        self._context: Any = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
        self._process: Any = None
        self._pipe: Any = None

    def __enter__(self) -> Judge:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def verdict(self, trial: Trial, wanted: Sequence[Expected]) -> Verdict:
        """Run the trial."""
        if self._process is None:
            self._start()
        self._pipe.send((trial.model.SerializeToString(), dict(trial.feeds), list(wanted)))
        if not self._pipe.poll(self.limits.seconds):
            self._stop()
            return Verdict(State.HUNG, f"no answer within {self.limits.seconds:g} s")
        try:
            answer = self._pipe.recv()
        except (EOFError, OSError):
            self._process.join(10)
            code = self._process.exitcode
            self._stop()
            return Verdict(State.CRASHED, f"the process ended with code {code}")
        assert isinstance(answer, Verdict)
        return answer

    def _start(self) -> None:
        self._pipe, theirs = self._context.Pipe()
        self._process = self._context.Process(target=_serve, args=(theirs, self.provider), daemon=True)
        self._process.start()
        theirs.close()

    def _stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.join(10)
            self._pipe.close()
            self._process = None


def _serve(pipe: Any, provider: str) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    faulthandler.disable()  # a crash is told by the find
    while True:
        try:
            data, feeds, wanted = pipe.recv()
        except EOFError:
            return
        pipe.send(judge(onnx.load_from_string(data), feeds, wanted, provider))


def judge(
    model: onnx.ModelProto, feeds: Mapping[str, Any], wanted: Sequence[Expected], provider: str
) -> Verdict:
    """Try a model in this process."""
    found: list[Any] = []

    def run(name: str) -> Result:
        try:
            outputs = _outputs(model, feeds, name)
        except PlacementError as error:
            return Result(State.REFUSED, " ".join(error.what.split()))
        if outputs is None:
            return Result(State.REFUSED, "nothing was claimed")
        found.extend(outputs)
        for info, got, want in zip(model.graph.output, outputs, wanted, strict=True):
            problem = unlike(got, want)
            assert not problem, f"output {info.name} {problem}"
        return Result(State.PASSED)

    result = run_here(Case("fuzz", 0, "fuzz", run), provider)
    return Verdict(result.state, result.detail, found)


def _outputs(model: onnx.ModelProto, feeds: Mapping[str, Any], provider: str) -> list[Any] | None:
    """What comes out; None if the provider took no node. One node alone is not left to the fallback."""
    fallback = "error" if len(model.graph.node) == 1 else "cpu"
    with epkit.load(model, [provider], optimise="none", fallback=fallback) as session:
        if provider not in session.placement.counts():
            return None
        return list(session.run(None, dict(feeds)).values())


def unlike(got: Any, want: Expected) -> str:
    """What differs, in a sentence; "" if nothing does."""
    values = want.values
    if not isinstance(got, np.ndarray) or (got.shape, got.dtype) != (values.shape, values.dtype):
        what = f"{got.dtype}{list(got.shape)}" if isinstance(got, np.ndarray) else type(got).__name__
        return f"is {what}, must be {values.dtype}{list(values.shape)}"
    if want.slack is None:
        wrong = got != values
    else:
        wrong = ~(_near(got, values, want.slack) | _near(got, want.also, want.slack))
    if not wrong.any():
        return ""
    at = tuple(int(index) for index in np.argwhere(wrong)[0])
    count = int(wrong.sum())
    return f"differs in {count} of {wrong.size} elements, first at {list(at)}: {got[at]!r}, must be {values[at]!r}"


def _near(got: Any, want: Any, slack: Any) -> Any:
    one, other = got.astype(np.float64), want.astype(np.float64)
    with np.errstate(all="ignore"):
        return (one == other) | (np.isnan(one) & np.isnan(other)) | (np.abs(one - other) <= slack)
