"""The short convolution before linear attention, which goes on from call to call."""

from __future__ import annotations

import math
from typing import Any

from epkit.kernels._precision import cast, quiet, wide
from epkit.kernels.activation import sigmoid

from ._infer import attr, dims, elem, put
from ._state import check_window, latest
from .declare import contrib

REAL = ("tensor(float)", "tensor(float16)", "tensor(bfloat16)")


def infer_causal(ctx: Any) -> None:
    """Output like the input; the state as long as the kernel reaches back."""
    x, weight = dims(ctx, 0), dims(ctx, 1)
    put(ctx, 0, elem(ctx, 0), x)
    window, kernel = attr(ctx, "state_window", 0), weight[-1] if weight else None
    kept = (kernel - 1) * attr(ctx, "dilation", 1) if isinstance(kernel, int) else None
    if x is None:
        return
    state = [x[0], kept, *x[2:]] if attr(ctx, "channels_last", 0) else [*x[:-1], kept]
    put(ctx, 1, elem(ctx, 0), [window, *state] if window else state)


@contrib(
    "CausalConvWithState",
    inputs=[("input", "T"), ("weight", "T"), ("bias", "T", "optional"), ("past_state", "T", "optional")],
    outputs=[("output", "T"), ("present_state", "T"), ("state_update", "T", "optional")],
    types={"T": REAL},
    attributes={
        "activation": "none",
        "channels_last": 0,
        "dilation": 1,
        "input_channel_offset": 0,
        "input_channels": 0,
        "ndim": 1,
        "state_channels_last": -1,
        "state_length": 0,
        "state_update_capacity": 0,
        "state_window": 0,
    },
    infer=infer_causal,
)
@quiet
def causal_conv_with_state(
    xp: Any,
    x: Any,
    weight: Any,
    bias: Any = None,
    past_state: Any = None,
    *,
    activation: str = "none",
    channels_last: int = 0,
    dilation: int = 1,
    input_channel_offset: int = 0,
    input_channels: int = 0,
    ndim: int = 1,
    state_channels_last: int = -1,
    state_length: int = 0,
    state_update_capacity: int = 0,
    state_window: int = 0,
) -> Any:
    """y[c, t] = sum over taps j of w[c, j] x[c, t - (k - 1 - j) dilation] + bias[c], x going on from the past state.

    Then the inputs that the next tokens need, of the last positions if there is a window. The attributes that
    belong to one device's extended path are refused, and so are more than one spatial axis.
    """
    extended = (
        input_channel_offset,
        input_channels,
        state_channels_last,
        state_length,
        state_update_capacity,
    )
    if extended != (0, 0, -1, 0, 0) or ndim != 1:
        raise ValueError(
            f"attributes ndim={ndim} (only 1), input_channel_offset, input_channels, state_channels_last, "
            f"state_length and state_update_capacity {extended} (only their defaults) are not supported"
        )
    if activation not in ("none", "silu", "swish"):
        raise ValueError(f"attribute activation={activation!r} is not none, silu or swish")
    check_window(state_window)
    if channels_last:
        batch, length, *inner = x.shape
        rows = xp.matrix_transpose(xp.reshape(x, (batch, length, math.prod(inner))))
    else:
        rows = x
    if (
        rows.ndim != 3
        or weight.ndim != 3
        or weight.shape[:2] != (rows.shape[1], 1)
        or not weight.shape[2]
        or dilation < 1
    ):
        raise ValueError(
            f"input weight of shape {weight.shape} (dilation={dilation}) should be (channels, 1, k) for {x.shape}"
        )
    batch, channels, length = rows.shape
    taps = weight.shape[2]
    kept = (taps - 1) * dilation
    state = (batch, kept, *x.shape[2:]) if channels_last else (batch, channels, kept)
    past = cast(xp, latest(xp, past_state, state, state_window), x.dtype)
    if channels_last:
        past = xp.matrix_transpose(xp.reshape(past, (batch, kept, channels)))
    sequence = xp.concat([past, rows], axis=2)
    if bias is not None and bias.shape != (channels,):
        raise ValueError(f"input bias of shape {bias.shape} should have shape ({channels},)")
    y = xp.zeros(rows.shape, dtype=xp.float32)
    y += 0 if bias is None else wide(xp, bias)[:, None]
    wider, weights = wide(xp, sequence), wide(xp, weight)
    for j in range(taps):
        y += weights[:, :, j] * wider[:, :, j * dilation : j * dilation + length]
    if activation != "none":
        y *= sigmoid(xp, y)

    def kept_after(tokens: int) -> Any:
        """The inputs that matter after so many tokens; zeros before the first of this call."""
        part = sequence[:, :, tokens : tokens + kept] if tokens > 0 else xp.zeros_like(past)
        return xp.reshape(xp.matrix_transpose(part), state) if channels_last else part

    y = cast(xp, xp.reshape(xp.matrix_transpose(y), x.shape) if channels_last else y, x.dtype)
    if state_window:
        return y, xp.stack([kept_after(length - state_window + 1 + j) for j in range(state_window)])
    last = sequence[:, :, length:]
    return y, xp.reshape(xp.matrix_transpose(last), state) if channels_last else xp.asarray(last, copy=True)
