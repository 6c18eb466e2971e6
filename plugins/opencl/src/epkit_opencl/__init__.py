"""The OpenCL provider; it imports pyopencl when it is asked for devices, not before."""

from __future__ import annotations

from collections.abc import Sequence

from epkit.backend import Provider, hookimpl


@hookimpl
def epkit_providers() -> Sequence[type[Provider]]:
    """The provider of this package."""
    from .provider import OpenClProvider

    return [OpenClProvider]
