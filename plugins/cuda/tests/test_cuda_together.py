"""What a few rows have done in one kernel: a decoder's layers against the fallback, and how many kernels they are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from benchmarks import cuda_models as models
from cuda_standin import StandIn
from onnx import helper, numpy_helper
from test_cuda_kernels import data, model_of

import epkit
from epkit_cuda.kernels import gemv

KERNELS = 1 + 2 * 6 + 3


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Sizes of a decoder that the host computes in a moment."""
    monkeypatch.setattr(gemv, "SMALLEST", 1)
    yield replace(models.LLAMA, layers=2, hidden=64, inner=64, words=104, heads=4, groups=2)


def decoder(folder: Path, sizes: Any, bits: int, length: int) -> tuple[Any, Any]:
    path = models.llama(folder, "fp32", length, 0 if length > 4 else 16, bits=bits, sizes=sizes)
    return path, models.feeds_of(onnx.load(path))


@pytest.mark.parametrize(("bits", "length"), [(0, 1), (0, 2), (0, 5), (4, 1)])
def test_a_decoder_gives_the_same_and_needs_few_kernels(
    gpu: StandIn, small: Any, tmp_path: Path, bits: int, length: int
) -> None:
    path, feeds = decoder(tmp_path, small, bits, length)
    with epkit.load(path, ["cpu"], optimise="none") as session:
        want = session.run(None, feeds)
    with epkit.load(path, ["cuda"], fallback="error", optimise="extended") as session:
        session.run(None, feeds)
        before = gpu.launches
        found = session.run(None, feeds)
    for name, value in want.items():
        np.testing.assert_allclose(found[name], value, rtol=2e-4, atol=2e-5, err_msg=name)
    if length < 5:
        assert gpu.launches - before == KERNELS and not gpu.products


def test_a_shared_normalisation_stays_a_kernel_and_biases_are_inside(gpu: StandIn, small: Any) -> None:
    random = np.random.default_rng(0)
    weights = {f"w{i}": (0.1 * random.standard_normal((64, 64))).astype(np.float32) for i in range(2)}
    weights |= {f"c{i}": random.standard_normal(64).astype(np.float32) for i in range(2)}
    weights["g"] = np.ones(64, np.float32)
    nodes = [
        *(
            helper.make_node("Constant", [], [k], value=numpy_helper.from_array(v))
            for k, v in weights.items()
        ),
        helper.make_node("RMSNormalization", ["x", "g"], ["n"]),
        *(helper.make_node("MatMul", ["n", f"w{i}"], [f"p{i}"]) for i in range(2)),
        *(helper.make_node("Add", [f"p{i}", f"c{i}"], [f"b{i}"]) for i in range(2)),
        helper.make_node("Concat", ["b0", "b1", "n"], ["y"], axis=1),
    ]
    x = data(3, 64)
    normal = x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-5)
    want = [*(normal @ weights[f"w{i}"] + weights[f"c{i}"] for i in range(2)), normal]
    model = model_of(nodes, {"x": x}, 23)
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 64
    with epkit.load(model, ["cuda"], fallback="error", optimise="none") as session:
        found = session.run(None, {"x": x})["y"]
    np.testing.assert_allclose(found, np.concatenate(want, 1), rtol=1e-4, atol=1e-5)
    assert gpu.launches == 2 and not gpu.products


@pytest.mark.parametrize("interleaved", [0, 1])
@pytest.mark.parametrize(("past", "size"), [(0, 8), (3, 8), (3, 6)])
def test_turned_attention_in_one_kernel_and_its_own(
    gpu: StandIn, interleaved: int, past: int, size: int
) -> None:
    batch, length, heads, groups = 2, 3, 4, 2
    angles = np.arange(9)[:, None] * 0.7 ** np.arange(size // 2)
    feeds = {
        "q": data(batch, length, heads * size),
        "k": data(batch, length, groups * size, seed=1),
        "v": data(batch, length, groups * size, seed=2),
        "i": past + np.array([[0, 1, 2], [2, 1, 0]]),
        "c": np.cos(angles).astype(np.float32),
        "s": np.sin(angles).astype(np.float32),
    }
    if past:
        feeds |= {n: data(batch, groups, past, size, seed=3 + j) for j, n in enumerate(("pk", "pv"))}
    options = {"q_num_heads": heads, "kv_num_heads": groups, "is_causal": 1}
    kept = ["", "pk", "pv"] if past else []
    nodes = [
        helper.make_node(
            "RotaryEmbedding", ["q", "c", "s", "i"], ["tq"], num_heads=heads, interleaved=interleaved
        ),
        helper.make_node(
            "RotaryEmbedding", ["k", "c", "s", "i"], ["tk"], num_heads=groups, interleaved=interleaved
        ),
        helper.make_node("Attention", ["tq", "tk", "v", *kept], ["y", "keys", "values"], **options),
    ]
    model = model_of(nodes, feeds, 23)
    model.graph.output.extend(helper.make_tensor_value_info(name, 1, None) for name in ("keys", "values"))
    with epkit.load(model, ["cpu"], optimise="none") as session:
        want = session.run(None, feeds)
    with epkit.load(model, ["cuda"], fallback="error", optimise="none") as session:
        found = session.run(None, feeds)
        for name, value in want.items():
            np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=1e-6, err_msg=name)
        assert gpu.launches == 2
        feeds["i"] = feeds["i"] + 9
        with pytest.raises(epkit.errors.RunError, match="out of range"):
            session.run(None, feeds)


def test_a_deep_model_needs_no_more_memory_for_values_than_a_shallow_one(
    gpu: StandIn, tmp_path: Path
) -> None:
    sizes = [replace(models.BERT, layers=layers, hidden=32, inner=64, heads=2) for layers in (2, 5)]
    arenas = []
    for each in sizes:
        path = models.bert(tmp_path, "fp16", 2, sizes=each, length=8)
        with epkit.load(path, ["cuda"], fallback="error", optimise="all") as session:
            arenas.append([plan.size for plan in session.memory.plans])
    assert arenas[0] == arenas[1] and max(arenas[0])
