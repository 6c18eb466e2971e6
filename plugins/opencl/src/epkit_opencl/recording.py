"""What a capture notes while a run enqueues its work."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


class NotCapturableError(Exception):
    """The run looked at data, so another run may take another course."""


@dataclass(frozen=True)
class Launch:
    """A kernel with its arguments set; ``group`` None lets the driver choose."""

    kernel: Any
    size: tuple[int, ...]
    group: tuple[int, ...] | None

    def __call__(self, queue: Any) -> None:
        """Enqueue it."""
        import pyopencl as cl

        cl.enqueue_nd_range_kernel(queue, self.kernel, self.size, self.group)


@dataclass
class Recording:
    """What a run enqueued, in order, and everything that must stay alive for it."""

    commands: list[Callable[[Any], Any]] = field(default_factory=list)
    kept: list[Any] = field(default_factory=list)
