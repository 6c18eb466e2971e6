"""GreedySearch and Sampling against onnxruntime, around a tiny decoder."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper
from tiny_gpt import VOCABULARY, decoder, search_model

import epkit
from epkit.backend import Device, Devices, KernelProvider, portable_kernels
from epkit.errors import InvalidModelError
from epkit.testing.plugins import registry_of
from epkit_contrib import epkit_operators
from epkit_contrib.generation import INPUTS, SAMPLING_INPUTS

GREEDY = tuple(name for name, *_ in INPUTS)
SAMPLED = tuple(name for name, *_ in SAMPLING_INPUTS)
TOKENS: dict[str, int] = {"eos_token_id": VOCABULARY - 1, "pad_token_id": 0}
PROMPTS = np.array([[0, 3, 4], [5, 6, 7]], np.int32)


def ints(*values: int) -> Any:
    return np.array(values, np.int32)


def by_onnxruntime(model: onnx.ModelProto, feeds: dict[str, Any]) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
    return session.run(["sequences"], feeds)[0]


def greedy(feeds: dict[str, Any], subgraph: Any = None, **attributes: Any) -> Any:
    """The sequences by epkit, the same as by onnxruntime up to where all have ended; padding follows."""
    attributes = {**TOKENS, **attributes}
    opset = attributes.pop("opset", 17)
    model = search_model("GreedySearch", feeds, GREEDY, subgraph or decoder(), opset=opset, **attributes)
    found, wanted = epkit.load(model)(**feeds)["sequences"], by_onnxruntime(model, feeds)
    assert found.dtype == np.int32
    assert found.shape == wanted.shape
    written = np.nonzero((found != attributes["pad_token_id"]).any(axis=0))[0]
    width = max(feeds["input_ids"].shape[1], *(written + 1))  # onnxruntime leaves the rest as it finds it
    np.testing.assert_array_equal(found[:, :width], wanted[:, :width])
    return found


@pytest.mark.parametrize(
    ("layers", "outside", "opset"), [(1, False, 14), (2, False, 17), (2, True, 17), (1, True, 21)]
)
def test_greedy_search(layers: int, outside: bool, opset: int) -> None:
    feeds = {"input_ids": PROMPTS, "max_length": ints(12)}
    found = greedy(feeds, decoder(layers, seed=4, outside=outside), opset=opset)
    assert found.shape == (2, 12)


@given(
    st.integers(0, 10**6),
    st.integers(1, 3),
    st.integers(1, 4),
    st.integers(0, 8),
    st.integers(0, VOCABULARY - 1),
)
@settings(max_examples=8, deadline=None)
def test_greedy_search_of_any_prompt(seed: int, batch: int, length: int, more: int, eos: int) -> None:
    prompt = np.random.default_rng(seed).integers(0, VOCABULARY, (batch, length), dtype=np.int32)
    feeds = {"input_ids": prompt, "max_length": ints(length + 1 + more)}
    greedy(feeds, decoder(seed=seed), eos_token_id=eos, pad_token_id=0)


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("seed", range(2))
def test_greedy_search_repeats_no_runs_of_tokens(size: int, seed: int) -> None:
    length = {1: 9, 2: 12, 3: 12}[size]
    feeds = {"input_ids": PROMPTS, "max_length": ints(length)}
    found = greedy(feeds, decoder(seed=seed), no_repeat_ngram_size=size, eos_token_id=2)
    plain = greedy(feeds, decoder(seed=seed), eos_token_id=2)
    assert not np.array_equal(found, plain)


FILTERS: dict[str, dict[str, Any]] = {
    "min_length": {"min_length": ints(8)},
    "repetition_penalty": {"repetition_penalty": np.array([3.0], np.float32)},
    "vocab_mask": {"vocab_mask": ints(1, 0, 1, 0, 1, 1, 0, 0, 0, 1, 1)},
    "prefix_vocab_mask": {
        "prefix_vocab_mask": np.array([[1, 0] * 5 + [1], [0, 0, 1] * 3 + [1, 1]], np.int32)
    },
    "attention_mask": {"attention_mask": np.array([[0, 0, 1], [1, 0, 1]], np.int32)},
}


@pytest.mark.parametrize("name", [*FILTERS, "all"])
@pytest.mark.parametrize("seed", range(2))
def test_greedy_search_with_filters(name: str, seed: int) -> None:
    chosen = (
        {key: x for each in FILTERS.values() for key, x in each.items()} if name == "all" else FILTERS[name]
    )
    feeds = {"input_ids": PROMPTS, "max_length": ints(12), **chosen}
    greedy(feeds, decoder(2, seed=seed), eos_token_id=7)


def test_greedy_search_with_a_decoder_of_float16() -> None:
    """Which onnxruntime's CPU lacks; rounded weights find the tokens of exact ones where the choice is clear."""
    graph, tensors = decoder(2, seed=4)
    for tensor in graph.initializer:
        half = onnx.numpy_helper.to_array(tensor).astype(np.float16)
        tensor.CopyFrom(onnx.numpy_helper.from_array(half, tensor.name))
    for value in (*graph.input, *graph.output):
        kind = value.type.tensor_type
        kind.elem_type = (
            onnx.TensorProto.FLOAT16 if kind.elem_type == onnx.TensorProto.FLOAT else kind.elem_type
        )
    feeds = {"input_ids": PROMPTS, "max_length": ints(12)}
    model = search_model("GreedySearch", feeds, GREEDY, (graph, tensors), **TOKENS)
    found = epkit.load(model)(**feeds)["sequences"]
    np.testing.assert_array_equal(found, greedy(feeds, decoder(2, seed=4)))


def test_greedy_search_ends_early_and_pads() -> None:
    found = greedy({"input_ids": PROMPTS, "max_length": ints(12)}, decoder(2, 0), eos_token_id=1)
    assert found.shape == (2, 12)
    assert not found[:, 9:].any()


def test_greedy_search_knows_fewer_tokens_than_the_decoder() -> None:
    feeds = {"input_ids": PROMPTS, "max_length": ints(9)}
    model = search_model("GreedySearch", feeds, GREEDY, decoder(sharpness=1.0), vocab_size=6, **TOKENS)
    found = epkit.load(model)(**feeds)["sequences"]
    masked = feeds | {"vocab_mask": ints(*[1] * 6, *[0] * 5)}  # the same, by onnxruntime's other way
    np.testing.assert_array_equal(found, greedy(masked, decoder(sharpness=1.0)))


def test_the_first_decoder_runs_once() -> None:
    """It is the same decoder but for its head, which always says 5."""
    first, _ = decoder()
    five = np.zeros((8, VOCABULARY), np.float32)
    head = next(tensor for tensor in first.initializer if tensor.name == "head")
    head.CopyFrom(onnx.numpy_helper.from_array(five, "head"))
    first.node[-1].output[0] = "plain"
    first.node.append(helper.make_node("Add", ["plain", "five"], ["logits"]))
    bonus = np.eye(VOCABULARY, dtype=np.float32)[5]
    first.initializer.append(onnx.numpy_helper.from_array(bonus, "five"))
    feeds = {"input_ids": PROMPTS, "max_length": ints(9)}
    model = search_model("GreedySearch", feeds, GREEDY, decoder(), init_decoder=first, **TOKENS)
    found = epkit.load(model)(**feeds)["sequences"]
    assert found[:, 3].tolist() == [5, 5]
    forced = {**feeds, "prefix_vocab_mask": np.tile(np.eye(VOCABULARY, dtype=np.int32)[5], (2, 1))}
    np.testing.assert_array_equal(found, greedy(forced))


def test_another_provider_takes_parts_of_the_decoder() -> None:
    class Products(KernelProvider):
        name = "products"
        version = "1.0"
        kernels = tuple(portable_kernels(np, only={"MatMul"}))

        def devices(self) -> Devices:
            return Devices((Device("products:0", "toy"),))

    feeds = {"input_ids": PROMPTS, "max_length": ints(9)}
    model = search_model("GreedySearch", feeds, GREEDY, decoder(), **TOKENS)
    registry = registry_of(Products)
    session = epkit.load(model, ["products"], registry=registry, operators=epkit_operators())
    assert session.placement.counts()["products"] == 1
    np.testing.assert_array_equal(session(**feeds)["sequences"], greedy(feeds))


@pytest.mark.parametrize(
    ("change", "attributes", "word"),
    [
        ("encoder", {"model_type": 1}, "model_type"),
        ("shared buffer", {}, "past_0, ..."),
        ("unknown heads", {}, "past_0 of the decoder"),
    ],
)
def test_a_search_that_cannot_run_says_why(change: str, attributes: dict[str, int], word: str) -> None:
    graph, tensors = decoder()
    if change == "shared buffer":
        graph.input.append(helper.make_tensor_value_info("past_sequence_length", onnx.TensorProto.INT32, [1]))
    if change == "unknown heads":
        graph.input[3].type.tensor_type.shape.dim[2].dim_param = "heads"
    feeds = {"input_ids": PROMPTS, "max_length": ints(9)}
    model = search_model("GreedySearch", feeds, GREEDY, (graph, tensors), **TOKENS, **attributes)
    with pytest.raises(InvalidModelError, match=word) as caught:
        epkit.load(model)
    assert caught.value.where.node == "it"


# ---- Sampling

MANY = 3000


def sample(
    feeds: dict[str, Any], outputs: tuple[str, ...] = ("sequences",), **attributes: Any
) -> tuple[Any, Any]:
    """The outputs by epkit, and the sequences by onnxruntime."""
    settings = {**TOKENS, **attributes}
    sharpness = settings.pop("sharpness", 1.5)
    model = search_model("Sampling", feeds, SAMPLED, decoder(sharpness=sharpness), outputs, **settings)
    found = epkit.load(model)(**feeds)
    return [found[name] for name in outputs], by_onnxruntime(model, feeds)


@pytest.mark.parametrize(
    "attributes",
    [
        {"top_p": 1.0},
        {"top_p": 0.6},
        {"top_p": 0.6, "custom": 1},
        {"top_p": 0.8, "temperature": 2.0},
        {"top_p": 0.3, "min_tokens_to_keep": 3},
        {"top_p": 0.5, "filter_value": -3.0},
        {"top_p": 0.9, "no_repeat_ngram_size": 1},
    ],
    ids=str,
)
def test_sampled_tokens_have_the_distribution_of_onnxruntime(attributes: dict[str, Any]) -> None:
    """One token for many equal prompts: both agree with the probabilities of the filtered scores."""
    feeds = {"input_ids": np.tile(PROMPTS[1], (MANY, 1)), "max_length": ints(4), "seed": ints(5)}
    (ours, scores), theirs = sample(feeds, ("sequences", "filtered_logits"), **attributes)
    share = np.exp(scores[0].astype(float) - scores[0].max())
    share /= share.sum()
    share[0] += share[-1]  # the token that ends is written as padding
    share[-1] = 0
    bound = 5 * np.sqrt(share * (1 - share) / MANY) + 1e-9
    for found in (ours, theirs):
        counts = np.bincount(found[:, 3], minlength=VOCABULARY)
        np.testing.assert_array_less(np.abs(counts / MANY - share), bound + (share == 0) * 1e-6)


@pytest.mark.parametrize("custom", [0, 1])
def test_sampling_from_the_likeliest_alone_is_greedy_search(custom: int) -> None:
    feeds = {"input_ids": PROMPTS, "max_length": ints(12)}
    (ours,), theirs = sample(feeds, top_p=1e-6, custom=custom, sharpness=3.0)
    np.testing.assert_array_equal(ours, greedy(feeds))
    np.testing.assert_array_equal(ours, theirs)


def test_sampling_keeps_the_likeliest_token_whatever_top_p() -> None:
    """0 is the default; onnxruntime's CPU then filters all tokens, and draws from all."""
    feeds = {"input_ids": PROMPTS, "max_length": ints(12)}
    (ours,), _ = sample(feeds, sharpness=3.0)
    np.testing.assert_array_equal(ours, greedy(feeds))


def test_sampling_is_the_same_for_the_same_seed_alone() -> None:
    feeds = {"input_ids": np.tile(PROMPTS[1], (8, 1)), "max_length": ints(12)}
    runs = [sample(feeds | {"seed": ints(seed)}, top_p=1.0)[0][0] for seed in (1, 1, 2, 3)]
    np.testing.assert_array_equal(runs[0], runs[1])
    assert not np.array_equal(runs[0], runs[2])
    assert not np.array_equal(runs[0], runs[3])
    assert len({tuple(row) for row in runs[0].tolist()}) > 4  # rows are drawn apart
    (first,), _ = sample(feeds, top_p=1.0)
    (second,), _ = sample(feeds, top_p=1.0)
    assert not np.array_equal(first, second)


def test_sampling_with_a_penalty_for_what_is_present() -> None:
    """onnxruntime's CPU leaves it out; this is what the schema says: the penalty, times the mask, is taken off."""
    mask = np.eye(VOCABULARY, dtype=np.int32)[[1, 7]]
    feeds = {"input_ids": PROMPTS, "max_length": ints(4), "seed": ints(1)}
    (_, plain), _ = sample(feeds, ("sequences", "filtered_logits"), top_p=1.0)
    (_, found), _ = sample(
        feeds | {"presence_mask": mask}, ("sequences", "filtered_logits"), top_p=1.0, presence_penalty=2.5
    )
    np.testing.assert_allclose(found, plain - 2.5 * mask, rtol=1e-6)
