"""Long sums are exact to 1e-5: reductions, products, normalisations, in every way of the CPU provider."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes
from onnx import helper

from epkit.dtypes import numpy_dtype

from .exactly import Array, units
from .one import compute, compute_all
from .ways import way as way

LENGTH = 4096


def numbers(*shape: int, low: float = -1.0, seed: int = 0) -> Array:
    """float32 numbers up to 1."""
    return np.random.default_rng([seed, *shape]).uniform(low, 1, shape).astype(np.float32)


REDUCTIONS: Mapping[str, Callable[..., Array]] = {
    "ReduceL1": lambda x, **over: np.abs(x).sum(**over),
    "ReduceL2": lambda x, **over: np.sqrt((x * x).sum(**over)),
    "ReduceLogSum": lambda x, **over: np.log(x.sum(**over)),
    "ReduceLogSumExp": lambda x, **over: np.log(np.exp(x).sum(**over)),
    "ReduceMax": lambda x, **over: x.max(**over),
    "ReduceMean": lambda x, **over: x.mean(**over),
    "ReduceMin": lambda x, **over: x.min(**over),
    "ReduceProd": lambda x, **over: x.prod(**over),
    "ReduceSum": lambda x, **over: x.sum(**over),
    "ReduceSumSquare": lambda x, **over: (x * x).sum(**over),
}


@pytest.mark.parametrize("axis", [0, 1])
def test_long_reductions_are_exact_to_1e_5(way: str, axis: int) -> None:
    x = numbers(8, LENGTH, low=0)
    feeds = {"x": x if axis else x.T.copy(), "axes": np.array([axis])}
    feeds["near1"] = feeds["x"] * np.float32(0.01) + np.float32(0.995)  # whose product stays in range
    chosen = {op: "near1" if op == "ReduceProd" else "x" for op in REDUCTIONS}
    nodes = [helper.make_node(op, [name, "axes"], [op], keepdims=0) for op, name in chosen.items()]
    found = compute_all(nodes, feeds)
    for op, name in chosen.items():
        exact = REDUCTIONS[op](feeds[name].astype(np.float64), axis=axis)
        np.testing.assert_allclose(found[op], exact, rtol=1e-5, err_msg=op)


@given(
    op=st.sampled_from(sorted(REDUCTIONS)),
    element=st.sampled_from(["float32", "float16", "bfloat16"]),
    shape=array_shapes(min_dims=0, max_dims=6, min_side=1, max_side=6),
    keep=st.booleans(),
    data=st.data(),
)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_reductions_of_every_shape(
    way: str, op: str, element: str, shape: tuple[int, ...], keep: bool, data: st.DataObject
) -> None:
    axes = data.draw(st.lists(st.integers(0, max(len(shape) - 1, 0)), unique=True, max_size=len(shape)))
    x = numbers(*shape, low=0.5) + np.float32(0.5)
    if op == "ReduceProd":  # whose product stays in range
        x = (x - np.float32(1.25)) * np.float32(0.01) + np.float32(1)
    x = x.astype(numpy_dtype(element))
    found = compute_all(
        [helper.make_node(op, ["x", "axes"], ["y"], keepdims=int(keep))],
        {"x": x, "axes": np.array(axes, np.int64)},
    )["y"]
    exact = REDUCTIONS[op](x.astype(np.float64), axis=tuple(axes) or None, keepdims=keep)
    assert found.shape == np.shape(exact)
    if element == "float32":
        np.testing.assert_allclose(found, exact, rtol=1e-5, atol=1e-6)
    else:  # a logarithm of nearly 1 is as exact as its argument
        near = np.ones_like(exact) if "Log" in op else None
        assert units(found, np.asarray(exact), near).max(initial=0) <= 0.51


def wide(*arrays: Array) -> list[Array]:
    """As float64."""
    return [x.astype(np.float64) for x in arrays]


def products() -> dict[str, tuple[Array, Array, Array]]:
    """Name -> what was found, the exact result, and the sum of the absolute terms."""
    a, b = numbers(8, LENGTH), numbers(LENGTH, 8, seed=1)
    exact, size = np.matmul(*wide(a, b)), np.matmul(*wide(np.abs(a), np.abs(b)))
    x, w = numbers(2, 256, 5, 6), numbers(3, 256, 4, 4, seed=1)
    windows = np.lib.stride_tricks.sliding_window_view(wide(x)[0], (4, 4), (2, 3))
    sums = np.einsum("nchwij,ocij->nohw", windows, wide(w)[0])
    sizes = np.einsum("nchwij,ocij->nohw", np.abs(windows), np.abs(wide(w)[0]))
    line = numbers(4, LENGTH)
    return {
        "MatMul": (compute("MatMul", a, b), exact, size),
        "Gemm": (compute("Gemm", a, b.T.copy(), transB=1), exact, size),
        "Einsum": (compute("Einsum", a, b, equation="ij,jk->ik"), exact, size),
        "Conv": (compute("Conv", x, w), sums, sizes),
        "CumSum": (
            compute("CumSum", line, np.array(1)),
            wide(line)[0].cumsum(1),
            np.abs(wide(line)[0]).cumsum(1),
        ),
    }


def test_long_products_are_exact_to_1e_5_of_their_terms(way: str) -> None:
    for name, (found, exact, size) in products().items():
        assert (np.abs(found - exact) / size).max() <= 1e-5, name


def test_long_normalisations_are_exact_to_1e_5(way: str) -> None:
    x, ones = numbers(4, LENGTH), np.ones(LENGTH, np.float32)
    (exact,) = wide(x)
    shares = np.exp(exact) / np.exp(exact).sum(1, keepdims=True)
    centred = exact - exact.mean(1, keepdims=True)
    np.testing.assert_allclose(compute("Softmax", x), shares, rtol=1e-5)
    np.testing.assert_allclose(compute("LogSoftmax", x), np.log(shares), rtol=1e-5)
    normal = centred / np.sqrt(exact.var(1, keepdims=True) + 1e-5)
    np.testing.assert_allclose(compute("LayerNormalization", x, ones), normal, rtol=1e-5, atol=1e-6)
    scaled = exact / np.sqrt((exact**2).mean(1, keepdims=True) + 1e-5)
    np.testing.assert_allclose(compute("RMSNormalization", x, ones), scaled, rtol=1e-5, atol=1e-7)
    plane = numbers(1, 2, 64, 64, low=0)
    means = wide(plane)[0].mean((2, 3), keepdims=True)
    np.testing.assert_allclose(compute("GlobalAveragePool", plane), means, rtol=1e-5)


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_long_half_precision_sums_do_not_stall(way: str, name: str) -> None:
    """Summed up in the type itself, ones stop counting at 2048 or 256."""
    ones = np.ones((2, LENGTH), numpy_dtype(name))
    assert compute("ReduceSum", ones, np.array([1]), keepdims=0).tolist() == [LENGTH, LENGTH]
    assert compute("MatMul", ones, ones.T.copy()).tolist() == [[LENGTH, LENGTH]] * 2
    assert compute("ReduceMean", ones, np.array([1]), keepdims=0).tolist() == [1, 1]
