"""Products against onnxruntime and NumPy."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from peer import assert_like_peer, data, ours


@pytest.mark.parametrize(
    ("a", "b"),
    [((3,), (3,)), ((3,), (2, 3, 4)), ((2, 4, 3), (3,)), ((2, 1, 4, 3), (5, 3, 2)), ((2, 4, 3), (3, 5))],
)
@pytest.mark.parametrize("opset", [1, 9, 13])
def test_matmul(a: Any, b: Any, opset: int) -> None:
    assert_like_peer("MatMul", [data(*a), data(*b, seed=1)], opset)


def test_matmul_of_integers_wraps() -> None:
    y = ours("MatMul", [np.full((1, 2), 2**31, np.uint32), np.ones((2, 1), np.uint32)], 13)
    assert y.dtype == np.uint32 and y.tolist() == [[0]]


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_matmul_accumulates_wide(dtype: Any) -> None:
    y = ours("MatMul", [np.ones((1, 4096), dtype), np.ones((4096, 1), dtype)], 13)
    assert y.dtype == dtype and float(y[0, 0]) == 4096


@pytest.mark.parametrize(("a", "b"), [((2, 3), (2, 3)), ((), (3,))])
def test_matmul_refuses(a: Any, b: Any) -> None:
    with pytest.raises(ValueError, match="inputs A"):
        ours("MatMul", [data(*a), data(*b)], 13)


@pytest.mark.parametrize("opset", [1, 6, 7, 9, 11, 13])
@pytest.mark.parametrize("c", [(4, 5), (5,), (4, 1), (1,)])
def test_gemm(opset: int, c: Any) -> None:
    old = {"broadcast": 1} if opset < 7 else {}
    inputs = [data(3, 4), data(5, 3, seed=1), data(*c, seed=2)]
    y = ours("Gemm", inputs, opset, alpha=0.5, beta=2.0, transA=1, transB=1, **old)
    np.testing.assert_allclose(y, 0.5 * inputs[0].T @ inputs[1].T + 2 * inputs[2], rtol=1e-5, atol=1e-5)
    assert y.dtype == np.float32


def test_gemm_of_integers_and_without_c() -> None:
    a, b = np.arange(6, dtype=np.int32).reshape(2, 3), np.arange(6, dtype=np.int32).reshape(3, 2)
    y = ours("Gemm", [a, b], 13, alpha=0.5)
    assert y.dtype == np.int32
    np.testing.assert_array_equal(y, np.trunc(a @ b * 0.5))


@pytest.mark.parametrize(
    ("shapes", "opset", "message"),
    [
        (((2, 3), (3, 2), (2,)), 6, "broadcast=0"),
        (((2, 3), (2, 3), (2,)), 13, "inner size"),
        (((2, 3, 1), (3, 2), (2,)), 13, "matrices"),
    ],
)
def test_gemm_refuses(shapes: Any, opset: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ours("Gemm", [data(*s) for s in shapes], opset)


@pytest.mark.parametrize(
    ("equation", "shapes"),
    [
        ("ij->ji", [(2, 3)]),
        ("ij", [(2, 3)]),
        ("ba", [(2, 3)]),
        ("ii->i", [(3, 3)]),
        ("iji->j", [(3, 2, 3)]),
        ("ii", [(3, 3)]),
        ("i,i", [(3,), (3,)]),
        ("ij,jk", [(2, 3), (3, 4)]),
        ("bhid,bhjd->bhij", [(2, 3, 4, 5), (2, 3, 6, 5)]),
        ("...ij,...jk->...ik", [(2, 1, 3, 4), (5, 4, 2)]),
        ("...i,...i->...", [(2, 3), (3,)]),
        ("i...->...", [(2, 3, 4)]),
        ("ij,kl,jk->il", [(2, 3), (4, 5), (3, 4)]),
        ("a,b,c->cab", [(2,), (3,), (4,)]),
        ("ab,ab->ab", [(2, 3), (2, 3)]),
        ("ab,c->a", [(2, 3), (4,)]),
        ("ij,ij->", [(0, 3), (0, 3)]),
        (",i->i", [(), (3,)]),
        (" i j , A k -> A i ", [(2, 3), (4, 5)]),
    ],
)
@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.int64])
def test_einsum(equation: str, shapes: Any, dtype: Any) -> None:
    inputs = [(10 * data(*shape, seed=n)).astype(dtype) for n, shape in enumerate(shapes)]
    y, want = ours("Einsum", inputs, 12, equation=equation), np.einsum(equation.replace(" ", ""), *inputs)
    assert (y.shape, y.dtype) == (want.shape, dtype)
    np.testing.assert_allclose(y, want, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("equation", ["ij,jk", "i->i", "ij->k", "ij->ii", "i1->i", "i....->i", "ij->i->j"])
def test_einsum_refuses(equation: str) -> None:
    with pytest.raises(ValueError, match="equation"):
        ours("Einsum", [data(2, 3)], 12, equation=equation)


def test_einsum_refuses_sizes() -> None:
    with pytest.raises(ValueError, match="'j' has the sizes 3 and 4"):
        ours("Einsum", [data(2, 3), data(4, 2)], 12, equation="ij,jk->ik")


def test_det() -> None:
    x = data(2, 3, 3)
    np.testing.assert_allclose(ours("Det", [x], 11), np.linalg.det(x.astype(np.float64)), rtol=1e-5)
    assert ours("Det", [x[0].astype(np.float16)], 22).dtype == np.float16
    assert ours("Det", [data(0, 2, 2)], 22).shape == (0,)
    with pytest.raises(ValueError, match="square"):
        ours("Det", [data(2, 3)], 22)


def test_results_are_not_views_of_inputs() -> None:
    x = data(2, 2)
    for equation in ("ij->ij", "ii->i", "ij->ji"):
        assert not np.shares_memory(ours("Einsum", [x], 12, equation=equation), x)
