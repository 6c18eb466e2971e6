"""The two layouts of images: channels before or after the spatial axes."""

from __future__ import annotations

from typing import Any


def channels_first(xp: Any, x: Any, last: int = 1) -> Any:
    """(N, C, spatial...), from (N, spatial..., C) if channels are ``last``."""
    if not last:
        return x
    if x.ndim < 3:
        raise ValueError(f"input X of shape {x.shape} should have batch, spatial and channel axes")
    return xp.permute_dims(x, (0, x.ndim - 1, *range(1, x.ndim - 1)))


def in_layout(xp: Any, y: Any, last: int = 1) -> Any:
    """(N, C, spatial...) as (N, spatial..., C), if channels are to be ``last``."""
    return xp.permute_dims(y, (0, *range(2, y.ndim), 1)) if last else y
