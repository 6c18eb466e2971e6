"""Quantised layers: attention, LSTM, convolution with channels last, and BERT's embeddings."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from onnx import TensorProto
from onnx.defs import OpSchema

from epkit.kernels import attention as heads
from epkit.kernels import normalize, recurrent
from epkit.kernels import quantize as kernels
from epkit.kernels._precision import cast, quiet, wide
from epkit.kernels.cast import converted

from . import quantized_elementwise  # noqa: F401 - declares its operators
from ._codes import BYTES, SCALE, real
from ._heads import turned_in_place
from ._infer import attr, dims, elem, over, plus, put
from ._layout import channels_first, in_layout
from ._shapes import standard
from .declare import contrib
from .quantized import mat_mul_integer_to_float

Ints = Sequence[int]
INT, INTS, FLOAT, FLOATS, STRINGS = (
    (getattr(OpSchema.AttrType, name), None) for name in ("INT", "INTS", "FLOAT", "FLOATS", "STRINGS")
)
"""Optional attributes without default."""


# ---- attention


def infer_attention(ctx: Any) -> None:
    """(batch, sequence, hidden); (2, batch, heads, past + sequence, head size)."""
    x, weight, past = dims(ctx, 0), dims(ctx, 1), dims(ctx, 8)
    batch, sequence = (x[0], x[1]) if x is not None and len(x) == 3 else (None, None)
    hidden = over(weight[1], 3) if weight is not None and len(weight) == 2 else None
    count = attr(ctx, "num_heads")
    kind = elem(ctx, 3)
    put(ctx, 0, kind, [batch, sequence, hidden])
    before = 0 if not ctx.has_input(8) else past[3] if past is not None and len(past) == 5 else None
    put(ctx, 1, kind, [2, batch, count, plus(before, sequence), over(hidden, count)])


@contrib(
    "QAttention",
    inputs=[
        ("input", "T1"),
        ("weight", "T2"),
        ("bias", "T3"),
        ("input_scale", "T3"),
        ("weight_scale", "T3"),
        ("mask_index", "T4", "optional"),
        ("input_zero_point", "T1", "optional"),
        ("weight_zero_point", "T2", "optional"),
        ("past", "T3", "optional"),
    ],
    outputs=[("output", "T3"), ("present", "T3", "optional")],
    types={"T1": BYTES, "T2": BYTES, "T3": [SCALE, "tensor(float16)"], "T4": ["tensor(int32)"]},
    attributes={
        "do_rotary": INT,
        "mask_filter_value": FLOAT,
        "num_heads": OpSchema.AttrType.INT,
        "past_present_share_buffer": INT,
        "scale": FLOAT,
        "unidirectional": 0,
    },
    infer=infer_attention,
)
@quiet
def q_attention(
    xp: Any,
    x: Any,
    weight: Any,
    bias: Any,
    input_scale: Any,
    weight_scale: Any,
    mask_index: Any = None,
    input_zero_point: Any = None,
    weight_zero_point: Any = None,
    past: Any = None,
    *,
    do_rotary: int = 0,
    mask_filter_value: float = -10000.0,
    num_heads: int,
    past_present_share_buffer: int = 0,
    scale: float | None = None,
    unidirectional: int = 0,
) -> Any:
    """softmax(Q K' scale + mask) V with Q, K, V = the thirds of x weight + bias; then the present K and V.

    ``mask_index`` holds per sequence its end (and then all starts), or a 1 for each key to be seen.
    """
    if past_present_share_buffer:
        raise ValueError(
            f"attribute past_present_share_buffer={past_present_share_buffer}: no input says how much of it is used"
        )
    if x.ndim != 3 or weight.ndim != 2 or weight.shape[1] % (3 * num_heads):
        raise ValueError(f"inputs input {x.shape} and weight {weight.shape} do not make {num_heads} heads")
    packed = mat_mul_integer_to_float(
        xp,
        x,
        weight,
        wide(xp, input_scale),
        wide(xp, weight_scale),
        input_zero_point,
        weight_zero_point,
        bias,
    )
    q, k, v = (
        heads.split_heads(xp, "input", part, num_heads) for part in parts_of(packed, weight.shape[1] // 3)
    )
    before = 0
    if past is not None:
        if past.ndim != 5 or (2, *k.shape[:2], k.shape[3]) != (*past.shape[:3], past.shape[4]):
            raise ValueError(f"input past of shape {past.shape} does not fit keys of shape {k.shape}")
        before = past.shape[3]
    if do_rotary:
        q, k = (turned_in_place(xp, part, before, 0) for part in (q, k))
    if past is not None:
        k, v = (xp.concat([wide(xp, past[i]), now], axis=2) for i, now in enumerate((k, v)))
    scores = heads.shared_product(xp, q, xp.permute_dims(k, (0, 1, 3, 2))) * heads.scale_of(scale, q.shape[3])
    if mask_index is not None:
        hidden = xp.asarray(mask_filter_value, dtype=xp.float32)
        scores = scores + xp.where(seen(xp, mask_index, scores.shape), xp.zeros_like(hidden), hidden)
    if unidirectional:
        later = xp.arange(k.shape[2]) > before + xp.arange(q.shape[2])[:, None]
        scores = xp.where(later, xp.asarray(xp.finfo(xp.float32).min, dtype=xp.float32), scores)
    y = heads.join_heads(xp, heads.shared_product(xp, heads.softmax(xp, scores), v))
    return cast(xp, y, bias.dtype), cast(xp, xp.stack([k, v]), bias.dtype)


def parts_of(packed: Any, size: int) -> list[Any]:
    """Consecutive parts of the last axis."""
    return [packed[..., start : start + size] for start in range(0, packed.shape[-1], size)]


def seen(xp: Any, mask: Any, shape: tuple[int, ...]) -> Any:
    """Which keys may be seen, in a shape that broadcasts to scores (batch, heads, queries, keys)."""
    batch, _, queries, keys = shape
    place = xp.arange(keys)
    if mask.shape == (batch,):
        return (place < mask[:, None])[:, None, None]
    if mask.shape == (2 * batch,):
        return ((place < mask[:batch, None]) & (place >= mask[batch:, None]))[:, None, None]
    if mask.shape == (batch, keys):
        return (mask > 0)[:, None, None]
    if mask.shape == (batch, queries, keys):
        return (mask > 0)[:, None]
    raise ValueError(f"input mask_index of shape {mask.shape} does not fit scores of shape {shape}")


# ---- recurrence


def dequantized_weights(xp: Any, name: str, w: Any, scale: Any, zero: Any) -> Any:
    """(w - zero) scale, with one scale for each direction, or one for each of its columns."""
    if (
        w.ndim != 3
        or scale.shape not in ((w.shape[0],), (w.shape[0], w.shape[2]))
        or zero.shape != scale.shape
    ):
        raise ValueError(
            f"inputs {name} {w.shape}, {name}_scale {scale.shape}, {name}_zero_point {zero.shape} do not fit"
        )
    shape = (w.shape[0], 1, -1)
    return (converted(xp, w, xp.float32) - converted(xp, xp.reshape(zero, shape), xp.float32)) * xp.reshape(
        scale, shape
    )


def through_bytes(xp: Any, x: Any, axes: tuple[int, ...]) -> Any:
    """What DynamicQuantizeLinear leaves of ``x``, for each slice over ``axes`` by itself."""
    if not x.size:
        return x
    low, high = (f(x, axis=axes, keepdims=True) for f in (xp.min, xp.max))
    low, high = xp.minimum(low, xp.zeros_like(low)), xp.maximum(high, xp.zeros_like(high))
    scale = (high - low) / xp.asarray(255, dtype=x.dtype)
    scale = xp.where(scale > 0, scale, xp.ones_like(scale))
    zero = xp.round(xp.clip(-low / scale, 0, 255))
    return (xp.clip(xp.round(x / scale) + zero, 0, 255) - zero) * scale


def infer_lstm(ctx: Any) -> None:
    """(steps, directions, batch, hidden); (directions, batch, hidden) twice."""
    x, r = dims(ctx, 0), dims(ctx, 2)
    directions = 2 if attr(ctx, "direction", "forward") == "bidirectional" else 1
    steps, batch = x[:2] if x is not None and len(x) == 3 else (None, None)
    hidden = r[1] if r is not None and len(r) == 3 else attr(ctx, "hidden_size")
    put(ctx, 0, TensorProto.FLOAT, [steps, directions, batch, hidden])
    put(ctx, 1, TensorProto.FLOAT, [directions, batch, hidden])
    put(ctx, 2, TensorProto.FLOAT, [directions, batch, hidden])


@contrib(
    "DynamicQuantizeLSTM",
    inputs=[
        ("X", "T"),
        ("W", "T2"),
        ("R", "T2"),
        ("B", "T", "optional"),
        ("sequence_lens", "T1", "optional"),
        ("initial_h", "T", "optional"),
        ("initial_c", "T", "optional"),
        ("P", "T", "optional"),
        ("W_scale", "T"),
        ("W_zero_point", "T2"),
        ("R_scale", "T"),
        ("R_zero_point", "T2"),
    ],
    outputs=[("Y", "T", "optional"), ("Y_h", "T", "optional"), ("Y_c", "T", "optional")],
    types={"T": [SCALE], "T1": ["tensor(int32)"], "T2": BYTES},
    attributes={
        "activation_alpha": FLOATS,
        "activation_beta": FLOATS,
        "activations": STRINGS,
        "clip": FLOAT,
        "direction": "forward",
        "hidden_size": INT,
        "input_forget": 0,
    },
    infer=infer_lstm,
)
@quiet
def dynamic_quantize_lstm(
    xp: Any,
    x: Any,
    w: Any,
    r: Any,
    b: Any,
    sequence_lens: Any,
    initial_h: Any,
    initial_c: Any,
    p: Any,
    w_scale: Any,
    w_zero: Any,
    r_scale: Any,
    r_zero: Any,
    *,
    activation_alpha: Sequence[float] | None = None,
    activation_beta: Sequence[float] | None = None,
    activations: Sequence[str] | None = None,
    clip: float | None = None,
    direction: str = "forward",
    hidden_size: int | None = None,
    input_forget: int = 0,
) -> Any:
    """LSTM with quantised weights; its input and, at each step, the state are quantised as they come.

    W and R are (directions, inputs, gates), transposed against the standard's.
    """
    weights = dequantized_weights(xp, "W", w, w_scale, w_zero)
    recurrence = dequantized_weights(xp, "R", r, r_scale, r_zero)
    longest = x.shape[0] if sequence_lens is None or not sequence_lens.size else int(xp.max(sequence_lens))
    rows = xp.concat([through_bytes(xp, x[:longest], (0, 1, 2)), x[longest:]], axis=0)
    cell, _ = recurrent.layer(
        xp,
        rows,
        xp.permute_dims(weights, (0, 2, 1)),
        xp.permute_dims(recurrence, (0, 2, 1)),
        b,
        sequence_lens,
        n_gates=4,
        default_activations=("Sigmoid", "Tanh", "Tanh"),
        direction=direction,
        hidden_size=hidden_size,
        activations=activations,
        activation_alpha=activation_alpha,
        activation_beta=activation_beta,
        clip=clip,
        layout=0,
    )
    unclipped = replace(cell, clip=0.0)  # the cell itself is not clipped, only what goes into it
    n = cell.hidden
    peep = xp.zeros((len(cell.backward), 3 * n), dtype=xp.float32) if p is None else p
    if peep.shape != (len(cell.backward), 3 * n):
        raise ValueError(f"input P of shape {peep.shape} should have shape {(len(cell.backward), 3 * n)}")
    to_input, to_output, to_forget = parts_of(peep[:, None, :], n)

    time = itertools.count()

    def step(gates: Any, h: Any, c: Any) -> tuple[Any, ...]:
        t = next(time)
        if sequence_lens is not None:  # once a sequence has ended, its state does not count
            h = xp.where(xp.reshape(sequence_lens >= t, (-1, 1)), h, xp.zeros_like(h))
        into, out, forget, new = parts_of(gates + through_bytes(xp, h, (1, 2)) @ cell.recurrence, n)
        i = cell.activate(0, into + to_input * c)
        f = 1 - i if input_forget else cell.activate(0, forget + to_forget * c)
        c = f * c + i * cell.activate(1, new)
        return cell.activate(0, out + to_output * c) * unclipped.activate(2, c), c

    return cell.run((cell.initial("initial_h", initial_h), cell.initial("initial_c", initial_c)), step)


# ---- convolution and embedding


@contrib(
    "QLinearConv",
    inputs=[
        ("x", "T1"),
        ("x_scale", SCALE),
        ("x_zero_point", "T1"),
        ("w", "T2"),
        ("w_scale", SCALE),
        ("w_zero_point", "T2"),
        ("y_scale", SCALE),
        ("y_zero_point", "T3"),
        ("B", "T4", "optional"),
    ],
    outputs=[("y", "T3")],
    types={"T1": BYTES, "T2": BYTES, "T3": BYTES, "T4": ["tensor(int32)"]},
    attributes={
        "auto_pad": "NOTSET",
        "channels_last": 0,
        "dilations": INTS,
        "group": 1,
        "kernel_shape": INTS,
        "pads": INTS,
        "strides": INTS,
    },
    infer=standard("Conv", inputs=(0, 3), element_of=7, channels_last=None, opset=11),
)
def q_linear_conv(
    xp: Any,
    x: Any,
    x_scale: Any,
    x_zero: Any,
    w: Any,
    w_scale: Any,
    w_zero: Any,
    y_scale: Any,
    y_zero: Any,
    bias: Any = None,
    *,
    auto_pad: str = "NOTSET",
    channels_last: int = 0,
    dilations: Ints | None = None,
    group: int = 1,
    kernel_shape: Ints | None = None,
    pads: Ints | None = None,
    strides: Ints | None = None,
) -> Any:
    """QLinearConv of the standard; with ``channels_last`` x and y are (N, spatial..., C), w is as ever."""
    y = kernels.q_linear_conv(
        xp,
        channels_first(xp, x, channels_last),
        x_scale,
        x_zero,
        w,
        w_scale,
        w_zero,
        y_scale,
        y_zero,
        bias,
        auto_pad=auto_pad,
        dilations=dilations,
        group=group,
        kernel_shape=kernel_shape,
        pads=pads,
        strides=strides,
    )
    return in_layout(xp, y, channels_last)


def infer_embedding(ctx: Any) -> None:
    """(batch, sequence, hidden) and (batch,)."""
    ids, table = dims(ctx, 0), dims(ctx, 2)
    batch, sequence = ids if ids is not None and len(ids) == 2 else (None, None)
    put(
        ctx,
        0,
        TensorProto.FLOAT,
        [batch, sequence, table[1] if table is not None and len(table) == 2 else None],
    )
    put(ctx, 1, TensorProto.INT32, [batch])


@contrib(
    "QEmbedLayerNormalization",
    inputs=[
        ("input_ids", "T1"),
        ("segment_ids", "T1", "optional"),
        ("word_embedding_quant", "T2"),
        ("position_embedding_quant", "T2"),
        ("segment_embedding", "T2", "optional"),
        ("gamma_quant", "T2"),
        ("beta_quant", "T2"),
        ("mask", "T1", "optional"),
        ("word_embedding_scale", "T"),
        ("position_embedding_scale", "T"),
        ("segment_embedding_scale", "T", "optional"),
        ("gamma_scale", "T"),
        ("beta_scale", "T"),
        ("word_embedding_zero_point", "T2"),
        ("position_embedding_zero_point", "T2"),
        ("segment_embedding_zero_point", "T2", "optional"),
        ("gamma_zero_point", "T2"),
        ("beta_zero_point", "T2"),
    ],
    outputs=[("layernorm_out", "T"), ("mask_index_out", "T1")],
    types={"T": [SCALE], "T1": ["tensor(int32)"], "T2": BYTES},
    attributes={"epsilon": 1e-12},
    infer=infer_embedding,
)
def q_embed_layer_normalization(
    xp: Any,
    input_ids: Any,
    segment_ids: Any,
    words: Any,
    positions: Any,
    segments: Any,
    gamma: Any,
    beta: Any,
    mask: Any,
    words_scale: Any,
    positions_scale: Any,
    segments_scale: Any,
    gamma_scale: Any,
    beta_scale: Any,
    words_zero: Any,
    positions_zero: Any,
    segments_zero: Any,
    gamma_zero: Any,
    beta_zero: Any,
    *,
    epsilon: float = 1e-12,
) -> Any:
    """LayerNormalization of the sum of word, position and segment embeddings; then how many of mask are 1."""
    if input_ids.ndim != 2:
        raise ValueError(f"input input_ids of shape {input_ids.shape} should be (batch, sequence)")
    batch, sequence = input_ids.shape
    total = rows_of(xp, words, input_ids, words_scale, words_zero, "word_embedding")
    place = xp.arange(sequence)[None, :]
    total = total + rows_of(xp, positions, place, positions_scale, positions_zero, "position_embedding")
    if segment_ids is not None:
        if segments is None or segments_scale is None or segments_zero is None:
            raise ValueError("inputs segment_ids and segment_embedding (scale, zero_point) go together")
        total = total + rows_of(xp, segments, segment_ids, segments_scale, segments_zero, "segment_embedding")
    y = normalize.layer_normalization(
        xp,
        total,
        real(xp, gamma, gamma_scale, gamma_zero, "gamma"),
        real(xp, beta, beta_scale, beta_zero, "beta"),
        epsilon=epsilon,
    )[0]
    counts = xp.zeros((batch,), dtype=xp.int32)
    if mask is not None:
        counts = xp.sum(mask == 1, axis=1, dtype=xp.int32)
    return y, counts


def rows_of(xp: Any, table: Any, ids: Any, scale: Any, zero: Any, name: str) -> Any:
    """The rows of a quantised table, in float32."""
    if table.ndim != 2 or (ids.size and (xp.min(ids) < 0 or xp.max(ids) >= table.shape[0])):
        raise ValueError(f"input {name} of shape {table.shape} does not have all rows that are asked for")
    return real(xp, xp.take(table, ids, axis=0), scale, zero, name)
