"""The CUDA provider; nothing of CUDA is imported before it is asked for devices."""

from __future__ import annotations

from collections.abc import Sequence

from epkit.backend import Provider, hookimpl


@hookimpl
def epkit_providers() -> Sequence[type[Provider]]:
    """The provider of this package."""
    from .provider import CudaProvider

    return [CudaProvider]
