"""One state that every token updates, instead of all keys and values: what such operators share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

RULES = ("linear", "gated", "delta", "gated_delta")


def states(xp: Any, k: Any, v: Any, decay: Any, rate: Any, state: Any) -> Iterator[tuple[Any, Any]]:
    """For each token: S = decay S + k change', with change = rate (v - k' decay S); then the change.

    k (batch, heads, tokens, keys), v (..., values), decay (..., 1 or keys) and rate (..., 1) or None, all in
    float32; S (batch, heads, keys, values). Without a decay nothing fades, without a rate the change is v.
    """
    for t in range(k.shape[2]):
        if decay is not None:
            state = state * decay[:, :, t, :, None]
        row, change = k[:, :, t, None], v[:, :, t, None]
        if rate is not None:
            change = (change - row @ state) * rate[:, :, t, None]
        state = state + xp.matrix_transpose(row) * change
        yield state, change[:, :, 0]


def check_rule(rule: str, decay: Any, beta: Any) -> None:
    """Refuse a rule that is not known, or that lacks an input."""
    if rule not in RULES:
        raise ValueError(f"attribute update_rule={rule!r} is not one of {', '.join(RULES)}")
    for name, given, word in (("decay", decay, "gated"), ("beta", beta, "delta")):
        if word in rule and given is None:
            raise ValueError(f"input {name} is missing (update_rule={rule!r})")


def check_window(window: int) -> None:
    """Refuse a window of states outside its range."""
    if not 0 <= window <= 8:
        raise ValueError(f"attribute state_window={window} is not in 0 .. 8")


def latest(xp: Any, past: Any, shape: tuple[int, ...], window: int) -> Any:
    """The state that a past (with a leading axis if there is a window) ends with; zeros without one."""
    wanted = (window, *shape) if window else shape
    if past is None:
        return xp.zeros(shape, dtype=xp.float32)
    if past.shape != wanted:
        raise ValueError(f"input past_state of shape {past.shape} should have shape {wanted}")
    return past[-1] if window else past


def repeated(xp: Any, name: str, x: Any, heads: int) -> Any:
    """Each head as often as it is shared by ``heads``."""
    if not x.shape[1] or heads % x.shape[1]:
        raise ValueError(f"input {name} with {x.shape[1]} heads cannot be shared by {heads}")
    return x if x.shape[1] == heads else xp.repeat(x, heads // x.shape[1], axis=1)
