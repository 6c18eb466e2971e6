"""Queries, keys and values from what attention operators are given, and their caches."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from epkit.kernels._precision import cast, wide

from ._attend import positions, split
from ._cache import Steps, appended
from .rotary import rotate


def biased(xp: Any, bias: Any, parts: Sequence[Any]) -> list[Any]:
    """Queries, keys and values by head, each plus its run of the projection's bias."""
    widths = [x.shape[1] * x.shape[3] for x in parts]
    if bias.shape != (sum(widths),):
        raise ValueError(f"input bias of shape {bias.shape} should have shape ({sum(widths)},)")
    found, start = [], 0
    for x, width in zip(parts, widths, strict=True):
        run = wide(xp, bias[start : start + width])
        found.append(x + xp.reshape(run, (1, x.shape[1], 1, x.shape[3])))
        start += width
    return found


def projected(xp: Any, query: Any, key: Any, value: Any, heads: int) -> tuple[list[Any], bool]:
    """Queries, keys and values by head, of separate or packed inputs; and whether the keys are those of a cache."""
    if query.ndim == 5:
        if key is not None or value is not None or query.shape[2:4] != (heads, 3):
            raise ValueError(
                f"input query of shape {query.shape} should be (batch, length, {heads}, 3, size), alone"
            )
        return [wide(xp, xp.permute_dims(query[:, :, :, i], (0, 2, 1, 3))) for i in range(3)], False
    q = split(xp, "query", query, heads)
    if key is None:
        raise ValueError("input key is missing")
    if key.ndim == 5:
        if value is not None or key.shape[2:4] != (heads, 2):
            raise ValueError(
                f"input key of shape {key.shape} should be (batch, length, {heads}, 2, size), no value"
            )
        return [q, *(wide(xp, xp.permute_dims(key[:, :, :, i], (0, 2, 1, 3))) for i in range(2))], False
    if value is None:
        raise ValueError("input value is missing")
    if key.ndim == 4:
        return [q, wide(xp, key), wide(xp, value)], True
    return [q, split(xp, "key", key, heads), split(xp, "value", value, heads)], False


def check_parts(q: Any, k: Any, v: Any) -> None:
    """Refuse queries, keys and values that do not fit together."""
    if (
        k.ndim != 4
        or v.ndim != 4
        or k.shape[:2] != q.shape[:2]
        or k.shape[3] != q.shape[3]
        or v.shape[:3] != k.shape[:3]
    ):
        raise ValueError(f"queries {q.shape}, keys {k.shape} and values {v.shape} do not fit together")


def with_past(
    xp: Any, dtype: Any, pasts: Sequence[Any], parts: Sequence[Any], before: Any
) -> tuple[list[Any], int]:
    """The caches after this step and how many rows count; ``before`` says how many of a shared buffer did."""
    names = ("past_key", "past_value")
    if (pasts[0] is None) != (pasts[1] is None):
        raise ValueError("inputs past_key and past_value should be given together")
    for name, past, x in zip(names, pasts, parts, strict=True):
        if past is not None and (
            past.ndim != 4 or past.shape[:2] != x.shape[:2] or past.shape[3] != x.shape[3]
        ):
            raise ValueError(f"input {name} of shape {past.shape} does not fit new ones {x.shape}")
    parts = [cast(xp, x, dtype) for x in parts]
    if pasts[0] is None:
        return list(parts), parts[0].shape[2]
    if before is None:
        return [xp.concat([p, x], axis=2) for p, x in zip(pasts, parts, strict=True)], pasts[0].shape[
            2
        ] + parts[0].shape[2]
    start, batch = int(xp.reshape(before, (-1,))[0]), parts[0].shape[0]
    total = start + parts[0].shape[2]
    if start < 0 or total > pasts[0].shape[2]:
        raise ValueError(
            f"input past_sequence_length={start} does not fit a cache of {pasts[0].shape[2]} rows"
        )
    steps = Steps(xp.full((batch,), total), xp.full((batch,), parts[0].shape[2]))
    return [appended(xp, p, x, steps, p.shape[2]) for p, x in zip(pasts, parts, strict=True)], total


def from_beams(xp: Any, caches: list[Any], used: int, indirection: Any, fresh: int) -> list[Any]:
    """Each row but the ``fresh`` last ones of the used caches, from the beam that its token came from."""
    caches = [c[:, :, :used] for c in caches]
    if indirection is None:
        return caches
    batch = caches[0].shape[0]
    if indirection.ndim != 3 or math.prod(indirection.shape[:2]) != batch or indirection.shape[2] < used:
        raise ValueError(
            f"input cache_indirection of shape {indirection.shape} does not fit {batch} beams of {used}"
        )
    beams = indirection.shape[1]
    entry = xp.arange(batch)
    source = xp.astype(xp.reshape(indirection, (batch, -1))[:, :used], xp.int64)
    if source.size and (xp.min(source[:, : used - fresh]) < 0 or xp.max(source[:, : used - fresh]) >= beams):
        raise ValueError(f"input cache_indirection reaches outside {beams} beams")
    source = xp.where(
        positions(xp, used)[None] < used - fresh, source + (entry // beams * beams)[:, None], entry[:, None]
    )
    return [xp.permute_dims(c[source, :, positions(xp, used)[None]], (0, 2, 1, 3)) for c in caches]


def projections(
    xp: Any, x: Any, weights: Any, bias: Any, heads: int, sizes: Sequence[int] | None
) -> tuple[Any, Any, Any]:
    """x W + bias, cut into queries, keys and values by head."""
    if x.ndim != 3 or weights.ndim != 2 or x.shape[2] != weights.shape[0]:
        raise ValueError(f"inputs input {x.shape} and weights {weights.shape} do not fit together")
    widths = list(sizes) if sizes else [weights.shape[1] // 3] * 3
    if (
        len(widths) != 3
        or sum(widths) != weights.shape[1]
        or heads < 1
        or any(w % heads or w < 1 for w in widths)
    ):
        raise ValueError(
            f"{weights.shape[1]} columns of weights are not three parts {widths} of {heads} heads"
        )
    y = xp.matmul(wide(xp, x), wide(xp, weights))
    if bias is not None:
        if bias.shape != weights.shape[1:]:
            raise ValueError(f"input bias of shape {bias.shape} should have shape {weights.shape[1:]}")
        y += wide(xp, bias)
    a, b = widths[0], widths[0] + widths[1]
    q, k, v = (
        split(xp, n, part, heads)
        for n, part in zip("QKV", (y[..., :a], y[..., a:b], y[..., b:]), strict=True)
    )
    return q, k, v


def turned_in_place(xp: Any, x: Any, start: int, dimension: int) -> Any:
    """``x`` turned by position * 10000^(-2i / dimension), pairs being one of each half."""
    size = dimension or x.shape[3]
    place = xp.astype(positions(xp, x.shape[2]) + start, xp.float64)[:, None]
    angle = place * 10000.0 ** (-2 * xp.arange(size // 2) / size)
    cos, sin = (xp.astype(f(angle), xp.float32) for f in (xp.cos, xp.sin))
    return rotate(xp, x, cos, sin, interleaved=0)
