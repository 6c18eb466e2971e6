"""Mixtures of experts: MoE and QMoE against onnxruntime; what its CPU lacks against a loop over tokens."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from contrib_node import check, rand, run
from hypothesis import given, settings
from hypothesis import strategies as st

from epkit.errors import EpkitError

EXPERTS, HIDDEN, INNER, TOKENS = 4, 32, 64, 6
X, ROUTER = rand(TOKENS, HIDDEN), rand(TOKENS, EXPERTS, seed=1)


def weights(fused: int = 1, bias: bool = True) -> dict[str, Any]:
    return {
        "input": X,
        "router_probs": ROUTER,
        "fc1": rand(EXPERTS, INNER * fused, HIDDEN, seed=2, scale=0.2),
        "fc1_bias": rand(EXPERTS, INNER * fused, seed=3) if bias else None,
        "fc2": rand(EXPERTS, HIDDEN, INNER, seed=4, scale=0.2),
        "fc2_bias": rand(EXPERTS, HIDDEN, seed=5) if bias else None,
    }


def by_token(
    inputs: dict[str, Any],
    between: Callable[[Any, Any], Any],
    k: int = 1,
    fc3: Any = None,
    fc3_bias: Any = None,
) -> Any:
    """The definition, token by token in float64: ``between`` makes of the two projections what goes on."""
    x, router = inputs["input"].reshape(-1, HIDDEN).astype(float), inputs["router_probs"].astype(float)
    y = np.zeros_like(x)
    for t, row in enumerate(x):
        share = np.exp(router[t]) / np.exp(router[t]).sum()
        for e in np.argsort(-router[t])[:k]:
            h = inputs["fc1"][e] @ row + inputs["fc1_bias"][e]
            linear = None if fc3 is None else fc3[e] @ row + fc3_bias[e]
            y[t] += share[e] * (inputs["fc2"][e] @ between(h, linear) + inputs["fc2_bias"][e])
    return y.reshape(inputs["input"].shape)


def sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


def swiglu(gate: Any, linear: Any, alpha: float = 1.0, beta: float = 0.0, limit: float = math.inf) -> Any:
    gate = np.minimum(gate, limit)
    return gate * sigmoid(alpha * gate) * (np.clip(linear, -limit, limit) + beta)


def tanh_gelu(x: Any) -> Any:
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


@pytest.mark.parametrize("k", [1, 2, 4])
@pytest.mark.parametrize("normalised", [0, 1])
@pytest.mark.parametrize("bias", [False, True])
def test_moe_routes(k: int, normalised: int, bias: bool) -> None:
    check("MoE", weights(bias=bias), k=k, normalize_routing_weights=normalised)


@pytest.mark.parametrize("kind", ["relu", "gelu", "silu", "identity"])
def test_moe_activations(kind: str) -> None:
    check("MoE", weights(), activation_type=kind, k=2)


@pytest.mark.parametrize(
    "constants",
    [{}, {"activation_alpha": 1.702, "activation_beta": 1.0}, {"swiglu_limit": 0.5}],
    ids=["plain", "alpha and beta", "limit"],
)
def test_moe_with_swiglu_by_turns(constants: dict[str, float]) -> None:
    check("MoE", weights(2), k=2, activation_type="swiglu", swiglu_fusion=1, **constants)


def test_moe_takes_batches_and_old_shapes() -> None:
    inputs = weights() | {"input": X.reshape(2, 3, HIDDEN)}
    flat = check("MoE", inputs)[0]
    old = {"fc1": (EXPERTS, HIDDEN, INNER), "fc2": (EXPERTS, INNER, HIDDEN)}
    again = check("MoE", inputs | {name: inputs[name].reshape(shape) for name, shape in old.items()})[0]
    np.testing.assert_array_equal(flat, again)


def test_moe_with_swiglu_in_halves_or_apart_is_that_by_turns() -> None:
    constants = {
        "activation_type": "swiglu",
        "activation_alpha": 1.5,
        "activation_beta": 0.5,
        "swiglu_limit": 1.0,
    }
    turns = weights(2)
    first = check("MoE", turns, k=2, swiglu_fusion=1, **constants)[0]
    fc1, bias = turns["fc1"], turns["fc1_bias"]
    halves = turns | {
        "fc1": np.concatenate([fc1[:, ::2], fc1[:, 1::2]], axis=1),
        "fc1_bias": np.concatenate([bias[:, ::2], bias[:, 1::2]], axis=1),
    }
    np.testing.assert_allclose(
        run("MoE", halves, k=2, swiglu_fusion=2, **constants)[0], first, rtol=1e-5, atol=1e-5
    )
    apart = turns | {
        "fc1": fc1[:, ::2].copy(),
        "fc1_bias": bias[:, ::2].copy(),
        "fc3": fc1[:, 1::2].copy(),
        "fc3_bias": bias[:, 1::2].copy(),
    }
    np.testing.assert_allclose(run("MoE", apart, k=2, **constants)[0], first, rtol=1e-5, atol=1e-5)


def test_moe_activations_of_other_devices() -> None:
    inputs = weights()
    fc3, fc3_bias = rand(EXPERTS, INNER, HIDDEN, seed=6), rand(EXPERTS, INNER, seed=7)
    third = inputs | {"fc3": fc3, "fc3_bias": fc3_bias}
    found = run("MoE", third, k=2, activation_type="silu")[0]
    wanted = by_token(inputs, lambda h, linear: h * sigmoid(h) * linear, 2, fc3, fc3_bias)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)
    found = run("MoE", inputs, activation_type="relu2")[0]
    np.testing.assert_allclose(
        found, by_token(inputs, lambda h, _: np.maximum(h, 0) ** 2), rtol=1e-4, atol=1e-4
    )
    fused = weights(2)
    found = run("MoE", fused, activation_type="geglu", swiglu_fusion=2)[0]
    wanted = by_token(fused, lambda h, _: tanh_gelu(h[:INNER]) * h[INNER:])
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)
    found = run(
        "MoE",
        fused,
        activation_type="swiglu",
        swiglu_fusion=2,
        swiglu_limit=0.3,
        swiglu_limit_after_activation=1,
    )[0]
    wanted = by_token(
        fused,
        lambda h, _: np.minimum(h[:INNER] * sigmoid(h[:INNER]), 0.3) * np.clip(h[INNER:], -0.3, 0.3),
    )
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)


def sparsely_mixed(scores: Any) -> Any:
    """Shares of the two best experts of one token, as Phi-3.5-MoE has it: each among those near it (jitter 0.01)."""
    shares, left = np.zeros(len(scores)), list(range(len(scores)))
    for _ in range(2):
        best = max(left, key=lambda e: scores[e])
        near = [e for e in left if (scores[best] - scores[e]) / max(abs(scores[e]), scores[best]) <= 2 * 0.01]
        shares[best] = 1 / sum(math.exp(scores[e] - scores[best]) for e in near)
        left.remove(best)
    return shares


@given(st.integers(0, 2**32 - 1), st.sampled_from([0.01, 1.0, 5.0]))
@settings(max_examples=20, deadline=None)
def test_the_sparse_mixer(seed: int, spread: float) -> None:
    random = np.random.default_rng(seed)
    logits = (random.standard_normal((5, 8)) * spread).astype(np.float32)
    logits[:, 1] = logits[:, 0] * np.float32(1.001)  # some that are near each other
    ones = {  # expert e answers with its own unit vector
        "input": np.zeros((5, 8), np.float32),
        "router_probs": logits,
        "fc1": np.zeros((8, 1, 8), np.float32),
        "fc1_bias": None,
        "fc2": np.zeros((8, 8, 1), np.float32),
        "fc2_bias": np.eye(8, dtype=np.float32),
    }
    wanted = np.array([sparsely_mixed(row.astype(float)) for row in logits])
    np.testing.assert_allclose(run("MoE", ones, k=2, use_sparse_mixer=1)[0], wanted, rtol=1e-5, atol=1e-6)


# ---- QMoE

NAMES = [
    "input",
    "router_probs",
    "fc1",
    "fc1_scales",
    "fc1_bias",
    "fc2",
    "fc2_scales",
    "fc2_bias",
    "fc3",
    "fc3_scales",
    "fc3_bias",
]
NAMES += ["fc1_zeros", "fc2_zeros", "fc3_zeros", "router_weights", "fc1_global", "fc2_global"]


def quantised(
    bits: int, block: int = 0, *, zeros: bool = False, bias: bool = False, fused: int = 1, bits2: int = 0
) -> dict[str, Any]:
    """Inputs of QMoE in order, random codes with small scales."""
    random = np.random.default_rng([bits, block])
    found = dict.fromkeys(NAMES) | {"input": X, "router_probs": ROUTER}
    for name, rows, columns, own in (
        ("fc1", INNER * fused, HIDDEN, bits),
        ("fc2", HIDDEN, INNER, bits2 or bits),
    ):
        found[name] = random.integers(0, 256, (EXPERTS, rows, columns * own // 8), dtype=np.uint8)
        blocks = (EXPERTS, rows, columns // block) if block else (EXPERTS, rows)
        found[f"{name}_scales"] = (random.random(blocks) * 0.2 / 2**own).astype(np.float32)
        if zeros:
            shape = (*blocks[:-1], -(-blocks[-1] * own // 8))
            found[f"{name}_zeros"] = random.integers(0, 256, shape, dtype=np.uint8)
        if bias:
            found[f"{name}_bias"] = random.standard_normal((EXPERTS, rows)).astype(np.float32)
    return found


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("block", [0, 16, 32])
@pytest.mark.parametrize("zeros", [False, True])
def test_quantised_moe(bits: int, block: int, zeros: bool) -> None:
    blocks = {"block_size": block} if block else {}
    check(
        "QMoE",
        quantised(bits, block, zeros=zeros),
        k=2,
        expert_weight_bits=bits,
        **blocks,
        atol=1e-4,
        rtol=1e-4,
    )


@pytest.mark.parametrize("kind", ["relu", "gelu", "silu", "identity"])
@pytest.mark.parametrize("normalised", [0, 1])
@pytest.mark.parametrize("k", [1, 3])
def test_quantised_moe_activations(kind: str, normalised: int, k: int) -> None:
    settings: dict[str, Any] = {"activation_type": kind, "k": k, "normalize_routing_weights": normalised}
    check("QMoE", quantised(4, 16, bias=True), **settings, block_size=16, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("limit", [{}, {"swiglu_limit": 0.7}])
def test_quantised_moe_with_swiglu(bits: int, limit: dict[str, float]) -> None:
    check(
        "QMoE",
        quantised(bits, 32, bias=True, fused=2),
        expert_weight_bits=bits,
        block_size=32,
        k=2,
        activation_type="swiglu",
        swiglu_fusion=1,
        activation_alpha=1.702,
        activation_beta=1.0,
        **limit,
        atol=1e-4,
        rtol=1e-4,
    )


@pytest.mark.parametrize("normalised", [0, 1])
def test_quantised_moe_mixes_by_other_weights_than_it_chooses(normalised: int) -> None:
    inputs = quantised(4) | {"router_weights": np.abs(rand(TOKENS, EXPERTS, seed=9))}
    check("QMoE", inputs, k=2, normalize_routing_weights=normalised, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("bits", [(3, 3), (4, 8), (8, 2)], ids=str)
def test_quantised_moe_of_three_bits_and_of_bits_by_projection(bits: tuple[int, int]) -> None:
    inputs = quantised(bits[0], 32, fused=2, bits2=bits[1])
    common: dict[str, Any] = {"activation_type": "swiglu", "swiglu_fusion": 1, "k": 2}
    found = run(
        "QMoE", inputs, expert_weight_bits=bits[0], fc2_expert_weight_bits=bits[1], block_size=32, **common
    )
    plain = weights(bias=False)
    for name, own in zip(("fc1", "fc2"), bits, strict=True):
        ones = np.unpackbits(inputs[name], axis=-1, bitorder="little").reshape(
            *inputs[name].shape[:2], -1, own
        )
        codes = ones @ (1 << np.arange(own)) - 2.0 ** (own - 1)
        plain[name] = (codes * np.repeat(inputs[f"{name}_scales"], 32, axis=-1)).astype(np.float32)
    wanted = run("MoE", plain, normalize_routing_weights=1, **common)
    np.testing.assert_allclose(found[0], wanted[0], rtol=1e-5, atol=1e-6)


def test_quantised_moe_with_a_projection_of_its_own_for_the_linear_part() -> None:
    """Which onnxruntime's CPU lacks; MoE says what it is."""
    inputs, third = quantised(8), quantised(8, fused=1)
    random = np.random.default_rng(3)
    third["fc1"] = random.integers(0, 256, third["fc1"].shape, dtype=np.uint8)
    inputs |= {"fc3": third["fc1"], "fc3_scales": third["fc1_scales"]}
    found = run(
        "QMoE",
        inputs,
        expert_weight_bits=4,
        **{f"fc{i}_expert_weight_bits": 8 for i in (1, 2, 3)},
        k=2,
        activation_type="silu",
    )[0]
    plain = weights(bias=False) | {"fc2_bias": None, "fc3": None}
    for name in ("fc1", "fc2", "fc3"):
        plain[name] = (inputs[name].astype(np.float32) - 128) * inputs[f"{name}_scales"][..., None]
    wanted = run("MoE", plain, k=2, activation_type="silu", normalize_routing_weights=1)[0]
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


def test_quantised_moe_in_float16() -> None:
    inputs = {
        name: x.astype(np.float16) if x is not None and x.dtype == np.float32 else x
        for name, x in quantised(4, bias=True).items()
    }
    check("QMoE", inputs, k=2, atol=1e-2, rtol=1e-2)


@pytest.mark.parametrize("block", [0, 20])
def test_moe_of_float8(block: int) -> None:
    inputs, plain = dict.fromkeys(NAMES) | weights(bias=False), weights(bias=False)
    for name in ("fc1", "fc2"):
        stored = inputs[name].astype(ml_dtypes.float8_e4m3fn)
        plain[name] = stored.astype(np.float32)
        inputs[name] = stored
        _, rows, columns = stored.shape
        if block:
            scale = np.abs(rand(EXPERTS, -(-rows // block), -(-columns // block), seed=8))
            inputs[f"{name}_scales"] = scale
            plain[name] *= np.kron(scale, np.ones((1, block, block)))[:, :rows, :columns].astype(np.float32)
        else:
            inputs[f"{name}_global"] = np.abs(rand(EXPERTS, seed=8))
            plain[name] *= inputs[f"{name}_global"][:, None, None]
    wanted = run("MoE", plain, k=2, normalize_routing_weights=1)[0]
    found = run("QMoE", {name: inputs[name] for name in NAMES}, k=2, quant_type="fp8", block_size=block)[0]
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("operator", "changed", "attributes", "word"),
    [
        ("MoE", {}, {"k": 5}, "k=5"),
        ("MoE", {}, {"activation_type": "sine"}, "activation_type"),
        ("MoE", {}, {"activation_type": "swiglu"}, "fc3"),
        ("MoE", {"router_probs": rand(TOKENS, 3)}, {}, "router_probs"),
        ("MoE", {"fc1": rand(EXPERTS, INNER, 5)}, {}, "fc1"),
        ("MoE", {"fc1_bias": rand(EXPERTS, 5)}, {}, "fc1_experts_bias"),
        ("QMoE", {}, {"block_size": 24}, "block_size"),
        ("QMoE", {"fc2_scales": None}, {}, "fc2_scales"),
        ("QMoE", {}, {"quant_type": "fp4"}, "quant_type"),
        ("QMoE", {}, {"weights_prepacked": 1}, "weights_prepacked"),
        ("QMoE", {"router_weights": rand(TOKENS, 3)}, {}, "router_weights"),
    ],
)
def test_moe_says_what_is_wrong(
    operator: str, changed: dict[str, Any], attributes: dict[str, Any], word: str
) -> None:
    inputs = (weights() if operator == "MoE" else quantised(4)) | changed
    with pytest.raises(EpkitError, match=word):
        run(operator, inputs, **attributes)
