"""What a capture notes while a run enqueues its work."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


class NotCapturableError(Exception):
    """The run looked at data, so another run may take another course."""


@dataclass
class Recording:
    """What a run enqueued, in order, and everything that must stay alive for it."""

    commands: list[Callable[[Any], None]] = field(default_factory=list)
    kept: list[Any] = field(default_factory=list)
