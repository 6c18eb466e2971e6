"""DecoderMaskedMultiHeadAttention against onnxruntime; DecoderMaskedSelfAttention against its Attention."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from contrib_node import rand, run, run_ort

from epkit.errors import EpkitError

OPERATOR = "DecoderMaskedMultiHeadAttention"
NAMES = (
    "query",
    "key",
    "value",
    "mask_index",
    "attention_bias",
    "past_key",
    "past_value",
    "past_sequence_length",
    "beam_width",
    "cache_indirection",
    "bias",
)
BATCH, HEADS, SIZE, CAPACITY, USED = 4, 2, 8, 6, 4
WIDTH = HEADS * SIZE
QUERY, KEY, VALUE = (rand(BATCH, 1, WIDTH, seed=seed) for seed in range(3))
BUFFERS = [rand(BATCH, HEADS, CAPACITY, SIZE, seed=seed) for seed in (4, 5)]
for buffer in BUFFERS:
    buffer[:, :, USED:] = 0
BEAMS = np.random.default_rng(0).integers(0, 2, (BATCH // 2, 2, CAPACITY)).astype(np.int32)
SHARED = {"y1": "past_key", "y2": "past_value"}


def ints(*values: int) -> Any:
    return np.array(values, np.int32)


def given(**inputs: Any) -> dict[str, Any]:
    return {name: inputs.get(name) for name in NAMES}


def with_buffer(**inputs: Any) -> dict[str, Any]:
    return given(
        **{
            "query": QUERY,
            "key": KEY,
            "value": VALUE,
            "past_key": BUFFERS[0],
            "past_value": BUFFERS[1],
            "past_sequence_length": ints(USED),
        }
        | inputs
    )


def agree(inputs: dict[str, Any], outputs: Any, shared: Any = None, **attributes: Any) -> None:
    wanted = run_ort(OPERATOR, inputs, outputs, num_heads=HEADS, shared=shared, **attributes)
    found = run(OPERATOR, inputs, outputs, num_heads=HEADS, **attributes)
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "inputs",
    [
        {},
        {"mask_index": np.array([[1, 0, 1, 1, 1]] * BATCH, np.int32)},
        {"attention_bias": rand(1, HEADS, 1, USED + 1)},
        {"beam_width": ints(2), "cache_indirection": BEAMS},
        {"beam_width": ints(2), "cache_indirection": BEAMS, "attention_bias": rand(1, HEADS, 1, USED + 1)},
        {"bias": rand(3 * WIDTH)},
        {"past_sequence_length": ints(0)},
    ],
    ids=["plain", "mask", "added", "beams", "beams, added", "bias", "first token"],
)
def test_one_token_attends_to_its_past_in_a_buffer(inputs: dict[str, Any]) -> None:
    agree(with_buffer(**inputs), 3, SHARED, past_present_share_buffer=1)


def test_one_token_attends_with_another_scale_and_gives_its_scores() -> None:
    agree(with_buffer(), 4, SHARED, past_present_share_buffer=1, scale=0.7, output_qk=1)


@pytest.mark.parametrize(
    "inputs",
    [{}, {"mask_index": (rand(BATCH, CAPACITY) > 0).astype(np.int32)}, {"bias": rand(3 * WIDTH)}],
    ids=["plain", "mask", "bias"],
)
def test_one_token_attends_to_an_encoder(inputs: dict[str, Any]) -> None:
    crossed = given(query=QUERY, key=BUFFERS[0], value=BUFFERS[1], **inputs)
    agree(crossed, ["y", "", "", "qk"], output_qk=1)


@pytest.mark.parametrize("used", [0, USED])
def test_a_growing_past_gives_what_the_buffer_gives(used: int) -> None:
    wanted = run(
        OPERATOR,
        with_buffer(past_sequence_length=ints(used)),
        3,
        num_heads=HEADS,
        past_present_share_buffer=1,
    )
    keys, values = (buffer[:, :, :used].copy() if used else None for buffer in BUFFERS)
    inputs = with_buffer(past_key=keys, past_value=values, past_sequence_length=None)
    y, *presents = run(OPERATOR, inputs, 3, num_heads=HEADS)
    np.testing.assert_array_equal(y, wanted[0])
    for found, whole in zip(presents, wanted[1:], strict=True):
        np.testing.assert_array_equal(found, whole[:, :, : used + 1])


def test_queries_keys_and_values_may_come_in_one() -> None:
    packed = with_buffer(query=np.concatenate([QUERY, KEY, VALUE], axis=2), key=None, value=None)
    for found, wanted in zip(
        run(OPERATOR, packed, 3, num_heads=HEADS, past_present_share_buffer=1),
        run(OPERATOR, with_buffer(), 3, num_heads=HEADS, past_present_share_buffer=1),
        strict=True,
    ):
        np.testing.assert_array_equal(found, wanted)


# ---- DecoderMaskedSelfAttention

X, WEIGHTS, BIAS = rand(BATCH, 1, 12), rand(12, 3 * WIDTH), rand(3 * WIDTH)
PAST = rand(2, BATCH, HEADS, USED, SIZE, seed=9)
SELF_NAMES = ("input", "weights", "bias", "mask_index", "past", "attention_bias", "past_sequence_length")


def self_inputs(**inputs: Any) -> dict[str, Any]:
    plain = {"input": X, "weights": WEIGHTS, "bias": BIAS, "past": PAST, "past_sequence_length": ints(USED)}
    return {name: (plain | inputs).get(name) for name in SELF_NAMES}


@pytest.mark.parametrize(
    ("inputs", "attributes"),
    [
        ({}, {}),
        ({"mask_index": (rand(BATCH, USED + 1) > -0.5).astype(np.int32)}, {"mask_filter_value": -3.0}),
        ({"attention_bias": rand(1, HEADS, 1, USED + 1)}, {"scale": 0.4}),
    ],
    ids=["plain", "mask", "added"],
)
def test_self_attention_of_one_token(inputs: dict[str, Any], attributes: dict[str, Any]) -> None:
    """onnxruntime's CPU has it in two parts: the projection, and MultiHeadAttention with a past."""
    grown = self_inputs(**inputs)
    query, key, value = (np.ascontiguousarray(part) for part in np.split(X @ WEIGHTS + BIAS, 3, axis=2))
    plain = {
        "query": query,
        "key": key,
        "value": value,
        "bias": None,
        "mask": grown["mask_index"],
        "added": grown["attention_bias"],
        "past_key": PAST[0],
        "past_value": PAST[1],
    }
    wanted, *presents = run_ort("MultiHeadAttention", plain, 3, num_heads=HEADS, **attributes)
    y, present = run("DecoderMaskedSelfAttention", grown, 2, num_heads=HEADS, **attributes)
    np.testing.assert_allclose(y, wanted, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(present, np.stack(presents), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("rotary", [0, 1])
def test_self_attention_in_a_buffer_of_reordered_keys(rotary: int) -> None:
    """A buffer holds keys as (batch, heads, size / 4, capacity, 4), values as ever."""
    wanted = run("DecoderMaskedSelfAttention", self_inputs(), 2, num_heads=HEADS, do_rotary=rotary)
    whole = np.zeros((2, BATCH, HEADS, CAPACITY, SIZE), np.float32)
    whole[:, :, :, :USED] = PAST

    def reordered(keys: Any) -> Any:
        cut = keys.reshape(BATCH, HEADS, CAPACITY, SIZE // 4, 4)
        return np.swapaxes(cut, 2, 3).reshape(keys.shape)

    inputs = self_inputs(past=np.stack([reordered(whole[0]), whole[1]]))
    y, present = run(
        "DecoderMaskedSelfAttention",
        inputs,
        2,
        num_heads=HEADS,
        do_rotary=rotary,
        past_present_share_buffer=1,
    )
    np.testing.assert_allclose(y, wanted[0], rtol=1e-6, atol=1e-6)
    after = np.zeros_like(whole)
    after[:, :, :, : USED + 1] = wanted[1]
    np.testing.assert_allclose(present, np.stack([reordered(after[0]), after[1]]), rtol=1e-6)


@pytest.mark.parametrize(
    ("operator", "inputs", "message"),
    [
        (OPERATOR, with_buffer(query=rand(BATCH, 2, WIDTH)), "one token"),
        (OPERATOR, with_buffer(value=None), "value"),
        (OPERATOR, with_buffer(past_sequence_length=ints(CAPACITY)), "too short|past"),
        ("DecoderMaskedSelfAttention", self_inputs(past=PAST[:1]), "past"),
        ("DecoderMaskedSelfAttention", self_inputs(weights=rand(11, 3 * WIDTH)), "weights"),
    ],
)
def test_refusals(operator: str, inputs: dict[str, Any], message: str) -> None:
    with pytest.raises(EpkitError, match=message):
        run(operator, inputs, 2, num_heads=HEADS, past_present_share_buffer=int(operator == OPERATOR))
