"""What became of a case: its state, and what was measured."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import Enum


class State(Enum):
    """The states of a case. Only PASSED counts for a score."""

    PASSED = "passed"
    FALLBACK = "passed on fallback"
    REFUSED = "refused"
    UNSUPPORTED = "unsupported"
    EXPECTED_FAILURE = "expected failure"
    UNEXPECTED_PASS = "unexpected pass"
    FAILED = "failed"
    CRASHED = "crashed"
    HUNG = "hung"

    @property
    def is_error(self) -> bool:
        """True for the states that must not be left: wrong, dead, stuck, or better than declared."""
        return self in (State.FAILED, State.CRASHED, State.HUNG, State.UNEXPECTED_PASS)


@dataclass(frozen=True)
class Result:
    """The outcome of one case.

    Attributes:
        state: see :class:`State`.
        detail: why; the provider's own reason for a refusal, what differs for a failure.
        seconds: wall time of the case, loading included.
        latency: seconds of one warm run, where one was made.
        copied_bytes: bytes moved between memories in one run.
        peak_bytes: the most that the arenas of the case's session held.
        error: largest error, in units of the budget's kind (ULP where it ends in "ulp").
        budget: what the error may be.
    """

    state: State
    detail: str = ""
    seconds: float = 0.0
    latency: float | None = None
    copied_bytes: int | None = None
    peak_bytes: int | None = None
    error: float | None = None
    budget: float | None = None

    def to_dict(self) -> dict[str, object]:
        """Plain values for JSON; what was not measured is left out."""
        values = {key: value for key, value in asdict(self).items() if value not in (None, "")}
        return {**values, "state": self.state.value}

    @staticmethod
    def from_dict(values: dict[str, object]) -> Result:
        """The inverse of :meth:`to_dict`."""
        return Result(**{**values, "state": State(values["state"])})  # type: ignore[arg-type]
