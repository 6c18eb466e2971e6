"""Options of one run."""

from __future__ import annotations

import threading
from collections.abc import Collection
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
        on_device: outputs that stay on the device that computed them, all or by name: each is a
            :class:`~epkit.runtime.on_device.DeviceArray`. What the host holds is a NumPy array as ever.
    """

    tag: str = ""
    cancel: Cancellation | None = None
    profile: Profile | None = None
    on_device: bool | Collection[str] = False
