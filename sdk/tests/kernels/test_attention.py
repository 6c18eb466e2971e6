"""Attention in double precision written out, and the properties of its variants."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from peer import data, ours

Q, K, V = data(2, 4, 3, 8), data(2, 2, 5, 8, seed=1), data(2, 2, 5, 6, seed=2)
"""Four query heads of three positions, two key and value heads of five."""


def written_out(q: Any, k: Any, v: Any, seen: Any = True, bias: Any = 0.0, scale: float | None = None) -> Any:
    """Attention in double precision; ``seen`` broadcasts over (batch, heads, queries, keys)."""
    q, k, v = (x.astype(np.float64) for x in (q, k, v))
    k, v = (np.repeat(x, q.shape[1] // x.shape[1], axis=1) for x in (k, v))
    scores = q @ k.swapaxes(2, 3) * (q.shape[3] ** -0.5 if scale is None else scale) + bias
    e = np.where(seen, np.exp(scores), 0)
    return e / np.maximum(e.sum(-1, keepdims=True), 1e-300) @ v


def close(got: Any, want: Any) -> None:
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("opset", [23, 24, 25])
def test_shared_heads(opset: int) -> None:
    close(ours("Attention", [Q, K, V], opset), written_out(Q, K, V))
    close(ours("Attention", [Q, K, V], opset, scale=0.3), written_out(Q, K, V, scale=0.3))


def test_packed_heads() -> None:
    pack = lambda x: x.transpose(0, 2, 1, 3).reshape(x.shape[0], x.shape[2], -1)  # noqa: E731
    y = ours("Attention", [pack(Q), pack(K), pack(V)], 23, q_num_heads=4, kv_num_heads=2)
    np.testing.assert_array_equal(y, pack(ours("Attention", [Q, K, V], 23)))
    with pytest.raises(ValueError, match="into 3 heads"):
        ours("Attention", [pack(Q), pack(K), pack(V)], 23, q_num_heads=3, kv_num_heads=2)


@pytest.mark.parametrize("shape", [(3, 5), (1, 5), (4, 3, 5), (2, 1, 1, 5), (2, 4, 3, 5)])
def test_masks(shape: Any) -> None:
    bias = data(*shape, seed=3)
    close(ours("Attention", [Q, K, V, bias], 23), written_out(Q, K, V, bias=bias))
    close(ours("Attention", [Q, K, V, bias > 0], 23), written_out(Q, K, V, seen=bias > 0))


def test_a_row_that_sees_nothing_is_zero() -> None:
    mask = np.ones((3, 5), bool)
    mask[1] = False
    for given in (mask, np.where(mask, 0, -np.inf).astype(np.float32)):
        y, *_, weights = ours("Attention", [Q, K, V, given], 23, outputs=4, qk_matmul_output_mode=3)
        assert not y[:, :, 1].any() and not weights[:, :, 1].any() and y[:, :, 0].all()


def test_present_is_past_and_new_and_causal_follows_it() -> None:
    y, k, v = ours(
        "Attention", [Q, K[:, :, 2:], V[:, :, 2:], None, K[:, :, :2], V[:, :, :2]], 23, outputs=3, is_causal=1
    )
    np.testing.assert_array_equal(k, K)
    np.testing.assert_array_equal(v, V)
    close(y, written_out(Q, K, V, seen=np.tri(3, 5, 2, dtype=bool)))


def test_windows_and_lengths() -> None:
    lengths = np.array([5, 2])
    place = (lengths - 3)[:, None, None, None] + np.arange(3)[:, None]
    key = np.arange(5)
    valid = key < lengths[:, None, None, None]
    given = [Q, K, V, None, None, None, lengths]
    close(ours("Attention", given, 24), written_out(Q, K, V, seen=valid))
    close(ours("Attention", given, 24, is_causal=1), written_out(Q, K, V, seen=valid & (key <= place)))
    seen = valid & (key >= place - 1) & (key <= place + 2)
    close(
        ours("Attention", given, 25, left_window_size=1, right_window_size=2), written_out(Q, K, V, seen=seen)
    )


def test_a_short_mask_hides_the_rest() -> None:
    close(ours("Attention", [Q, K, V, np.ones((3, 4), bool)], 24), written_out(Q, K[:, :, :4], V[:, :, :4]))


def test_stages() -> None:
    mask = data(3, 5, seed=3)
    raw, capped, biased, weights = (
        ours("Attention", [Q, K, V, mask], 23, outputs=4, softcap=0.5, qk_matmul_output_mode=mode)[3]
        for mode in range(4)
    )
    close(capped, 0.5 * np.tanh(raw / 0.5))
    close(biased, capped + mask)
    close(weights, np.exp(biased) / np.exp(biased).sum(-1, keepdims=True))


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float64])
@pytest.mark.parametrize("precision", [1, 10, 11, 16])
def test_types(dtype: Any, precision: int) -> None:
    given = [x.astype(dtype) for x in (Q, K, V)]
    y, *_, weights = ours(
        "Attention", given, 23, outputs=4, softmax_precision=precision, qk_matmul_output_mode=3
    )
    assert (y.dtype, weights.dtype) == (dtype, dtype)
    tolerance = 1e-6 if dtype == np.float64 else 1e-2
    np.testing.assert_allclose(y.astype(np.float64), written_out(*given), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(
    ("inputs", "attributes", "message"),
    [
        ([Q, K, V[:, :, 1:]], {}, "do not fit together"),
        ([Q[:, :3], K, V], {}, "3 query heads"),
        ([Q, K, V, None, K], {}, "given together"),
        ([Q, K, V, data(2, 2)], {}, "attn_mask"),
        ([Q, K, V, None, None, None, np.array([6, 1])], {}, "nonpad_kv_seqlen"),
        ([Q, K, V, None, K, V, np.array([5, 1])], {}, "nonpad_kv_seqlen"),
        ([Q, K, V], {"left_window_size": -2}, "left_window_size=-2"),
        ([Q, K, V], {"qk_matmul_output_mode": 4}, "qk_matmul_output_mode=4"),
    ],
)
def test_refusals(inputs: Any, attributes: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ours("Attention", inputs, 25, **attributes)


def test_flex_attention() -> None:
    run = lambda **k: ours("FlexAttention", [Q, K, V], 1, domain="ai.onnx.preview", **k)  # noqa: E731
    close(run(scale=0.2), written_out(Q, K, V, scale=0.2))
    seen = np.tri(3, 5, dtype=bool)
    close(run(score_mod=lambda s: np.where(seen, s, -np.inf)), written_out(Q, K, V, seen=seen))
    close(run(prob_mod=lambda p: 2 * p), 2 * written_out(Q, K, V))
    with pytest.raises(ValueError, match="score_mod is a subgraph"):
        run(score_mod=object())


@pytest.mark.parametrize("interleaved", [0, 1])
@pytest.mark.parametrize("turned", [0, 4])
def test_rotary_embedding_turns_pairs(interleaved: int, turned: int) -> None:
    width = turned or 8
    angle = data(9, width // 2, seed=3)
    ids = np.array([[0, 8, 3], [1, 1, 2]])
    y = ours(
        "RotaryEmbedding",
        [Q, np.cos(angle), np.sin(angle), ids],
        23,
        interleaved=interleaved,
        rotary_embedding_dim=turned,
    )
    pairs = slice(0, width, 2) if interleaved else slice(width // 2)
    others = slice(1, width, 2) if interleaved else slice(width // 2, width)
    turn = (Q[..., pairs] + 1j * Q[..., others]) * np.exp(1j * angle[ids][:, None])
    close(y[..., pairs], turn.real)
    close(y[..., others], turn.imag)
    np.testing.assert_array_equal(y[..., width:], Q[..., width:])
    with pytest.raises(ValueError, match="position_ids"):
        ours("RotaryEmbedding", [Q, np.cos(angle), np.sin(angle), ids + 1], 23, rotary_embedding_dim=turned)


@pytest.mark.parametrize("rule", ["linear", "gated", "delta", "gated_delta"])
@pytest.mark.parametrize("per_key", [False, True])
def test_linear_attention_is_its_recurrence(rule: str, per_key: bool) -> None:
    q, k, v = data(2, 5, 4 * 3), data(2, 5, 2 * 3, seed=1), data(2, 5, 2 * 6, seed=2)
    decay, beta = -np.abs(data(2, 5, 6 if per_key else 2, seed=3)), np.abs(data(2, 5, 2, seed=4))
    start = data(2, 2, 3, 6, seed=5)
    y, last = ours(
        "LinearAttention",
        [q, k, v, start, decay, beta],
        27,
        outputs=2,
        q_num_heads=4,
        kv_num_heads=2,
        update_rule=rule,
    )
    state = start.astype(np.float64)
    for t in range(5):
        kt, vt = k[:, t].reshape(2, 2, 3), v[:, t].reshape(2, 2, 6)
        if "gated" in rule:
            state = state * np.exp(decay[:, t].reshape(2, 2, -1))[..., None]
        if "delta" in rule:
            vt = beta[:, t][..., None] * (vt - np.einsum("bhk,bhkv->bhv", kt, state))
        state = state + np.einsum("bhk,bhv->bhkv", kt, vt)
        want = np.einsum("bhgk,bhkv->bhgv", q[:, t].reshape(2, 2, 2, 3), state) / np.sqrt(3)
        np.testing.assert_allclose(y[:, t], want.reshape(2, -1), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(last, state, rtol=1e-3, atol=1e-4)


def test_linear_attention_refuses() -> None:
    with pytest.raises(ValueError, match="decay is missing"):
        ours("LinearAttention", [data(1, 2, 4)] * 3, 27, q_num_heads=2, kv_num_heads=2)
