"""MultiHeadAttention and Attention against onnxruntime, over their inputs and attributes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from contrib_node import BF16, check, rand, run, run_ort

from epkit.errors import EpkitError

Q, K, V = rand(2, 5, 32), rand(2, 7, 32), rand(2, 7, 32, seed=1)
PAST_KEY, PAST_VALUE = rand(2, 4, 3, 8), rand(2, 4, 3, 8, seed=1)
LENGTHS = np.array([5, 7], np.int32)
NAMES = ("query", "key", "value", "bias", "key_padding_mask", "attention_bias", "past_key", "past_value")


def multi_head(**given: Any) -> dict[str, Any]:
    return {name: given.get(name) for name in NAMES}


SELF = {"query": Q, "key": Q + 1, "value": Q + 2}
CROSS = {"query": Q, "key": K, "value": V}
MULTI_HEAD: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "cross": (CROSS, {}),
    "bias": ({**CROSS, "bias": rand(96)}, {}),
    "lengths": ({**CROSS, "key_padding_mask": LENGTHS}, {}),
    "lengths and starts": ({**CROSS, "key_padding_mask": np.array([0, 5, 12, 0, 7, 14, 5, 7], np.int32)}, {}),
    "keys hidden": ({**CROSS, "key_padding_mask": (rand(2, 7) > 0).astype(np.int32)}, {}),
    "pairs hidden": ({**CROSS, "key_padding_mask": (rand(2, 5, 7) > -1).astype(np.int32)}, {}),
    "hidden a little": ({**CROSS, "key_padding_mask": LENGTHS}, {"mask_filter_value": -1.5}),
    "added": ({**CROSS, "attention_bias": rand(1, 4, 5, 7)}, {}),
    "added to each": ({**CROSS, "attention_bias": rand(2, 1, 5, 7)}, {}),
    "scale": (CROSS, {"scale": 0.5}),
    "causal": (SELF, {"unidirectional": 1}),
    "past": ({**SELF, "past_key": PAST_KEY, "past_value": PAST_VALUE}, {}),
    "causal past": ({**SELF, "past_key": PAST_KEY, "past_value": PAST_VALUE}, {"unidirectional": 1}),
    "causal lengths": ({**SELF, "key_padding_mask": np.array([5, 3], np.int32)}, {"unidirectional": 1}),
    "wider values": ({"query": Q, "key": K, "value": rand(2, 7, 48)}, {}),
}


@pytest.mark.parametrize("name", MULTI_HEAD)
def test_multi_head_attention(name: str) -> None:
    """With the keys and values to go on from, and the scores."""
    inputs, attributes = MULTI_HEAD[name]
    check("MultiHeadAttention", multi_head(**inputs), 4, num_heads=4, **attributes, atol=2e-5)


PACKED = rand(2, 5, 4, 3, 8)
PACKED_KEYS = rand(2, 7, 4, 2, 8)


@pytest.mark.parametrize(
    "inputs",
    [
        {"query": PACKED},
        {"query": PACKED, "bias": rand(96)},
        {"query": Q, "key": PACKED_KEYS},
        {"query": Q, "key": rand(2, 4, 7, 8), "value": rand(2, 4, 7, 8, seed=1)},
    ],
    ids=["all in one", "all in one, bias", "keys with values", "keys by head"],
)
def test_multi_head_attention_of_packed_inputs_is_that_of_separate_ones(inputs: dict[str, Any]) -> None:
    """onnxruntime's CPU knows the separate form only (and keys by head)."""
    query, key, value = inputs["query"], inputs.get("key"), inputs.get("value")
    if query.ndim == 5:
        query, key, value = (query[:, :, :, i].reshape(2, 5, 32) for i in range(3))
    elif key.ndim == 5:
        key, value = (key[:, :, :, i].reshape(2, 7, 32) for i in range(2))
    else:
        key, value = (np.swapaxes(x, 1, 2).reshape(2, 7, 32) for x in (key, value))
    plain = multi_head(query=query.copy(), key=key.copy(), value=value.copy(), bias=inputs.get("bias"))
    wanted = run_ort("MultiHeadAttention", plain, num_heads=4)
    found = run("MultiHeadAttention", multi_head(**inputs), num_heads=4)
    np.testing.assert_allclose(found[0], wanted[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("dtype", "bound"), [(np.float16, 4e-3), (BF16, 3e-2)], ids=["float16", "bfloat16"])
def test_attention_in_narrow_types_is_that_of_float32(dtype: Any, bound: float) -> None:
    narrow = multi_head(**{name: x.astype(dtype) for name, x in SELF.items()})
    widened = {name: x if x is None else x.astype(np.float32) for name, x in narrow.items()}
    found = run("MultiHeadAttention", narrow, num_heads=4, unidirectional=1)[0]
    assert found.dtype == dtype
    wanted = run_ort("MultiHeadAttention", widened, num_heads=4, unidirectional=1)[0]
    np.testing.assert_allclose(found.astype(np.float32), wanted, rtol=bound, atol=bound)


# ---- Attention

X, WEIGHTS, BIAS = rand(2, 5, 16), rand(16, 48, scale=0.5), rand(48)
PAST = rand(2, 2, 4, 3, 4)
ATTENTION: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "plain": ({}, {}),
    "without bias": ({"bias": None}, {}),
    "lengths": ({"mask_index": np.array([4, 5], np.int32)}, {}),
    "ends and starts": ({"mask_index": np.array([4, 5, 1, 2], np.int32)}, {}),
    "keys hidden": ({"mask_index": np.array([[1, 0, 1, 1, 0], [1, 1, 0, 1, 1]], np.int32)}, {}),
    "pairs hidden": ({"mask_index": (rand(2, 5, 5) > -1).astype(np.int32)}, {}),
    "a little": ({"mask_index": np.array([4, 5], np.int32)}, {"mask_filter_value": -2.0}),
    "causal": ({}, {"unidirectional": 1}),
    "causal, keys hidden": (
        {"mask_index": np.array([[0, 1, 1, 1, 1], [0, 0, 1, 1, 1]], np.int32)},
        {"unidirectional": 1},
    ),
    "past": ({"past": PAST}, {}),
    "causal past": ({"past": PAST}, {"unidirectional": 1}),
    "past, keys hidden": ({"past": PAST, "mask_index": (rand(2, 8) > -0.5).astype(np.int32)}, {}),
    "added": ({"attention_bias": rand(1, 4, 5, 5)}, {}),
    "scale": ({}, {"scale": 0.3}),
    "sizes": ({"weights": rand(16, 56), "bias": rand(56)}, {"qkv_hidden_sizes": [16, 16, 24]}),
}


@pytest.mark.parametrize("name", ATTENTION)
def test_attention(name: str) -> None:
    inputs, attributes = ATTENTION[name]
    outputs = 1 if name == "sizes" else 2
    given = {
        "input": X,
        "weights": WEIGHTS,
        "bias": BIAS,
        "mask_index": None,
        "past": None,
        "attention_bias": None,
    }
    check("Attention", given | inputs, outputs, num_heads=4, **attributes, atol=2e-5, rtol=1e-4)


def test_multi_head_attention_in_a_shared_buffer() -> None:
    one = {name: rand(2, 1, 32, seed=i) for i, name in enumerate(("query", "key", "value"))}
    buffers = {"past_key": rand(2, 4, 6, 8), "past_value": rand(2, 4, 6, 8, seed=1)}
    inputs = multi_head(**one, **buffers) | {"past_sequence_length": np.array([3], np.int32)}
    shared = {"y1": "past_key", "y2": "past_value"}
    wanted = run_ort("MultiHeadAttention", inputs, 3, num_heads=4, shared=shared)
    for a, b in zip(run("MultiHeadAttention", inputs, 3, num_heads=4), wanted, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("masked", [False, True])
def test_attention_in_a_shared_buffer_is_that_with_a_growing_past(masked: bool) -> None:
    """Which onnxruntime's CPU declares and does not run."""
    buffer = np.zeros((2, 2, 4, 9, 4), np.float32)
    buffer[:, :, :, :3] = PAST
    mask = (rand(2, 8) > -0.5).astype(np.int32) if masked else None
    grown = {"input": X, "weights": WEIGHTS, "bias": BIAS, "mask_index": mask, "past": PAST}
    wanted = check("Attention", grown, 2, num_heads=4, unidirectional=1, atol=2e-5)
    inputs = grown | {"past": buffer, "added": None, "past_sequence_length": np.array([3], np.int32)}
    y, present = run("Attention", inputs, 2, num_heads=4, unidirectional=1, past_present_share_buffer=1)
    np.testing.assert_allclose(y, wanted[0], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(present[:, :, :, :8], wanted[1], rtol=1e-5, atol=1e-5)
    assert present.shape == buffer.shape


@pytest.mark.parametrize("dimension", [0, 2])
def test_attention_turns_queries_and_keys_by_their_positions(dimension: int) -> None:
    """Which onnxruntime's CPU leaves to others: here the turn is written out, in float64."""
    parts = [(X @ WEIGHTS + BIAS)[..., start : start + 16].reshape(2, 5, 4, 4) for start in (0, 16, 32)]
    size = dimension or 4
    angle = np.arange(5)[:, None, None] * 10000.0 ** (-2 * np.arange(size // 2) / size)
    for part in parts[:2]:
        a, b = part[..., : size // 2].astype(float), part[..., size // 2 : size].astype(float)
        part[..., : size // 2] = a * np.cos(angle) - b * np.sin(angle)
        part[..., size // 2 : size] = b * np.cos(angle) + a * np.sin(angle)
    plain = multi_head(
        **dict(zip(("query", "key", "value"), (x.reshape(2, 5, 16) for x in parts), strict=True))
    )
    wanted = run_ort("MultiHeadAttention", plain, num_heads=4, unidirectional=1)[0]
    inputs = {"input": X, "weights": WEIGHTS, "bias": BIAS}
    found = run(
        "Attention", inputs, num_heads=4, unidirectional=1, do_rotary=1, rotary_embedding_dim=dimension
    )[0]
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize(
    ("operator", "inputs", "message"),
    [
        ("MultiHeadAttention", multi_head(query=Q), "key"),
        ("MultiHeadAttention", multi_head(query=Q, key=K, value=rand(2, 6, 32)), "fit together"),
        ("MultiHeadAttention", multi_head(**CROSS, bias=rand(95)), "bias"),
        ("MultiHeadAttention", multi_head(**CROSS, past_key=PAST_KEY), "past_value"),
        ("Attention", {"input": X, "weights": rand(15, 48)}, "weights"),
        ("Attention", {"input": X, "weights": rand(16, 50)}, "weights"),
        (
            "Attention",
            {"input": X, "weights": WEIGHTS, "b": None, "mask": None, "past": rand(2, 2, 4)},
            "past",
        ),
    ],
)
def test_refusals(operator: str, inputs: dict[str, Any], message: str) -> None:
    with pytest.raises(EpkitError, match=message):
        run(operator, inputs, num_heads=4)
