"""PackedAttention and PackedMultiHeadAttention against onnxruntime's attention of padded sequences."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from contrib_node import BF16, rand, run, run_ort
from hypothesis import given, settings
from hypothesis import strategies as st

from epkit.errors import EpkitError

HEADS, WIDTH = 4, 16


def layout(counts: list[int], length: int) -> tuple[Any, Any, Any]:
    """Where tokens are (batch, length) before packing, the places of real tokens first; their sums; a mask."""
    real = np.arange(length)[None] < np.array(counts)[:, None]
    places = np.arange(real.size).reshape(real.shape)
    offsets = np.concatenate([places[real], places[~real]]).reshape(real.shape)
    sums = np.concatenate([[0], np.cumsum(counts)])
    return offsets.astype(np.int32), sums.astype(np.int32), real


def packed_inputs(counts: list[int], length: int, kind: str, bias: Any = None) -> tuple[dict[str, Any], Any]:
    """Inputs of PackedAttention, or of PackedMultiHeadAttention; and what onnxruntime makes of them with padding."""
    offsets, sums, real = layout(counts, length)
    where = {"token_offset": offsets, "cumulative_sequence_length": sums}
    lengths = np.array(counts, np.int32)
    if kind == "projected":
        x, weights, added = rand(len(counts), length, 12), rand(12, 3 * WIDTH), rand(3 * WIDTH)
        plain = {"input": x, "weights": weights, "bias": added}
        padded = plain | {"mask_index": lengths, "past": None, "attention_bias": bias}
        inputs = plain | {"input": x[real]} | where | {"attention_bias": bias}
        return inputs, run_ort("Attention", padded, num_heads=HEADS, mask_filter_value=-1e30)[0][real]
    parts = {
        name: rand(len(counts), length, WIDTH, seed=i) for i, name in enumerate(("query", "key", "value"))
    }
    added = rand(3 * WIDTH)
    padded = parts | {"bias": added, "key_padding_mask": lengths, "attention_bias": bias}
    wanted = run_ort("MultiHeadAttention", padded, num_heads=HEADS, mask_filter_value=-1e30)[0][real]
    inputs = {name: x[real] for name, x in parts.items()} | {"bias": added} | where | {"attention_bias": bias}
    if kind == "in one":
        rows = [inputs[name].reshape(-1, HEADS, WIDTH // HEADS) for name in parts]
        inputs |= {"query": np.stack(rows, axis=2), "key": None, "value": None}
    return inputs, wanted


OPERATORS = {
    "projected": "PackedAttention",
    "separate": "PackedMultiHeadAttention",
    "in one": "PackedMultiHeadAttention",
}


@pytest.mark.parametrize("kind", OPERATORS)
@given(counts=st.lists(st.integers(1, 5), min_size=1, max_size=4), room=st.integers(0, 2))
@settings(max_examples=8, deadline=None)
def test_packed_attention_is_that_of_padded_sequences(kind: str, counts: list[int], room: int) -> None:
    inputs, wanted = packed_inputs(counts, max(counts) + room, kind)
    found = run(OPERATORS[kind], inputs, num_heads=HEADS)[0]
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("kind", OPERATORS)
@pytest.mark.parametrize("shape", [(1, HEADS), (3, 1), (3, HEADS)], ids=str)
def test_packed_attention_with_a_bias(kind: str, shape: tuple[int, int]) -> None:
    inputs, wanted = packed_inputs([1, 2, 4], 4, kind, rand(*shape, 4, 4))
    found = run(OPERATORS[kind], inputs, num_heads=HEADS)[0]
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=2e-5)


def test_packed_attention_of_values_of_another_width() -> None:
    inputs, _ = packed_inputs([2, 3], 3, "projected")
    weights, bias = rand(12, 40), rand(40)
    wide = inputs | {"weights": weights, "bias": bias}
    found = run("PackedAttention", wide, num_heads=HEADS, qkv_hidden_sizes=[16, 16, 8], scale=0.3)[0]
    parts = np.split(inputs["input"] @ weights + bias, [16, 32], axis=1)
    separate = dict(zip(("query", "key", "value"), parts, strict=True)) | {"bias": None}
    where = {name: inputs[name] for name in ("token_offset", "cumulative_sequence_length")}
    wanted = run("PackedMultiHeadAttention", separate | where, num_heads=HEADS, scale=0.3)[0]
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


def test_packed_attention_in_float16() -> None:
    inputs, wanted = packed_inputs([1, 3], 3, "separate")
    narrow = {
        name: x.astype(np.float16) if x is not None and x.dtype == np.float32 else x
        for name, x in inputs.items()
    }
    found = run("PackedMultiHeadAttention", narrow, num_heads=HEADS)[0]
    assert found.dtype == np.float16
    np.testing.assert_allclose(found.astype(np.float32), wanted, rtol=1e-2, atol=1e-2)
    with pytest.raises(EpkitError, match="bfloat16"):
        run("PackedMultiHeadAttention", narrow | {"query": narrow["query"].astype(BF16)}, num_heads=HEADS)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cumulative_sequence_length": np.array([0, 1, 5], np.int32)}, "cumulative_sequence_length"),
        ({"token_offset": np.array([[0, 1, 2], [3, 4, 50]], np.int32)[:, ::-1].copy()}, "token_offset"),
        ({"value": rand(3, WIDTH)}, "fit together"),
        ({"bias": rand(5)}, "bias"),
        ({"attention_bias": rand(3, 1, 3, 3)}, "attention_bias"),
    ],
)
def test_refusals(change: dict[str, Any], message: str) -> None:
    inputs, _ = packed_inputs([2, 2], 3, "separate")
    with pytest.raises(EpkitError, match=message):
        run("PackedMultiHeadAttention", inputs | change, num_heads=HEADS)
