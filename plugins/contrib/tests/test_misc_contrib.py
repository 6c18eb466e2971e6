"""The other operators against onnxruntime; what its CPU build lacks, against closed forms in NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from versus import agree, ours

import epkit

F = np.float32
CLOSE: dict[str, Any] = {"rtol": 1e-5, "atol": 1e-5}
R = np.random.default_rng(5)


def numbers(*shape: int, dtype: Any = F) -> Any:
    return np.random.default_rng(shape).normal(size=shape).astype(dtype)


def text(*values: str) -> Any:
    return np.array(values, dtype=object)


# ---- the standard's, before they were standard


@pytest.mark.parametrize("mode", ["constant", "reflect", "edge"])
@pytest.mark.parametrize("pads", [[1, 2, 0, 1], [[1, 0, 2, 2]], [-1, 0, 0, 2]])
def test_pad(mode: str, pads: Any) -> None:
    for constants in ((), (1,)):
        agree("Pad", numbers(3, 4), np.array(pads), np.array(1.5, F), mode=mode, constants=constants)
    with pytest.raises(epkit.EpkitError, match="pads"):
        ours("Pad", numbers(3, 4), np.array([1, 2]), mode=mode)


def test_unique_keeps_the_order() -> None:
    agree("Unique", np.array([2, 1, 1, 3, 4, 3], F), outputs=3)
    agree("Unique", np.array([], F), outputs=3)
    y, places, counts = ours("Unique", text("b", "a", "b"), outputs=3)
    assert (y.tolist(), places.tolist(), counts.tolist()) == (["b", "a"], [0, 1, 0], [2, 1])


@pytest.mark.parametrize("upper", [0, 1])
@pytest.mark.parametrize("k", [None, -2, 0, 1, 7])
def test_trilu(upper: int, k: int | None) -> None:
    x = numbers(2, 3, 4)
    for kind in (F, np.float64, np.int64):
        agree("Trilu", x.astype(kind), None if k is None else np.array(k), upper=upper)
    flags = ours("Trilu", x > -9, None if k is None else np.array(k), upper=upper)
    np.testing.assert_array_equal(flags, (np.triu if upper else np.tril)(x > -9, k or 0))


@pytest.mark.parametrize("axis", [0, 1, 2, -1, -3])
def test_expand_dims(axis: int) -> None:
    for constants in ((), (1,)):
        agree("ExpandDims", numbers(3, 4), np.array(axis, np.int32), constants=constants)


@pytest.mark.parametrize("dtype", [F, np.float64, np.int16, np.int32, np.int64])
def test_range(dtype: Any) -> None:
    one, ten = np.array(1, dtype), np.array(10, dtype)
    agree("Range", one, ten, np.array(3, dtype))
    agree("Range", np.array([10], dtype), np.array([1], dtype), np.array([-2], dtype))
    agree("Range", one, ten)
    with pytest.raises(epkit.EpkitError, match="delta=0"):
        ours("Range", one, ten, np.array(0, dtype))


def test_gathers() -> None:
    x = numbers(2, 3, 4)
    agree("GatherND", x, np.array([[0, 1], [-1, 2]]))
    agree("GatherND", x, np.array([[[0, 1, 1]], [[1, 2, 3]]], np.int32))
    places = np.array([[1, 2], [0, 1]])
    np.testing.assert_array_equal(
        ours("TorchEmbedding", x[0], places, np.array(0), np.array(True)), x[0][places]
    )


# ---- products and transforms


@pytest.mark.parametrize("a", [0, 1])
@pytest.mark.parametrize("b", [0, 1])
def test_transpose_mat_mul(a: int, b: int) -> None:
    left, right = numbers(2, 4, 3) if a else numbers(2, 3, 4), numbers(2, 5, 4) if b else numbers(2, 4, 5)
    agree("TransposeMatMul", left, right, alpha=0.5, transA=a, transB=b, **CLOSE)


def test_inverse() -> None:
    x = numbers(2, 3, 3) + 3 * np.eye(3, dtype=F)
    agree("Inverse", x, **CLOSE)
    agree("Inverse", x.astype(np.float64), rtol=1e-9)
    agree("Inverse", x.astype(np.float16), rtol=1e-2, atol=1e-3)
    for wrong, message in ((np.ones((2, 2), F), "no inverse"), (numbers(2, 3), "square")):
        with pytest.raises(epkit.EpkitError, match=message):
            ours("Inverse", wrong)


@pytest.mark.parametrize("metric", ["sqeuclidean", "euclidean"])
def test_c_dist(metric: str) -> None:
    for dtype in (F, np.float64):
        agree("CDist", numbers(5, 7, dtype=dtype), numbers(6, 7, dtype=dtype), metric=metric, **CLOSE)
    with pytest.raises(epkit.EpkitError, match="metric='cosine'"):
        ours("CDist", numbers(5, 7), numbers(6, 7), metric="cosine")


def transform(n: int) -> Any:
    return np.exp(-2j * np.pi * np.outer(np.arange(n), np.arange(n)) / n)


def test_fourier() -> None:
    x = numbers(2, 6, 8)
    one = (x @ transform(8))[..., :5]
    two = np.einsum("bij,ki,jl->bkl", x, transform(6), transform(8))[..., :5]
    for axes, z in ((1, one), (2, two)):
        y = ours("Rfft", x, signal_ndim=axes)
        np.testing.assert_allclose(y[..., 0] + 1j * y[..., 1], z, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(ours("Irfft", y, signal_ndim=axes), x, rtol=1e-4, atol=1e-5)
    assert ours("Rfft", x.astype(np.float16)).dtype == np.float16
    with pytest.raises(epkit.EpkitError, match="normalized=1"):
        ours("Rfft", x, normalized=1)


def test_complex_products() -> None:
    a, b = numbers(2, 3, 2), numbers(3, 2)
    p, q = a[..., 0] + 1j * a[..., 1], b[..., 0] + 1j * b[..., 1]
    for op, z in (("ComplexMul", p * q), ("ComplexMulConj", p * q.conj())):
        np.testing.assert_allclose(ours(op, a, b), np.stack([z.real, z.imag], axis=-1), **CLOSE)


def test_is_all_finite() -> None:
    x, inf, nan = numbers(3), F([1, np.inf]), F([np.nan])
    for inputs, attributes, expected in (
        ((x, x), {}, True),
        ((x, inf), {}, False),
        ((nan, x), {}, False),
        ((nan, x), {"isinf_only": 1}, True),
        ((inf, x), {"isinf_only": 1}, False),
        ((inf, x), {"isnan_only": 1}, True),
        ((inf, nan), {"isnan_only": 1}, False),
    ):
        assert bool(ours("IsAllFinite", *inputs, **attributes)) is expected


@pytest.mark.parametrize("dim, size, step", [(-1, 2, 1), (0, 2, 2), (1, 3, 1), (1, 4, 2)])
def test_unfold_tensor(dim: int, size: int, step: int) -> None:
    agree("UnfoldTensor", numbers(4, 6, 5), dim=dim, size=size, step=step)


# ---- tokens


@pytest.mark.parametrize("size", [1, 2, 3, 4, 9, 10])
def test_n_gram_repeat_block(size: int) -> None:
    agree("NGramRepeatBlock", R.integers(0, 4, (3, 9)), numbers(3, 6), ngram_size=size)


@pytest.mark.parametrize("seed", range(25))
def test_bifurcation_detector(seed: int) -> None:
    random = np.random.default_rng(seed)
    words = 3 + seed % 4
    source, current = (random.integers(0, words, random.integers(2, 12)) for _ in range(2))
    start = int(random.integers(0, len(source) + 1))
    predicted = np.append(source[start:], 1)
    predicted = np.where(random.random(len(predicted)) < 0.2 * (seed % 3), 7, predicted)
    agree(
        "BifurcationDetector", source, current, np.array(start), predicted if seed % 5 else None,
        outputs=2, min_ngram_size=1 + seed % 2, max_ngram_size=2 + seed % 3,
    )  # fmt: skip


def test_padding_removed_and_restored() -> None:
    x, counts = numbers(3, 4, 2), np.array([2, 4, 0], np.int32)
    tokens, places, ends, longest = ours("RemovePadding", x, counts, outputs=4)
    np.testing.assert_array_equal(tokens, np.concatenate([x[0, :2], x[1]]))
    assert places.ravel().tolist() == [0, 1, 4, 5, 6, 7, 2, 3, 8, 9, 10, 11]
    assert ends.tolist() == [0, 2, 6, 6] and longest.tolist() == [4]
    restored = ours("RestorePadding", tokens, places)
    np.testing.assert_array_equal(restored, np.where(np.arange(4)[:, None] < counts[:, None, None], x, 0))
    with pytest.raises(epkit.EpkitError, match="outside 0 to 4"):
        ours("RemovePadding", x, counts + 1, outputs=4)


@pytest.mark.parametrize("shape", [(5, 7), (1, 6, 4), (1, 1), (1, 5), (5, 1)])
def test_dynamic_time_warping(shape: tuple[int, ...]) -> None:
    agree("DynamicTimeWarping", numbers(*shape))
    agree("DynamicTimeWarping", R.integers(0, 3, shape).astype(F))


# ---- texts

SENTENCES = text("Hello World", "I love  computer science !", "")


@pytest.mark.parametrize("mark", [0, 1])
@pytest.mark.parametrize(
    "x, attributes",
    [
        (SENTENCES, {"separators": [" "]}),
        (SENTENCES, {"separators": [" "], "mincharnum": 2}),
        (SENTENCES, {"separators": ["o", " "], "mincharnum": 2}),
        (SENTENCES, {"separators": ["[aeiou]+", "\\s"]}),
        (SENTENCES, {"separators": [""]}),
        (SENTENCES, {"tokenexp": "."}),
        (SENTENCES, {"tokenexp": "[a-z]+", "mincharnum": 3}),
        (SENTENCES, {"tokenexp": "(l+)|(o)"}),
        (SENTENCES, {"tokenexp": "[a-z]*"}),
        (text("a b", "c", "d e f", "").reshape(2, 2), {"separators": [" "]}),
        (text("", "  "), {"separators": [" "]}),
        (text("äöü ßx", "日本 語"), {"separators": [" "], "mincharnum": 2}),
        (text("äöü", "日本語x"), {"separators": [""]}),
        (text("aaXaa", "XXaX"), {"separators": ["X", "aX"]}),
        (np.empty((2, 0), object), {"separators": [" "]}),
    ],
)
def test_tokenizer(x: Any, attributes: dict[str, Any], mark: int) -> None:
    agree("Tokenizer", x, **{"mincharnum": 1, "pad_value": "#", "mark": mark, **attributes})


def test_tokenizer_refuses() -> None:
    for attributes in ({}, {"separators": [" "], "tokenexp": "a"}, {"separators": [""], "mincharnum": 2}):
        with pytest.raises(epkit.EpkitError, match="separators"):
            ours("Tokenizer", SENTENCES, **{"mincharnum": 1, "pad_value": "", "mark": 0, **attributes})


@pytest.mark.parametrize("positive", [0, 1])
@pytest.mark.parametrize("dtype", [np.int32, np.uint32, np.int64, np.uint64, F, np.float64])
def test_murmur_hash3(dtype: Any, positive: int) -> None:
    agree("MurmurHash3", R.integers(0, 2**31 - 1, (2, 5)).astype(dtype), positive=positive, seed=7 * positive)


def test_murmur_hash3_of_texts() -> None:
    x = text("", "a", "ab", "abc", "abcd", "abcde", "äöü", "hello world")
    agree("MurmurHash3", x, seed=42)
    agree("MurmurHash3", x.reshape(2, 4), positive=0)


@pytest.mark.parametrize("window", [1, 2, 3])
def test_word_conv_embedding(window: int) -> None:
    words = np.array([[1, 2, 3, 0, 0], [4, 5, 6, 7, 8], [3, 0, 0, 0, 0], [2, 0, 5, 0, 0]], np.int32)
    agree("WordConvEmbedding", words, numbers(3, 1, window, 4), numbers(3), numbers(10, 4), **CLOSE)
    with pytest.raises(epkit.EpkitError, match="outside the 8 of C"):
        ours("WordConvEmbedding", words, numbers(3, 1, window, 4), numbers(3), numbers(8, 4))
