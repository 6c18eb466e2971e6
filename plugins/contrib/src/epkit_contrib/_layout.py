"""The two layouts of images: channels before or after the spatial axes."""

from __future__ import annotations

from typing import Any


def channels_first(xp: Any, x: Any) -> Any:
    """(N, spatial..., C) as (N, C, spatial...)."""
    if x.ndim < 3:
        raise ValueError(f"input X of shape {x.shape} should have batch, spatial and channel axes")
    return xp.permute_dims(x, (0, x.ndim - 1, *range(1, x.ndim - 1)))


def channels_last(xp: Any, x: Any) -> Any:
    """(N, C, spatial...) as (N, spatial..., C)."""
    return xp.permute_dims(x, (0, *range(2, x.ndim), 1))
