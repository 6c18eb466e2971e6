"""Attention in its forms."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from onnx import TensorProto, helper

from ..case import Case, cases_for
from ..data import Array, floats, ints, truths, whole


@cases_for("Attention")
def attention(op: str, version: int) -> Iterator[Case]:
    q, k, v = floats(2, 4, 3, 8), floats(2, 2, 5, 8, seed=1), floats(2, 2, 5, 6, seed=2)
    past = [floats(2, 2, 4, 8, seed=3), floats(2, 2, 4, 6, seed=4)]
    yield Case([q, k, v])
    yield Case([q, k, v, truths(3, 5)], {"softcap": 2.0, "scale": 0.5}, outputs=["y", "", "", "qk"])
    yield Case([q, k, v, floats(2, 1, 3, 9), *past], {"qk_matmul_output_mode": 3}, outputs=4)
    yield Case([q, k, v, None, *past], {"is_causal": 1}, outputs=3)
    flat = [x.swapaxes(1, 2).reshape(2, x.shape[2], -1) for x in (q, k, v)]
    yield Case(flat, {"q_num_heads": 4, "kv_num_heads": 2})
    if version >= 24:
        yield Case([q, k, v, None, None, None, ints(3, 5)])
    if version >= 25:
        yield Case([q, k, v], {"left_window_size": 1, "right_window_size": 1})


@cases_for("RotaryEmbedding")
def rotary(op: str, version: int) -> Iterator[Case]:
    x, angles = floats(2, 3, 4, 8), floats(10, 4, low=-3, high=3)
    cos, sin, positions = np.cos(angles), np.sin(angles), whole(2, 4)
    yield Case([x, cos, sin, positions])
    yield Case([x, cos, sin, positions], {"interleaved": 1})
    yield Case([x, cos[:, :2], sin[:, :2], positions], {"rotary_embedding_dim": 4})
    yield Case([floats(2, 4, 24), cos[positions], sin[positions]], {"num_heads": 3})


@cases_for("LinearAttention")
def linear(op: str, version: int) -> Iterator[Case]:
    heads = {"q_num_heads": 2, "kv_num_heads": 2}
    q, k, v = (floats(1, 5, 8, low=-1, high=1, seed=seed) for seed in range(3))
    decay, beta = floats(1, 5, 2, low=-1, high=0), floats(1, 5, 2, low=0, high=1, seed=1)
    yield Case([q, k, v, None, decay, beta], heads, outputs=2)
    yield Case([q, k, v], {**heads, "update_rule": "linear", "scale": 0.5}, outputs=2)
    yield Case([q, k, v, floats(1, 2, 4, 4), decay], {**heads, "update_rule": "gated"}, outputs=2)
    yield Case([q, k, v, None, None, beta], {**heads, "update_rule": "delta", "chunk_size": 2}, outputs=2)


@cases_for("FlexAttention", domain="ai.onnx.preview")
def flex(op: str, version: int) -> Iterator[Case]:
    q, k, v = floats(1, 4, 3, 8), floats(1, 2, 5, 8, seed=1), floats(1, 2, 5, 6, seed=2)
    yield Case([q, k, v], expect=lambda q, k, v: [_plain(q, k, v, 1 / np.sqrt(8))])
    yield Case([q, k, v], {"scale": 0.5}, expect=lambda q, k, v: [_plain(q, k, v, 0.5)])
    info = [helper.make_tensor_value_info(name, TensorProto.FLOAT, (1, 4, 3, 5)) for name in ("a", "b")]
    doubled = helper.make_graph([helper.make_node("Add", ["a", "a"], ["b"])], "mod", info[:1], info[1:])
    yield Case(
        [q, k, v],
        {"score_mod": doubled, "prob_mod": doubled, "scale": 0.25},
        expect=lambda q, k, v: [2 * _plain(q, k, v, 0.5)],
        retype=False,
    )


def _plain(q: Array, k: Array, v: Array, scale: float) -> Array:
    """softmax(q kᵀ scale) v, each head of k and v serving two of q."""
    k, v = k.repeat(2, axis=1).astype(np.float64), v.repeat(2, axis=1).astype(np.float64)
    scores = np.exp(q.astype(np.float64) @ k.swapaxes(2, 3) * scale)
    return (scores / scores.sum(-1, keepdims=True) @ v).astype(q.dtype)
