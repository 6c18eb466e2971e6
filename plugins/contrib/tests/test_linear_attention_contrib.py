"""LinearAttention, GatedDeltaNet and CausalConvWithState against onnxruntime."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from contrib_node import BF16, check, rand, run

from epkit.errors import EpkitError

BATCH, TOKENS = 2, 5
RULES = ("linear", "gated", "delta", "gated_delta")


def normed(x: Any) -> Any:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def linear_inputs(
    q_heads: int, kv_heads: int, rule: str = "gated_delta", tokens: int = TOKENS, wide_decay: bool = False
) -> dict[str, Any]:
    """Keys have size 4, values size 6; what the rule does not need is left out."""
    keys = normed(rand(BATCH, tokens, kv_heads, 4, seed=1)).reshape(BATCH, tokens, -1)
    decay = -np.abs(rand(BATCH, tokens, kv_heads * (4 if wide_decay else 1), seed=2))
    beta = 1 / (1 + np.exp(-rand(BATCH, tokens, kv_heads, seed=3)))
    return {
        "query": rand(BATCH, tokens, q_heads * 4, seed=4),
        "key": keys,
        "value": rand(BATCH, tokens, kv_heads * 6, seed=5),
        "past_state": rand(BATCH, kv_heads, 4, 6, seed=6),
        "decay": decay if "gated" in rule else None,
        "beta": beta if "delta" in rule else None,
    }


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("heads", [(2, 2), (4, 2), (2, 4)], ids=str)
def test_linear_attention_by_rule_and_heads(rule: str, heads: tuple[int, int]) -> None:
    check(
        "LinearAttention",
        linear_inputs(*heads, rule),
        2,
        q_num_heads=heads[0],
        kv_num_heads=heads[1],
        update_rule=rule,
    )


@pytest.mark.parametrize("tokens", [1, 3, 5])
@pytest.mark.parametrize("window", [1, 4])
def test_linear_attention_keeps_a_window_of_states(tokens: int, window: int) -> None:
    inputs, settings = linear_inputs(2, 2, tokens=tokens), {"q_num_heads": 2, "kv_num_heads": 2}
    past = rand(window, BATCH, 2, 4, 6, seed=7)
    y, present = run("LinearAttention", inputs | {"past_state": past}, 2, **settings, state_window=window)
    for slot in range(window):
        prefix = tokens - window + slot + 1  # the slot holds the state after so many tokens
        if prefix < 1:
            assert not present[slot].any()
            continue
        first = {name: x[:, :prefix].copy() for name, x in inputs.items()} | {"past_state": past[-1]}
        some, state = check("LinearAttention", first, 2, **settings)
        np.testing.assert_allclose(present[slot], state, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(y[:, :prefix], some, rtol=1e-5, atol=1e-6)


def test_linear_attention_decays_per_key_starts_from_nothing_and_scales() -> None:
    inputs = linear_inputs(2, 2, wide_decay=True) | {"past_state": None}
    check("LinearAttention", inputs, 2, q_num_heads=2, kv_num_heads=2, scale=0.7)


def test_linear_attention_shares_one_rate() -> None:
    inputs = linear_inputs(2, 2)
    inputs["beta"] = inputs["beta"][:, :, :1].copy()
    check("LinearAttention", inputs, 2, q_num_heads=2, kv_num_heads=2)


def test_linear_attention_goes_on_where_it_stopped() -> None:
    whole = linear_inputs(4, 2)
    settings: dict[str, Any] = {"q_num_heads": 4, "kv_num_heads": 2}
    y, state = run("LinearAttention", whole, 2, **settings)
    first = {name: x if name == "past_state" else x[:, :2].copy() for name, x in whole.items()}
    y1, middle = run("LinearAttention", first, 2, **settings)
    rest = {name: middle if name == "past_state" else x[:, 2:].copy() for name, x in whole.items()}
    y2, last = run("LinearAttention", rest, 2, **settings)
    np.testing.assert_allclose(np.concatenate([y1, y2], axis=1), y, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(last, state, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"update_rule": "cubic"}, "update_rule"),
        ({"update_rule": "gated_delta", "beta": None}, "beta"),
        ({"kv_num_heads": 3}, "heads"),
        ({"state_window": 9}, "state_window"),
        ({"past_state": rand(BATCH, 2, 4, 5)}, "past_state"),
    ],
)
def test_linear_attention_says_what_is_wrong(change: dict[str, Any], word: str) -> None:
    inputs = linear_inputs(2, 2) | {key: x for key, x in change.items() if key in ("beta", "past_state")}
    settings = {"q_num_heads": 2, "kv_num_heads": 2} | {
        key: x for key, x in change.items() if key not in inputs
    }
    with pytest.raises(EpkitError, match=word):
        run("LinearAttention", inputs, 2, **settings)


# ---- GatedDeltaNet: 2 heads of keys of size 4, 4 heads of values of size 6


def gated_inputs(
    *lead: int, state: bool = True, starts: Any = None, width: int = 0, dtype: Any = np.float32
) -> dict[str, Any]:
    batch = len(starts) - 1 if starts is not None else BATCH
    return {
        "query": rand(*lead, 2, 4, seed=1, dtype=dtype),
        "key": normed(rand(*lead, 2, 4, seed=2)).astype(dtype),
        "value": rand(*lead, 4, 6, seed=3, dtype=dtype),
        "cu_seqlens": None if starts is None else np.array(starts, np.int32),
        "decay": -np.abs(rand(*lead, 4, *[width] * bool(width), seed=4)),
        "beta": 1 / (1 + np.exp(-rand(*lead, 4, seed=5))),
        "initial_state": rand(batch, 4, 6, 4, seed=6) if state else None,
        "a_log": None,
        "dt_bias": None,
        "capture_count": None,
        "state_update_active": None,
    }


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(
    "inputs",
    [
        gated_inputs(6),
        gated_inputs(BATCH, 3),
        gated_inputs(6, starts=[0, 4, 6]),
        gated_inputs(6, starts=[0, 0, 5, 6], state=False),
    ],
    ids=["uniform", "rank 4", "ragged", "ragged without state"],
)
def test_gated_delta_net_by_rule_and_packing(rule: str, inputs: dict[str, Any]) -> None:
    unused = {"decay": "gated", "beta": "delta"}
    given = {name: x if unused.get(name, "") in rule else None for name, x in inputs.items()}
    check("GatedDeltaNet", given, 2, update_rule=rule)


@pytest.mark.parametrize("width", [0, 4])
@pytest.mark.parametrize("activation", ["softplus", "qwen", "sigmoid", "kda"])
def test_gated_delta_net_computes_its_gates(activation: str, width: int) -> None:
    inputs = gated_inputs(6, width=width)
    inputs["a_log"], inputs["dt_bias"] = rand(4, seed=7), rand(4, *[width] * bool(width), seed=8)
    check("GatedDeltaNet", inputs, 2, gate_activation=activation, gate_lower_bound=-3.0)


def test_gated_delta_net_normalises_and_takes_the_sigmoid_of_beta() -> None:
    inputs = gated_inputs(6) | {"beta": rand(6, 4, seed=9), "key": rand(6, 2, 4, seed=9)}
    check("GatedDeltaNet", inputs, 2, qk_l2_norm=1, beta_activation="sigmoid", scale=0.3)


def test_gated_delta_net_in_float16() -> None:
    check("GatedDeltaNet", gated_inputs(6, dtype=np.float16), 2, rtol=2e-3, atol=2e-3)


def test_gated_delta_net_in_bfloat16_is_that_of_float32() -> None:
    inputs = gated_inputs(6, dtype=BF16)
    y, state = run("GatedDeltaNet", inputs, 2)
    widened = {name: x.astype(np.float32) for name, x in inputs.items() if x is not None}
    wanted, last = check("GatedDeltaNet", gated_inputs(6) | widened, 2)
    assert y.dtype == BF16
    np.testing.assert_allclose(y.astype(np.float32), wanted, rtol=1e-2, atol=1e-2)
    np.testing.assert_allclose(state, last, rtol=1e-5, atol=1e-5)


def test_gated_delta_net_takes_queries_keys_and_values_in_one() -> None:
    inputs = gated_inputs(6)
    parts = [inputs[name].reshape(6, -1) for name in ("query", "key", "value")]
    separate = run("GatedDeltaNet", inputs, 2)
    packed = inputs | {"query": np.concatenate(parts, axis=1), "key": None, "value": None}
    for a, b in zip(check("GatedDeltaNet", packed, 2), separate, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("width", [0, 4])
@pytest.mark.parametrize("active", [None, 0, 1])
def test_gated_delta_net_captures_transitions(width: int, active: int | None) -> None:
    inputs = gated_inputs(7, starts=[0, 4, 7], width=width)
    inputs["capture_count"] = np.array([2, 5], np.int32)
    inputs["state_update_active"] = None if active is None else np.array([active], np.int32)
    *_, update = run("GatedDeltaNet", inputs, 3, state_update_capacity=3)
    parts = np.split(update, np.cumsum([12 * max(width, 1), 24]), axis=1)
    decay, keys, changes = (x.reshape(2, 3, n, -1) for x, n in zip(parts, (4, 2, 4), strict=True))
    if active == 0:
        assert not update.any()
        return
    for b, start, counted in ((0, 0, 2), (1, 4, 3)):  # replayed, they give the state after so many tokens
        state = np.swapaxes(inputs["initial_state"][b], 1, 2)
        for t in range(counted):
            shared = np.repeat(keys[b, t], 2, axis=0)
            state = state * decay[b, t][..., None] + shared[..., None] * changes[b, t][:, None]
        chosen = {
            name: x[start : start + counted].copy() if x is not None and name in DRIVEN else None
            for name, x in inputs.items()
        }
        chosen["initial_state"] = inputs["initial_state"][b : b + 1].copy()
        _, wanted = check("GatedDeltaNet", chosen, 2)
        np.testing.assert_allclose(np.swapaxes(state[None], 2, 3), wanted, rtol=1e-5, atol=1e-6)


DRIVEN = ("query", "key", "value", "decay", "beta")


@pytest.mark.parametrize(
    ("changed", "settings", "word"),
    [
        ({"value": rand(6, 3, 6)}, {}, "values"),
        ({"initial_state": None}, {}, "initial_state"),
        ({"cu_seqlens": np.array([0, 7, 6], np.int32)}, {}, "cu_seqlens"),
        ({"decay": rand(6, 3)}, {}, "decay"),
        ({}, {"gate_activation": "softplus"}, "a_log"),
        ({}, {"state_update_capacity": 2}, "capture_count"),
    ],
)
def test_gated_delta_net_says_what_is_wrong(
    changed: dict[str, Any], settings: dict[str, Any], word: str
) -> None:
    with pytest.raises(EpkitError, match=word):
        run("GatedDeltaNet", gated_inputs(6) | changed, 2, **settings)


# ---- CausalConvWithState


def conv_inputs(length: int, taps: int = 4, dilation: int = 1, dtype: Any = np.float32) -> dict[str, Any]:
    return {
        "input": rand(BATCH, 6, length, seed=1, dtype=dtype),
        "weight": rand(6, 1, taps, seed=2, dtype=dtype),
        "bias": rand(6, seed=3, dtype=dtype),
        "past_state": rand(BATCH, 6, (taps - 1) * dilation, seed=4, dtype=dtype),
    }


@pytest.mark.parametrize("activation", ["none", "silu", "swish"])
@pytest.mark.parametrize("length", [1, 2, 7])
def test_causal_conv(activation: str, length: int) -> None:
    check("CausalConvWithState", conv_inputs(length), 2, activation=activation)


@pytest.mark.parametrize("taps", [1, 3])
@pytest.mark.parametrize("dilation", [1, 2, 3])
@pytest.mark.parametrize("last", [0, 1])
def test_causal_conv_taps_dilation_and_layout(taps: int, dilation: int, last: int) -> None:
    inputs = conv_inputs(5, taps, dilation)
    if last:
        for name in ("input", "past_state"):
            inputs[name] = np.ascontiguousarray(np.swapaxes(inputs[name], 1, 2))
    check("CausalConvWithState", inputs, 2, dilation=dilation, channels_last=last)


def test_causal_conv_of_channels_on_two_axes_without_bias_and_past() -> None:
    inputs = conv_inputs(5) | {"bias": None, "past_state": None, "input": rand(BATCH, 5, 2, 3)}
    check("CausalConvWithState", inputs, 2, channels_last=1)


@pytest.mark.parametrize("length", [1, 2, 7])
@pytest.mark.parametrize("last", [0, 1])
def test_causal_conv_keeps_a_window_of_states(length: int, last: int) -> None:
    inputs = conv_inputs(length)
    past = rand(3, BATCH, 6, 3, seed=5)
    given = inputs | {"past_state": past}
    if last:
        given |= {
            name: np.ascontiguousarray(np.swapaxes(given[name], -1, -2)) for name in ("input", "past_state")
        }
    _, present = run("CausalConvWithState", given, 2, state_window=3, channels_last=last)
    present = np.swapaxes(present, -1, -2) if last else present
    for slot in range(3):
        prefix = length - 2 + slot  # the slot holds the state after so many tokens
        if prefix < 1:
            assert not present[slot].any()
            continue
        first = inputs | {"input": inputs["input"][:, :, :prefix].copy(), "past_state": past[-1]}
        np.testing.assert_array_equal(present[slot], check("CausalConvWithState", first, 2)[1])


@pytest.mark.parametrize(("dtype", "bound"), [(np.float16, 4e-3), (BF16, 4e-2)], ids=["float16", "bfloat16"])
def test_causal_conv_in_narrow_types_is_that_of_float32(dtype: Any, bound: float) -> None:
    inputs = conv_inputs(5, dtype=dtype)
    narrow = run("CausalConvWithState", inputs, 2)
    wide = check("CausalConvWithState", {name: x.astype(np.float32) for name, x in inputs.items()}, 2)
    for a, b in zip(narrow, wide, strict=True):
        assert a.dtype == dtype
        np.testing.assert_allclose(a.astype(np.float32), b, rtol=bound, atol=bound)


@pytest.mark.parametrize(
    ("settings", "word"),
    [({"ndim": 2}, "ndim"), ({"activation": "tanh"}, "activation"), ({"dilation": 0}, "dilation")],
)
def test_causal_conv_says_what_is_wrong(settings: dict[str, Any], word: str) -> None:
    with pytest.raises(EpkitError, match=word):
        run("CausalConvWithState", conv_inputs(5), 2, **settings)
