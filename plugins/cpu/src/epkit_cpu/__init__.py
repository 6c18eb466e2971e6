"""The CPU provider: portable kernels on NumPy, with destination-passing ones for the hot operators."""

from __future__ import annotations

from collections.abc import Sequence

from epkit.backend import Provider, hookimpl

from .provider import CpuProvider

__all__ = ["CpuProvider", "epkit_providers"]


@hookimpl
def epkit_providers() -> Sequence[type[Provider]]:
    """The one provider of this package."""
    return [CpuProvider]
