"""Products: MatMulNBits, FusedMatMul and MatMulBnb4 against onnxruntime; GemmFloat8 in closed form."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from contrib_node import BF16, check, rand, run

import epkit
from epkit_contrib.matmul import LEVELS


def packed(bits: int, n: int, k: int, block: int, seed: int = 0) -> np.ndarray:
    """Random weights (n, blocks, bytes)."""
    shape = (n, -(-k // block), block * bits // 8)
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


def n_bits(bits: int, n: int, k: int, block: int, **extra: Any) -> dict[str, Any]:
    blocks = -(-k // block)
    scales = np.abs(rand(n, blocks, scale=0.1)) + np.float32(0.01)
    inputs = {"a": rand(2, 3, k), "b": packed(bits, n, k, block), "scales": scales}
    return inputs | {name: extra.get(name) for name in ("zero_points", "g_idx", "bias")}


def close(a: Any, b: Any, rtol: float = 1e-5, atol: float = 1e-5) -> None:
    np.testing.assert_allclose(a.astype(np.float64), b, rtol=rtol, atol=atol)


def unpacked(b: np.ndarray, bits: int, count: int) -> np.ndarray:
    """The codes, bit by bit."""
    ones = np.unpackbits(b, axis=-1, bitorder="little")
    codes = ones.reshape(*b.shape[:-1], -1, bits) @ (1 << np.arange(bits))
    return codes[..., :count]


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize(("k", "block"), [(64, 16), (100, 32), (16, 128)])
def test_matmul_n_bits(bits: int, k: int, block: int) -> None:
    n, blocks = 5, -(-k // block)
    settings = {"K": k, "N": n, "bits": bits, "block_size": block}
    zeros = np.random.default_rng(1).integers(0, 256, (n, -(-blocks * bits // 8))).astype(np.uint8)
    for inputs in (
        n_bits(bits, n, k, block),
        n_bits(bits, n, k, block, zero_points=zeros),
        n_bits(bits, n, k, block, zero_points=zeros, bias=rand(n)),
    ):
        codes = unpacked(inputs["b"], bits, block).astype(float)
        zero = (
            2.0 ** (bits - 1) if inputs["zero_points"] is None else unpacked(zeros, bits, blocks)[..., None]
        )
        w = ((codes - zero) * inputs["scales"][..., None]).reshape(n, -1)[:, :k]
        y = inputs["a"] @ w.T + (0 if inputs["bias"] is None else inputs["bias"])
        close(run("MatMulNBits", inputs, **settings)[0], y, atol=1e-4)
        check("MatMulNBits", inputs, **settings, rtol=1e-4, atol=1e-3)


def test_matmul_n_bits_with_real_zero_points_and_group_indices() -> None:
    zeros = rand(5, 4, scale=3.0)
    settings = {"K": 64, "N": 5, "bits": 4, "block_size": 16}
    check("MatMulNBits", n_bits(4, 5, 64, 16, zero_points=zeros), **settings, rtol=1e-4, atol=1e-4)
    groups = np.random.default_rng(0).integers(0, 4, 64).astype(np.int32)
    check("MatMulNBits", n_bits(4, 5, 64, 16, g_idx=groups), **settings, rtol=1e-4, atol=1e-4)
    # onnxruntime's CPU kernel takes packed zero points for 8 where there are group indices.
    inputs = n_bits(4, 5, 64, 16, g_idx=groups, zero_points=np.array([[0x21, 0x43]] * 5, np.uint8))
    codes = unpacked(inputs["b"], 4, 16).reshape(5, 64)
    w = (codes - np.array([1, 2, 3, 4])[groups]) * inputs["scales"][:, groups]
    close(run("MatMulNBits", inputs, **settings)[0], inputs["a"] @ w.T, atol=1e-4)


def test_matmul_n_bits_in_other_types_and_with_flat_weights() -> None:
    settings = {"K": 64, "N": 5, "block_size": 32}
    inputs = n_bits(4, 5, 64, 32, bias=rand(5))
    (y,) = run("MatMulNBits", inputs, **settings)
    for dtype, rtol in ((np.float16, 2e-3), (BF16, 2e-2)):
        half = {k: v if v is None or v.dtype == np.uint8 else v.astype(dtype) for k, v in inputs.items()}
        close(run("MatMulNBits", half, **settings)[0], y, rtol=rtol, atol=rtol)
    check(
        "MatMulNBits",
        {k: v if v is None or k == "b" else v.astype(np.float16) for k, v in inputs.items()},
        **settings,
        rtol=1e-2,
        atol=1e-2,
    )
    flat = inputs | {"scales": inputs["scales"].reshape(-1)}
    np.testing.assert_array_equal(run("MatMulNBits", flat, **settings)[0], y)


def test_matmul_n_bits_is_the_same_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"K": 64, "N": 5, "block_size": 32}
    (y,) = run("MatMulNBits", n_bits(4, 5, 64, 32), **settings)
    monkeypatch.setattr("epkit_contrib.matmul.CHUNK", 128)
    close(run("MatMulNBits", n_bits(4, 5, 64, 32), **settings)[0], y)


def test_an_empty_weight_is_an_omitted_projection() -> None:
    inputs = n_bits(4, 5, 64, 32, bias=rand(5)) | {"b": np.zeros((0, 2, 16), np.uint8)}
    y = check("MatMulNBits", inputs, K=64, N=5, block_size=32)[0]
    np.testing.assert_array_equal(y, np.broadcast_to(rand(5), (2, 3, 5)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bits": 5}, "bits=5"),
        ({"block_size": 24}, "block_size=24"),
        ({"K": 60}, "K=60"),
        ({"N": 7}, "input B"),
    ],
)
def test_matmul_n_bits_refuses(change: dict[str, int], message: str) -> None:
    with pytest.raises(epkit.EpkitError, match=message):
        run("MatMulNBits", n_bits(4, 5, 64, 32), **({"K": 64, "N": 5, "block_size": 32} | change))


@pytest.mark.parametrize(
    ("a", "b", "how"),
    [
        ((2, 3, 5, 7), (2, 3, 7, 4), {"alpha": 0.3}),
        ((2, 7, 5), (4, 7), {"transA": 1, "transB": 1}),
        ((7,), (7, 3), {"alpha": 2.0}),
        ((5, 2, 3, 7), (2, 3, 4, 7), {"transBatchA": 1, "transB": 1}),
        ((7, 2, 3, 5), (2, 3, 7, 4), {"transBatchA": 1, "transA": 1}),
        ((2, 3, 5, 7), (7, 2, 3, 4), {"transBatchB": 1}),
    ],
)
def test_fused_matmul(a: tuple[int, ...], b: tuple[int, ...], how: dict[str, Any]) -> None:
    check("FusedMatMul", {"a": rand(*a), "b": rand(*b)}, **how)
    check("FusedMatMul", {"a": rand(*a).astype(float), "b": rand(*b).astype(float)}, **how)
    close(
        *(
            run("FusedMatMul", {"a": rand(*a).astype(t), "b": rand(*b).astype(t)}, **how)[0]
            for t in (np.float16, np.float64)
        ),
        rtol=1e-2,
        atol=3e-2,
    )


@pytest.mark.parametrize("quant_type", [0, 1])
def test_matmul_bnb4(quant_type: int) -> None:
    k, n, block = 48, 3, 32
    b = np.random.default_rng(0).integers(0, 256, n * k // 2).astype(np.uint8)
    absmax = np.abs(rand(-(-n * k // block)))
    settings = {"K": k, "N": n, "block_size": block, "quant_type": quant_type}
    check("MatMulBnb4", {"a": rand(2, 3, k), "b": b, "absmax": absmax}, **settings)
    # onnxruntime's CPU kernel reads past its buffers for transB=0.
    w = np.array(LEVELS[quant_type])[np.stack([b >> 4, b & 15], -1).ravel()] * absmax.repeat(block)[: n * k]
    inputs = {"a": rand(4, n), "b": b, "absmax": absmax}
    close(run("MatMulBnb4", inputs, **settings, transB=0)[0], rand(4, n) @ w.reshape(n, k))


def test_gemm_float8() -> None:
    e4m3 = np.dtype(ml_dtypes.float8_e4m3fn)
    a, b, c = rand(3, 16).astype(e4m3), rand(5, 16, seed=1).astype(e4m3), rand(3, 5)
    inputs = {"a": a, "b": b, "c": c, "sa": np.array([2.0], np.float32), "sb": np.array([0.5], np.float32)}
    expected = 0.5 * (a.astype(float) @ b.astype(float).T) + 2 * c
    settings = {"transB": 1, "alpha": 0.5, "beta": 2.0}
    close(run("GemmFloat8", inputs, **settings)[0], expected)
    close(run("GemmFloat8", inputs, activation="RELU", **settings)[0], np.maximum(expected, 0))
    y = run("GemmFloat8", inputs | {"sy": np.array([4.0], np.float32)}, dtype=17, **settings)[0]
    np.testing.assert_array_equal(
        y.astype(float), (expected * 4).astype(np.float32).astype(e4m3).astype(float)
    )
