"""Attention, rotary embedding and normalised residuals: the sources on the host, against formulas and onnxruntime."""

from __future__ import annotations

from typing import Any
from unittest import mock

import numpy as np
import onnx
import onnxruntime
import pytest
from cuda_standin import StandIn
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import helper
from test_cuda_kernels import data

import epkit
from epkit_cuda.kernels.attention import LEAST_KEYS, shares

FEW = settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def model_of(node: Any, feeds: dict[str, Any], outputs: dict[str, Any], opset: int = 23) -> onnx.ModelProto:
    """One node with inputs and outputs (name: rank, of the first input's type) of open sizes."""
    infos = [
        helper.make_tensor_value_info(
            name, helper.np_dtype_to_tensor_dtype(x.dtype), [f"{name}{axis}" for axis in range(x.ndim)]
        )
        for name, x in feeds.items()
    ]
    kind = helper.np_dtype_to_tensor_dtype(next(iter(feeds.values())).dtype)
    results = [
        helper.make_tensor_value_info(name, kind, [f"{name}{axis}" for axis in range(rank)])
        for name, rank in outputs.items()
    ]
    graph = helper.make_graph([node], "g", infos, results)
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=11)


def ours(model: onnx.ModelProto, feeds: dict[str, Any], **options: Any) -> dict[str, Any]:
    with epkit.load(model, [("cuda", options)], fallback="error", optimise="none") as session:
        return dict(session.run(None, feeds))


def theirs(model: onnx.ModelProto, feeds: dict[str, Any]) -> list[Any]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return list(session.run(None, feeds))


def attention(q: Any, k: Any, v: Any, added: Any, scale: float, softcap: float) -> Any:
    """The formula, in float64; a query that sees nothing gives zeros."""
    each = q.shape[1] // k.shape[1]
    q, k, v = q.astype("d"), k.astype("d").repeat(each, 1), v.astype("d").repeat(each, 1)
    scores = q @ k.swapaxes(2, 3) * scale
    scores = softcap * np.tanh(scores / softcap) if softcap else scores
    scores = scores + added
    top = scores.max(-1, keepdims=True)
    exps = np.exp(scores - np.where(np.isfinite(top), top, 0))
    total = exps.sum(-1, keepdims=True)
    return exps / np.where(total == 0, 1, total) @ v


@FEW
@given(st.data())
def test_attention(gpu: StandIn, draw: st.DataObject) -> None:
    choose = lambda *options: draw.draw(st.sampled_from(options))  # noqa: E731
    dtype, (heads, groups) = choose(np.float32, np.float16), choose((4, 4), (6, 2))
    queries, fresh, past = choose(1, 3, 11), choose(1, 5, 1100), choose(0, 0, 7)
    size, width = choose((8, 16), (40, 24), (5, 3))
    causal, softcap, kind = choose(0, 1), choose(0.0, 2.0), choose("", "bool", "float")
    keys, scale = past + fresh, 0.3
    feeds = {
        "q": data(2, heads, queries, size, dtype=dtype),
        "k": data(2, groups, fresh, size, seed=1, dtype=dtype),
        "v": data(2, groups, fresh, width, seed=2, dtype=dtype),
    }
    whole = [feeds["k"], feeds["v"]]
    added = np.zeros((2, heads, queries, keys))
    if kind:
        shape = choose((queries, keys), (2, 1, 1, keys), (1, heads, queries, max(2, keys - 1)))
        seen = np.random.default_rng(3).random(shape) < 0.6
        feeds["m"] = seen if kind == "bool" else np.where(seen, data(*shape, seed=4), -np.inf).astype(dtype)
        mask = np.where(seen, 0.0 if kind == "bool" else feeds["m"].astype("d"), -np.inf)
        mask = np.pad(
            mask, [(0, 0)] * (mask.ndim - 1) + [(0, max(0, keys - mask.shape[-1]))], constant_values=-np.inf
        )
        added = added + mask[..., :keys]
    if past:
        feeds |= {
            "pk": data(2, groups, past, size, seed=5, dtype=dtype),
            "pv": data(2, groups, past, width, seed=6, dtype=dtype),
        }
        whole = [np.concatenate([feeds["pk"], whole[0]], 2), np.concatenate([feeds["pv"], whole[1]], 2)]
    if causal:
        added = added + np.triu(np.full((queries, keys), -np.inf), 1 + past)
    want = attention(feeds["q"], whole[0], whole[1], added, scale, softcap)
    joined = not past and not draw.draw(st.booleans())
    given_ = dict(feeds)
    options: dict[str, Any] = {"is_causal": causal, "softcap": softcap, "scale": scale}
    if joined:
        for name in ("q", "k", "v"):
            x = feeds[name]
            given_[name] = np.ascontiguousarray(x.transpose(0, 2, 1, 3)).reshape(2, x.shape[2], -1)
        options |= {"q_num_heads": heads, "kv_num_heads": groups}
        want = want.transpose(0, 2, 1, 3).reshape(2, queries, -1)
    names = ["q", "k", "v", "m" if kind else "", *(["pk", "pv"] if past else [])]
    outputs = {"y": 3 if joined else 4, **({"ok": 4, "ov": 4} if past else {})}
    model = model_of(helper.make_node("Attention", names, list(outputs), **options), given_, outputs)
    found = ours(model, given_)
    tolerance = 1e-4 if dtype == np.float32 else 5e-3
    np.testing.assert_allclose(found["y"].astype("d"), want, rtol=tolerance, atol=tolerance)
    if past:
        np.testing.assert_array_equal(found["ok"], whole[0])
        np.testing.assert_array_equal(found["ov"], whole[1])


def test_attention_in_sixteen_bits_without_a_mask_is_the_library_s(gpu: StandIn) -> None:
    feeds = {name: data(1, 2, 12, 16, seed=seed, dtype=np.float16) for seed, name in enumerate("qkv")}
    model = model_of(helper.make_node("Attention", list("qkv"), ["y"], is_causal=1), feeds, {"y": 4})
    hidden = np.triu(np.full((12, 12), -np.inf), 1)
    want = attention(feeds["q"], feeds["k"], feeds["v"], hidden, 0.25, 0)
    np.testing.assert_allclose(ours(model, feeds)["y"].astype("d"), want, rtol=5e-3, atol=5e-3)
    assert gpu.attentions == 1 and gpu.launches == 0
    single = {name: value.astype(np.float32) for name, value in feeds.items()}
    model = model_of(helper.make_node("Attention", list("qkv"), ["y"], is_causal=1), single, {"y": 4})
    np.testing.assert_allclose(ours(model, single, precision="fp16")["y"], want, rtol=5e-3, atol=5e-3)
    assert gpu.attentions == 2


@pytest.mark.parametrize("interleaved", [0, 1])
@pytest.mark.parametrize(
    ("joined", "turned", "by_position"), [(False, 0, False), (True, 4, True), (False, 4, True)]
)
def test_rotary_embedding(
    gpu: StandIn, interleaved: int, joined: bool, turned: int, by_position: bool
) -> None:
    pairs = (turned or 8) // 2
    cache = (50, pairs) if by_position else (2, 3, pairs)
    feeds = {
        "x": data(2, 3, 32) if joined else data(2, 4, 3, 8),
        "c": data(*cache, seed=1),
        "s": data(*cache, seed=2),
    }
    if by_position:
        feeds["p"] = np.array([[3, 4, 5], [49, 0, 7]])
    options = {"interleaved": interleaved, "rotary_embedding_dim": turned, "num_heads": 4}
    model = model_of(
        helper.make_node("RotaryEmbedding", list(feeds), ["y"], **options), feeds, {"y": feeds["x"].ndim}
    )
    np.testing.assert_allclose(ours(model, feeds)["y"], theirs(model, feeds)[0], rtol=1e-5, atol=1e-6)
    assert gpu.launches == 1
    if by_position:
        with pytest.raises(epkit.errors.RunError, match="out of range"):
            ours(model, {**feeds, "p": feeds["p"] + 1})


@pytest.mark.parametrize("positions", [np.array([5]), np.array([[3, 4, 5], [9, 0, 7]])])
def test_rotary_embedding_of_microsoft(gpu: StandIn, positions: Any) -> None:
    feeds = {"x": data(2, 3, 32), "p": positions, "c": data(50, 4, seed=1), "s": data(50, 4, seed=2)}
    node = helper.make_node("RotaryEmbedding", list(feeds), ["y"], domain="com.microsoft")
    model = model_of(node, feeds, {"y": 3})
    np.testing.assert_allclose(ours(model, feeds)["y"], theirs(model, feeds)[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["SkipLayerNormalization", "SkipSimplifiedLayerNormalization"])
@pytest.mark.parametrize(("skip", "bias", "total"), [((2, 3, 70), False, True), ((1, 3, 70), True, False)])
def test_normalised_residuals(gpu: StandIn, name: str, skip: Any, bias: bool, total: bool) -> None:
    feeds = {"x": data(2, 3, 70), "skip": data(*skip, seed=1), "g": data(70, seed=2)}
    if name == "SkipLayerNormalization":
        feeds["b"] = data(70, seed=3)
    if bias:
        feeds["c"] = data(70, seed=4)
    outputs = {"y": 3, "t": 3} if total else {"y": 3}
    node = helper.make_node(
        name, list(feeds), ["y", "", "", "t"] if total else ["y"], domain="com.microsoft", epsilon=1e-3
    )
    model = model_of(node, feeds, outputs)
    for have, want in zip(ours(model, feeds).values(), theirs(model, feeds), strict=True):
        np.testing.assert_allclose(have, want, rtol=1e-4, atol=1e-5)
    assert gpu.launches == 1


@FEW
@given(st.data())
def test_a_query_s_keys_are_shared_out_over_blocks(gpu: StandIn, draw: st.DataObject) -> None:
    choose = lambda *options: draw.draw(st.sampled_from(options))  # noqa: E731
    dtype, (heads, groups), queries = choose(np.float32, np.float16), choose((2, 1), (4, 2)), choose(1, 3)
    keys, softcap, kind, size = (
        draw.draw(st.integers(1, 4096)),
        choose(0.0, 2.0),
        choose("", "bool"),
        choose(8, 5),
    )
    feeds = {
        "q": data(1, heads, queries, size, dtype=dtype),
        "k": data(1, groups, keys, size, seed=1, dtype=dtype),
        "v": data(1, groups, keys, size, seed=2, dtype=dtype),
    }
    added = np.zeros((1, 1, queries, keys))
    if kind:  # whole blocks see nothing; with one key, the query does not
        seen = np.random.default_rng(3).random((queries, keys)) < 0.02
        feeds["m"], added = seen, np.where(seen, 0.0, -np.inf)
    want = attention(feeds["q"], feeds["k"], feeds["v"], added, 0.3, softcap)
    node = helper.make_node("Attention", list(feeds), ["y"], softcap=softcap, scale=0.3)
    model = model_of(node, feeds, {"y": 4})
    before = gpu.launches
    with mock.patch.object(
        StandIn, "attend", lambda *_, **__: False
    ):  # the library has 16 bits without masks
        found = ours(model, feeds)["y"]
        assert np.array_equal(found, ours(model, feeds)["y"])
    tolerance = 1e-4 if dtype == np.float32 else 5e-3
    np.testing.assert_allclose(found.astype("d"), want, rtol=tolerance, atol=tolerance)
    assert gpu.launches - before == (4 if keys >= 2 * LEAST_KEYS else 2)


def test_keys_are_shared_out_as_far_as_there_are_too_few_queries() -> None:
    assert [shares(jobs, 513) for jobs in (1, 32, 100, 200, 4096)] == [4, 4, 2, 1, 1]
    assert [shares(32, keys) for keys in (1, 255, 256, 4096, 1 << 20)] == [1, 1, 2, 8, 8]
