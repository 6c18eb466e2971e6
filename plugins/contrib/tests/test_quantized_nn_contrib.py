"""Quantised layers against onnxruntime."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from versus import agree, ours

import epkit

F = np.float32
BYTES = [np.int8, np.uint8]
R = np.random.default_rng(3)


def f(value: float) -> Any:
    return np.array(value, F)


def codes(dtype: Any, *shape: int) -> Any:
    return np.random.default_rng(shape).integers(-100, 100, shape).astype(dtype)


def numbers(*shape: int) -> Any:
    return np.random.default_rng(shape).normal(size=shape).astype(F)


def scales(*shape: int) -> Any:
    return (np.random.default_rng(shape).random(shape) * 0.01 + 0.001).astype(F)


BATCH, STEPS, SIZE, HIDDEN, HEADS = 2, 4, 12, 16, 2


@pytest.mark.parametrize("dtype", BYTES)
@pytest.mark.parametrize(
    "mask, past, attributes",
    [
        (None, 0, {}),
        (None, 0, {"unidirectional": 1, "scale": 0.3}),
        ([2, 4], 0, {"mask_filter_value": -50.0}),
        ([2, 4, 0, 1], 0, {}),
        ([[1, 1, 0, 1], [0, 1, 1, 1]], 0, {"unidirectional": 1}),
        (R.integers(0, 2, (BATCH, STEPS, STEPS)), 0, {}),
        (None, 3, {"unidirectional": 1}),
        (R.integers(0, 2, (BATCH, STEPS + 3)), 3, {}),
    ],
)
def test_attention(dtype: Any, mask: Any, past: int, attributes: dict[str, Any]) -> None:
    x, w = codes(np.uint8, BATCH, STEPS, SIZE), codes(dtype, SIZE, 3 * HIDDEN)
    mask = None if mask is None else np.array(mask, np.int32)
    before = numbers(2, BATCH, HEADS, past, HIDDEN // HEADS) if past else None
    for scale, zero in ((f(0.01), np.array(3, dtype)), (scales(3 * HIDDEN), codes(dtype, 3 * HIDDEN))):
        args = x, w, numbers(3 * HIDDEN), f(0.02), scale, mask, np.array(5, np.uint8), zero, before
        agree("QAttention", *args, num_heads=HEADS, outputs=2, rtol=1e-4, atol=1e-5, **attributes)


def test_attention_of_int8_is_that_of_the_same_numbers() -> None:
    x, w, bias = (
        codes(np.uint8, BATCH, STEPS, SIZE) // 2,
        codes(np.int8, SIZE, 3 * HIDDEN),
        numbers(3 * HIDDEN),
    )
    found, expected = (
        ours("QAttention", x.astype(kind), w, bias, f(0.02), f(0.01), num_heads=HEADS)
        for kind in (np.int8, np.uint8)
    )
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("past", [0, 3])
def test_attention_turns_queries_and_keys(past: int) -> None:
    """onnxruntime's CPU reads do_rotary and ignores it; the same numbers in Attention say what it is."""
    x, w, bias = codes(np.uint8, BATCH, STEPS, SIZE), codes(np.int8, SIZE, 3 * HIDDEN), numbers(3 * HIDDEN)
    before = numbers(2, BATCH, HEADS, past, HIDDEN // HEADS) if past else None
    how = {"num_heads": HEADS, "do_rotary": 1, "unidirectional": 1, "outputs": 2}
    found = ours("QAttention", x, w, bias, f(0.02), f(0.01), None, np.array(5, np.uint8), None, before, **how)
    real = (x.astype(np.float32) - 5) * np.float32(0.02), w.astype(np.float32) * np.float32(0.01)
    wanted = ours("Attention", *real, bias, None, before, **how)
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


def test_attention_refuses_masks_that_do_not_fit() -> None:
    x, w = codes(np.uint8, BATCH, STEPS, SIZE), codes(np.int8, SIZE, 3 * HIDDEN)
    mask = np.zeros((3, 3), np.int32)
    with pytest.raises(epkit.EpkitError, match=r"mask_index of shape \(3, 3\)"):
        ours("QAttention", x, w, numbers(3 * HIDDEN), f(1), f(1), mask, num_heads=HEADS)


@pytest.mark.parametrize("dtype", BYTES)
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize(
    "columns, lengths, states, attributes",
    [
        (False, None, False, {}),
        (True, None, True, {"clip": 0.5, "input_forget": 1}),
        (False, [5, 3, 2], True, {}),
        (True, [4, 3, 2], False, {"activations": ["HardSigmoid", "Tanh", "Relu"]}),
    ],
)
def test_lstm(
    dtype: Any, direction: str, columns: bool, lengths: Any, states: bool, attributes: dict[str, Any]
) -> None:
    steps, batch, size, n = 5, 3, 6, 4
    d = 2 if direction == "bidirectional" else 1
    shape = (d, 4 * n) if columns else (d,)
    zero = 0 if columns else 3  # all that onnxruntime takes
    lengths = None if lengths is None else np.array(lengths, np.int32)
    quantities = scales(*shape), np.full(shape, zero, dtype)
    given = (numbers(d, batch, n), -numbers(d, batch, n), numbers(d, 3 * n)) if states else (None, None, None)
    if "activations" in attributes:
        attributes = {"activations": attributes["activations"] * d}
    agree(
        "DynamicQuantizeLSTM", numbers(steps, batch, size), codes(dtype, d, size, 4 * n),
        codes(dtype, d, n, 4 * n), numbers(d, 8 * n), lengths, *given, *quantities, *quantities,
        constants=(1, 2, 8, 9, 10, 11), outputs=3, rtol=1e-4, atol=1e-5, hidden_size=n, direction=direction,
        **attributes,
    )  # fmt: skip


@pytest.mark.parametrize("x_type, w_type", [(np.uint8, np.uint8), (np.uint8, np.int8), (np.int8, np.int8)])
@pytest.mark.parametrize("last", [0, 1])
@pytest.mark.parametrize(
    "attributes",
    [
        {},
        {"strides": [2, 1], "pads": [1, 0, 1, 2]},
        {"group": 2},
        {"auto_pad": "SAME_UPPER"},
        {"dilations": [2, 1]},
    ],
)
def test_convolution(x_type: Any, w_type: Any, last: int, attributes: dict[str, Any]) -> None:
    x = codes(x_type, 2, 7, 6, 4) if last else codes(x_type, 2, 4, 7, 6)
    w = codes(w_type, 6, 4 // attributes.get("group", 1), 3, 2)
    zeros = np.full(6, 0 if w_type == np.int8 else 128, w_type)
    bias = R.integers(-500, 500, 6).astype(np.int32)
    args = x, f(0.0213), np.array(7, x_type), w, scales(6), zeros, f(0.0317), np.array(9, x_type), bias
    agree("QLinearConv", *args, channels_last=last, constants=range(1, 9), **attributes)


@pytest.mark.parametrize("segmented", [True, False])
def test_embedding(segmented: bool) -> None:
    def table(rows: int) -> Any:
        return np.random.default_rng(rows).integers(0, 256, (rows, 6)).astype(np.uint8)

    def zero(value: int) -> Any:
        return np.array(value, np.uint8)

    ids = R.integers(0, 10, (2, 4)).astype(np.int32)
    mask = np.array([[1, 1, 0, 0], [1, 1, 1, 1]], np.int32)
    args = [
        ids, ids % 2, table(10), table(8), table(2), table(1)[0], table(1)[0][::-1].copy(), mask,
        f(0.02), f(0.03), f(0.01), f(0.05), f(0.04), zero(100), zero(90), zero(120), zero(7), zero(9),
    ]  # fmt: skip
    if not segmented:
        for i in (1, 4, 7, 10, 15):
            args[i] = None
    agree("QEmbedLayerNormalization", *args, outputs=2, rtol=1e-5, atol=1e-5, epsilon=1e-3)
    args[0] = ids + 10
    with pytest.raises(epkit.EpkitError, match="word_embedding"):
        ours("QEmbedLayerNormalization", *args, outputs=2)
