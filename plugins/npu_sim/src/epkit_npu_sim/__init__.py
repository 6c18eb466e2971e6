"""A simulated integer NPU: compiler, command stream, device memory, queue, cycles and faults."""

from __future__ import annotations

from collections.abc import Sequence

from epkit.backend import Provider, hookimpl

from .provider import NpuSimProvider

__all__ = ["NpuSimProvider", "epkit_providers"]


@hookimpl
def epkit_providers() -> Sequence[type[Provider]]:
    """The one provider of this package."""
    return [NpuSimProvider]
