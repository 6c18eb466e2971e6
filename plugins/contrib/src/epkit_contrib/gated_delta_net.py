"""Linear attention of tokens in a row, with its gates, and with what is needed to replay it."""

from __future__ import annotations

import math
from typing import Any

from onnx import TensorProto

from epkit.kernels._precision import cast, quiet, wide
from epkit.kernels.activation import sigmoid, softplus

from ._attend import positions
from ._infer import Dim, Dims, attr, dims, elem, over, plus, put, times
from ._state import check_rule, repeated, states
from .declare import contrib

REAL = ("tensor(float)", "tensor(float16)", "tensor(bfloat16)")


def infer_gated(ctx: Any) -> None:
    """Output, last state and captured transitions."""
    query, key, decay, state = (dims(ctx, i) for i in (0, 1, 4, 6))
    shape = dims(ctx, 2)
    if not ctx.has_input(2) and query is not None and state is not None:
        shape = [*query[:-1], state[1], state[2]]
    put(ctx, 0, elem(ctx, 0), shape)
    if state is None and shape is not None and key is not None:
        starts = dims(ctx, 3)
        batch = shape[0] if len(shape) == 4 else plus(starts[0], -1) if starts else None
        state = [batch, shape[-2], shape[-1], key[-1]]
    put(ctx, 1, TensorProto.FLOAT, state)
    if query is None or state is None:
        return
    known = decay is not None or not ctx.has_input(4)
    width = captured_width(query, key, decay, state[1:]) if known else None
    put(ctx, 2, TensorProto.FLOAT, [state[0], times(attr(ctx, "state_update_capacity", 0), width)])


def captured_width(query: list[Dim], key: Dims, decay: Dims, state: list[Dim]) -> Dim:
    """How many numbers replay one transition of a state (heads, values, keys)."""
    heads, d_v, d_k = state
    values = times(heads, d_v)
    shared = key[-2] if key else over(plus(query[-1], times(-1, values)), times(2, d_k))
    lead = len(query) - (2 if key else 1)
    gates = times(heads, d_k) if decay is not None and len(decay) == lead + 2 else heads
    return plus(gates, times(shared, d_k), values)


def separated(query: Any, key: Any, value: Any, state: Any) -> tuple[Any, Any, Any]:
    """Queries, keys and values (tokens..., heads, size) of separate inputs, or of one that holds all."""
    if key is not None and value is not None:
        return query, key, value
    if key is not None or value is not None or state is None:
        raise ValueError(
            "inputs key and value should be given together; without them, initial_state should be"
        )
    _, heads, d_v, d_k = state.shape
    shared = (query.shape[-1] - heads * d_v) // (2 * d_k)
    if shared < 1 or query.shape[-1] != 2 * shared * d_k + heads * d_v:
        raise ValueError(
            f"input query of shape {query.shape} does not hold what initial_state {state.shape} asks for"
        )
    cut = shared * d_k
    parts = query[..., :cut], query[..., cut : 2 * cut], query[..., 2 * cut :]
    forms = ((shared, d_k), (shared, d_k), (heads, d_v))
    q, k, v = (part.reshape(*query.shape[:-1], *form) for part, form in zip(parts, forms, strict=True))
    return q, k, v


def layout(xp: Any, lead: tuple[int, ...], cu_seqlens: Any, state: Any) -> tuple[Any, Any]:
    """The token at each place of (batch, longest), and which places hold one."""
    tokens = math.prod(lead)
    if cu_seqlens is None:
        if len(lead) == 1 and state is None:
            raise ValueError("without cu_seqlens, initial_state is needed to know the batch size")
        batch = lead[0] if len(lead) == 2 else state.shape[0]
        if batch < 1 or tokens % batch:
            raise ValueError(f"{tokens} tokens cannot be {batch} sequences of one length")
        at = xp.reshape(xp.arange(tokens), (batch, tokens // batch))
        return at, xp.ones(at.shape, dtype=xp.bool)
    starts = xp.astype(cu_seqlens, xp.int64)
    counts = starts[1:] - starts[:-1]
    if (
        len(lead) != 1
        or starts.ndim != 1
        or starts.shape[0] < 2
        or xp.any(counts < 0)
        or starts[0]
        or starts[-1] != tokens
    ):
        raise ValueError(f"input cu_seqlens={cu_seqlens.tolist()} does not divide tokens {lead}")
    steps = positions(xp, int(xp.max(counts)))[None]
    valid = steps < counts[:, None]
    return xp.where(valid, starts[:-1, None] + steps, 0), valid


def effective_decay(xp: Any, decay: Any, a_log: Any, dt_bias: Any, activation: str, bound: float) -> Any:
    """The logarithm of the decay, (tokens, heads, 1 or keys)."""
    if activation == "none":
        return decay
    if activation not in ("softplus", "qwen", "sigmoid", "kda"):
        raise ValueError(f"attribute gate_activation={activation!r} is not none, softplus or sigmoid")
    if a_log is None or dt_bias is None:
        raise ValueError(f"inputs a_log and dt_bias are needed for gate_activation={activation!r}")
    heads, width = decay.shape[1:]
    if a_log.shape != (heads,) or dt_bias.size not in (heads, heads * width):
        raise ValueError(
            f"inputs a_log {a_log.shape} and dt_bias {dt_bias.shape} do not fit {heads} heads of {width}"
        )
    shifted, rate = decay + xp.reshape(dt_bias, (1, heads, -1)), xp.exp(a_log)[None, :, None]
    if activation in ("softplus", "qwen"):
        return -rate * softplus(xp, shifted)
    return bound * sigmoid(xp, rate * shifted)


def unit(xp: Any, x: Any) -> Any:
    """Vectors along the last axis with length 1."""
    return x / xp.sqrt(xp.sum(x * x, axis=-1, keepdims=True) + 1e-6)


@contrib(
    "GatedDeltaNet",
    inputs=[
        ("query", "T"),
        ("key", "T", "optional"),
        ("value", "T", "optional"),
        ("cu_seqlens", "TI", "optional"),
        ("decay", "TG", "optional"),
        ("beta", "TG", "optional"),
        ("initial_state", "TS", "optional"),
        ("a_log", "TS", "optional"),
        ("dt_bias", "TS", "optional"),
        ("capture_count", "TI", "optional"),
        ("state_update_active", "TI", "optional"),
    ],
    outputs=[("output", "T"), ("final_state", "TS", "optional"), ("state_update", "TS", "optional")],
    types={"T": REAL, "TS": ("tensor(float)",), "TG": REAL, "TI": ("tensor(int32)",)},
    attributes={
        "beta_activation": "none",
        "chunk_size": 64,
        "gate_activation": "none",
        "gate_lower_bound": -5.0,
        "qk_l2_norm": 0,
        "scale": 0.0,
        "state_update_capacity": 0,
        "update_rule": "gated_delta",
    },
    infer=infer_gated,
)
@quiet
def gated_delta_net(
    xp: Any,
    query: Any,
    key: Any = None,
    value: Any = None,
    cu_seqlens: Any = None,
    decay: Any = None,
    beta: Any = None,
    initial_state: Any = None,
    a_log: Any = None,
    dt_bias: Any = None,
    capture_count: Any = None,
    state_update_active: Any = None,
    *,
    beta_activation: str = "none",
    gate_activation: str = "none",
    gate_lower_bound: float = -5.0,
    qk_l2_norm: int = 0,
    scale: float = 0.0,
    state_update_capacity: int = 0,
    update_rule: str = "gated_delta",
) -> Any:
    """The recurrence of LinearAttention over tokens in a row, with its gates; the last states (values by keys).

    Then, of the first ``capture_count[b]`` tokens of each sequence: all decays, all keys, all changes.
    """
    check_rule(update_rule, decay, beta)
    check_capture(state_update_capacity, capture_count)
    q, k, v = separated(query, key, value, initial_state)
    lead = q.shape[:-2]
    if (
        q.ndim not in (3, 4)
        or k.shape != q.shape
        or v.shape[:-2] != lead
        or v.shape[-2] % max(q.shape[-2], 1)
    ):
        raise ValueError(f"queries {q.shape}, keys {k.shape} and values {v.shape} do not fit together")
    d_k, (heads, d_v), tokens = q.shape[-1], v.shape[-2:], math.prod(lead)
    at, valid = layout(xp, lead, cu_seqlens, initial_state)
    batch, length = at.shape

    def by_head(x: Any, width: int, fill: float = 0.0) -> Any:
        """(tokens..., heads, width) as (batch, heads, longest, width), with ``fill`` where there is no token."""
        rows = xp.reshape(x, (tokens, -1, width))[at]
        rows = xp.where(valid[:, :, None, None], rows, xp.asarray(fill, dtype=rows.dtype))
        return xp.permute_dims(rows, (0, 2, 1, 3))

    q, k, v = (by_head(wide(xp, x), x.shape[-1]) for x in (q, k, v))
    if qk_l2_norm:
        q, k = unit(xp, q), unit(xp, k)
    keep = xp.ones((batch, heads, length, 1), dtype=xp.float32)
    if "gated" in update_rule:
        logarithm = effective_decay(
            xp, per_head(xp, decay, tokens, heads, d_k), a_log, dt_bias, gate_activation, gate_lower_bound
        )
        keep = by_head(xp.exp(logarithm), logarithm.shape[2], 1.0)
    rate = (
        by_head(effective_rate(xp, beta, tokens, heads, beta_activation), 1)
        if "delta" in update_rule
        else None
    )
    q, keys = repeated(xp, "query", q, heads) * (scale or 1 / math.sqrt(d_k)), repeated(xp, "key", k, heads)
    y, changes = (xp.zeros((batch, heads, length, d_v), dtype=xp.float32) for _ in range(2))
    last = first_state(xp, initial_state, (batch, heads, d_v, d_k))
    for t, (state, change) in enumerate(states(xp, keys, v, keep, rate, last)):
        y[:, :, t] = (q[:, :, t, None] @ state)[:, :, 0]
        changes[:, :, t] = change
        last = state
    flat = xp.zeros((tokens, heads, d_v), dtype=xp.float32)
    flat[at[valid]] = xp.permute_dims(y, (0, 2, 1, 3))[valid]
    output = cast(xp, xp.reshape(flat, (*lead, heads, d_v)), query.dtype)
    if not state_update_capacity:
        return output, xp.matrix_transpose(last)
    active = state_update_active is None or bool(xp.any(state_update_active != 0))
    update = captured(xp, (keep, k, changes), capture_count * int(active), state_update_capacity)
    return output, xp.matrix_transpose(last), update


def check_capture(capacity: int, count: Any) -> None:
    """Refuse a capacity out of range, or one without counts."""
    if not 0 <= capacity <= 8 or (count is None) != (capacity == 0):
        raise ValueError(
            f"attribute state_update_capacity={capacity} is not in 0 .. 8, "
            "or does not go together with the input capture_count"
        )


def per_head(xp: Any, decay: Any, tokens: int, heads: int, d_k: int) -> Any:
    """The decay as float32, (tokens, heads, 1 or d_k)."""
    width = decay.size // max(tokens * heads, 1)
    if decay.size != tokens * heads * width or (tokens and width not in (1, d_k)):
        raise ValueError(f"input decay of shape {decay.shape} does not fit {heads} heads of {d_k} keys")
    return xp.reshape(cast(xp, wide(xp, decay), xp.float32), (tokens, heads, width or 1))


def effective_rate(xp: Any, beta: Any, tokens: int, heads: int, activation: str) -> Any:
    """How much of each change is made, in float32."""
    if activation not in ("none", "sigmoid"):
        raise ValueError(f"attribute beta_activation={activation!r} is neither none nor sigmoid")
    if beta.size != tokens * heads:
        raise ValueError(f"input beta of shape {beta.shape} does not fit {tokens} tokens of {heads} heads")
    return sigmoid(xp, wide(xp, beta)) if activation == "sigmoid" else wide(xp, beta)


def first_state(xp: Any, state: Any, shape: tuple[int, ...]) -> Any:
    """The state before the first token, keys by values; zeros if there is none."""
    if state is not None and state.shape != shape:
        raise ValueError(f"input initial_state of shape {state.shape} should have shape {shape}")
    return xp.matrix_transpose(xp.zeros(shape, dtype=xp.float32) if state is None else state)


def captured(xp: Any, parts: Any, count: Any, capacity: int) -> Any:
    """The first rows of each part (batch, heads, tokens, size), part after part, with zeros for the others."""
    batch, _, length, _ = parts[0].shape
    if count.shape != (batch,):
        raise ValueError(f"input capture_count of shape {count.shape} should have shape ({batch},)")
    rows = min(length, capacity)
    wanted = (positions(xp, rows)[None] < count[:, None])[:, :, None]
    flat = []
    for part in parts:
        run = xp.reshape(
            xp.permute_dims(part[:, :, :rows], (0, 2, 1, 3)), (batch, rows, part.shape[1] * part.shape[3])
        )
        whole = xp.zeros((batch, capacity, run.shape[2]), dtype=run.dtype)
        whole[:, :rows] = xp.where(wanted, run, 0)
        flat.append(xp.reshape(whole, (batch, -1)))
    return xp.concat(flat, axis=1)
