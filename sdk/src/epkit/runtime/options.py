"""Options of one run."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from .profile import Profile


class Cancellation:
    """A switch that another thread may throw; the run stops before its next node with CancelledError."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def cancel(self) -> None:
        """Ask the runs that hold this switch to stop."""
        self._event.set()

    @property
    def cancelled(self) -> bool:
        """True once ``cancel`` was called."""
        return self._event.is_set()


@dataclass(frozen=True)
class RunOptions:
    """Options of one run.

    Attributes:
        tag: a name for this run in the profile, in notices and in errors.
        cancel: a switch that stops the run.
        profile: collects what ran where and for how long.
    """

    tag: str = ""
    cancel: Cancellation | None = None
    profile: Profile | None = None
