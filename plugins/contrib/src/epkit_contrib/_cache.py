"""The key and value caches of decoders: rows appended, windows that move on, and quantised ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from epkit.kernels._precision import wide
from epkit.kernels.cast import converted

from ._attend import positions, stored


@dataclass(frozen=True)
class Steps:
    """Where the new tokens of each batch entry go: (batch,) arrays of int64.

    Attributes:
        total: tokens after this step.
        new: of those, how many are new.
    """

    total: Any
    new: Any

    @property
    def past(self) -> Any:
        """Tokens before this step."""
        return self.total - self.new

    def places(self, xp: Any, length: int) -> Any:
        """The position of each row of a chunk of ``length``, (batch, length)."""
        return self.past[:, None] + positions(xp, length)[None]


def appended(xp: Any, past: Any, new: Any, steps: Steps, capacity: int) -> Any:
    """A cache of ``capacity`` rows: those of ``past``, then from ``steps.past`` on the new ones."""
    if past is None:
        cache = xp.zeros((*new.shape[:2], capacity, new.shape[3]), dtype=new.dtype)
    else:
        cache = xp.zeros((*past.shape[:2], capacity, past.shape[3]), dtype=past.dtype)
        cache[:, :, : past.shape[2]] = past[:, :, :capacity]
    return stored(xp, cache, new, steps.past, steps.new)


def resident(xp: Any, total: Any, capacity: int, window: int) -> Any:
    """How many of ``total`` tokens a cache of ``capacity`` rows keeps, evicting in groups, never under the window."""
    group = capacity - window + 1
    return xp.where(total <= capacity, total, total - group * -((capacity - total) // group))


def window_step(xp: Any, past: Any, new: Any, steps: Steps, window: int) -> tuple[Any, Any, Any, Any]:
    """Staged rows, their first positions, how many are valid, and the cache after this step.

    A windowed cache keeps the last tokens in its first rows; the new rows follow them on a stage.
    """
    capacity = past.shape[2]
    before, after = (resident(xp, t, capacity, window) for t in (steps.past, steps.total))
    stage = xp.zeros((*past.shape[:2], capacity + new.shape[2], past.shape[3]), dtype=past.dtype)
    stage[:, :, :capacity] = past
    stored(xp, stage, new, before, steps.new)
    valid = before + steps.new
    rows = positions(xp, capacity)[None] + (valid - after)[:, None]
    kept = xp.where(positions(xp, capacity)[None] < after[:, None], rows, 0)
    present = xp.take_along_axis(stage, kept[:, None, :, None], axis=2)
    return stage, steps.past - before, valid, present


@dataclass(frozen=True)
class Quantizer:
    """Keys or values of a cache as small integers or float8: round(x / scale).

    Attributes:
        scale: one for the cache, or one for each head and feature, (1, heads, 1, size).
        bits: 8, or 4: two numbers in a byte, each plus 8, the first in the lower half.
    """

    scale: Any
    bits: int

    def pack(self, xp: Any, x: Any, dtype: Any) -> Any:
        """Quantised ``x`` as it is stored."""
        real = wide(xp, x) / self.scale
        if dtype not in (xp.uint8, xp.int8):
            return converted(xp, real, dtype)
        most = 1 << self.bits - 1
        codes = xp.clip(xp.round(real), -most, most - 1)
        if self.bits == 8:
            return xp.astype(codes, dtype)
        codes = xp.astype(codes + 8, xp.uint8)
        return codes[..., 0::2] | codes[..., 1::2] << 4

    def unpack(self, xp: Any, cache: Any) -> Any:
        """What is stored, in float32."""
        if self.bits == 4:
            pairs = xp.stack([cache & 15, cache >> 4], axis=-1)
            codes = xp.reshape(xp.astype(pairs, xp.float32), (*cache.shape[:-1], -1)) - 8
        else:
            codes = converted(xp, cache, xp.float32)
        return codes * self.scale


def quantizer(
    xp: Any, side: str, kind: str, scale: Any, cache: Any, heads: int, size: int, bits: int | None
) -> Quantizer | None:
    """How the cache of one side ("k" or "v") is quantised, None if it is not.

    Raises:
        ValueError: if kind, scale and type of the cache do not fit together.
    """
    if kind == "NONE":
        return None
    if kind not in ("PER_TENSOR", "PER_CHANNEL"):
        raise ValueError(f"attribute {side}_quant_type={kind!r} is not NONE, PER_TENSOR or PER_CHANNEL")
    if scale is None or cache is None:
        raise ValueError(f"attribute {side}_quant_type={kind!r} needs the inputs {side}_scale and the past")
    own = 4 if cache.dtype == xp.uint8 else 8
    if bits not in (None, own):
        raise ValueError(f"attribute kv_cache_bit_width={bits} does not fit a cache of {cache.dtype}")
    if kind == "PER_TENSOR" and scale.size == 1:
        return Quantizer(xp.reshape(scale, (1, 1, 1, 1)), own)
    if kind == "PER_CHANNEL" and scale.size == heads * size:
        return Quantizer(xp.reshape(scale, (1, heads, 1, size)), own)
    raise ValueError(
        f"input {side}_scale of shape {scale.shape} does not fit {kind} of {heads} heads of {size}"
    )
