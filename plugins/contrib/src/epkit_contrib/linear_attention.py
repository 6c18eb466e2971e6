"""Linear attention: one state that every token updates, instead of all keys and values."""

from __future__ import annotations

import math
from typing import Any

from onnx.defs import OpSchema

from epkit.kernels._precision import cast, quiet, wide
from epkit.kernels.attention import join_heads

from ._attend import split
from ._infer import Dim, attr, dims, elem, over, put, times
from ._state import check_rule, check_window, latest, repeated, states
from .declare import contrib

INT = OpSchema.AttrType.INT
REAL = ("tensor(float)", "tensor(float16)", "tensor(bfloat16)")


def infer_linear(ctx: Any) -> None:
    """Output (batch, tokens, heads * values) and state."""
    query, value = dims(ctx, 0, 3), dims(ctx, 2, 3)
    h_q, h_kv, window = attr(ctx, "q_num_heads"), attr(ctx, "kv_num_heads"), attr(ctx, "state_window", 0)
    d_v: Dim = over(value[2], h_kv) if value else None
    put(ctx, 0, elem(ctx, 0), query and [*query[:2], times(max(h_q, h_kv), d_v)])
    state = query and [query[0], h_kv, over(query[2], h_q), d_v]
    put(ctx, 1, elem(ctx, 3) or elem(ctx, 0), [window, *state] if state and window else state)


@contrib(
    "LinearAttention",
    inputs=[
        ("query", "T"),
        ("key", "T"),
        ("value", "T"),
        ("past_state", "S", "optional"),
        ("decay", "T", "optional"),
        ("beta", "T", "optional"),
    ],
    outputs=[("output", "T"), ("present_state", "S")],
    types={"T": REAL, "S": REAL},
    attributes={
        "chunk_size": 64,
        "kv_num_heads": INT,
        "q_num_heads": INT,
        "scale": 0.0,
        "state_window": 0,
        "update_rule": "gated_delta",
    },
    infer=infer_linear,
)
@quiet
def linear_attention(
    xp: Any,
    query: Any,
    key: Any,
    value: Any,
    past_state: Any = None,
    decay: Any = None,
    beta: Any = None,
    *,
    kv_num_heads: int,
    q_num_heads: int,
    scale: float = 0.0,
    state_window: int = 0,
    update_rule: str = "gated_delta",
) -> Any:
    """S = exp(decay) S + beta k (v - exp(decay) S k)', y = scale q' S for each token; then the last states.

    Rules without "gated" have no decay; those without "delta" have beta 1 and subtract nothing.
    """
    check_rule(update_rule, decay, beta)
    check_window(state_window)
    q, v = split(xp, "query", query, q_num_heads), split(xp, "value", value, kv_num_heads)
    batch, _, length, size = q.shape
    k = split(xp, "key", key, key.shape[2] // size if key.ndim == 3 and size else 0)
    heads = max(q_num_heads, kv_num_heads)
    if q_num_heads % kv_num_heads and kv_num_heads % q_num_heads:
        raise ValueError(
            f"attributes q_num_heads={q_num_heads} and kv_num_heads={kv_num_heads} do not fit together"
        )
    if k.shape[3] != size or any(x.shape[0] != batch or x.shape[2] != length for x in (k, v)):
        raise ValueError(
            f"inputs query {query.shape}, key {key.shape} and value {value.shape} do not fit together"
        )
    k = repeated(xp, "key", k, kv_num_heads)
    keep, rate = None, None
    if "gated" in update_rule:
        keep = xp.exp(split(xp, "decay", decay, kv_num_heads))
        if keep.shape[:3] != (batch, kv_num_heads, length) or keep.shape[3] not in (1, size):
            raise ValueError(
                f"input decay of shape {decay.shape} does not fit {kv_num_heads} heads of {size}"
            )
    if "delta" in update_rule:
        rate = split(xp, "beta", beta, beta.shape[-1])
        if rate.shape[0] != batch or rate.shape[2] != length or rate.shape[1] not in (1, kv_num_heads):
            raise ValueError(f"input beta of shape {beta.shape} does not fit {kv_num_heads} heads")
    shape = (batch, kv_num_heads, size, v.shape[3])
    state = wide(xp, latest(xp, past_state, shape, state_window))
    # queries that share a state stand side by side as rows of one product
    group = heads // kv_num_heads
    q = repeated(xp, "query", q, heads) * (scale or 1 / math.sqrt(max(size, 1)))
    q = xp.reshape(q, (batch, kv_num_heads, group, length, size))
    window = [xp.zeros_like(state)] * state_window
    y = xp.empty((batch, kv_num_heads, group, length, v.shape[3]), dtype=q.dtype)
    for t, (after, _) in enumerate(states(xp, k, v, keep, rate, state)):
        y[:, :, :, t] = q[:, :, :, t] @ after
        window = [*window, after][1:] if state_window else []
        state = after
    y = join_heads(xp, xp.reshape(y, (batch, heads, length, v.shape[3])))
    present = xp.stack(window) if state_window else state
    return cast(xp, y, query.dtype), cast(
        xp, present, query.dtype if past_state is None else past_state.dtype
    )
