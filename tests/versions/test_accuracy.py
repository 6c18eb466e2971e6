"""How exact the CPU provider is: elementwise within 4 units in the last place, long sums within 1e-5."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

import epkit
from epkit.dtypes import CODE, name_of, numpy_dtype

Array = np.ndarray[Any, Any]
LENGTH = 4096


def compute(op: str, *inputs: Array, opset: int = 24, outputs: int = 1, **attributes: Any) -> Array:
    """The first output of a one-node model."""
    infos = [
        helper.make_tensor_value_info(f"x{i}", CODE[name_of(x.dtype)], x.shape) for i, x in enumerate(inputs)
    ]
    node = helper.make_node(
        op, [info.name for info in infos], [f"y{i}" for i in range(outputs)], **attributes
    )
    graph = helper.make_graph([node], "one", infos, [onnx.ValueInfoProto(name=name) for name in node.output])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    with epkit.load(model, ["cpu"], optimise="none") as session:
        results = session.run(None, {f"x{i}": x for i, x in enumerate(inputs)})
    return np.asarray(results["y0"])


# ---- elementwise ----

erf = np.vectorize(math.erf, otypes=[float])
erfc = np.vectorize(math.erfc, otypes=[float])


def sigmoid(x: Array) -> Array:
    """Without overflow."""
    return np.where(x < 0, np.exp(np.minimum(x, 0)), 1) / (1 + np.exp(-np.abs(x)))


def softplus(x: Array) -> Array:
    """Without overflow."""
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


def exponential_unit(x: Array) -> Array:
    """Elu with alpha 1."""
    return np.where(x < 0, np.expm1(np.minimum(x, 0)), x)


FUNCTIONS: Mapping[str, tuple[Callable[[Array], Array], float, float]] = {
    "Acos": (np.arccos, -1, 1),
    "Acosh": (np.arccosh, 1, 1e6),
    "Asin": (np.arcsin, -1, 1),
    "Asinh": (np.arcsinh, -1e6, 1e6),
    "Atan": (np.arctan, -1e6, 1e6),
    "Atanh": (np.arctanh, -0.99999, 0.99999),
    "Celu": (exponential_unit, -80, 10),
    "Cos": (np.cos, -100, 100),
    "Cosh": (np.cosh, -80, 80),
    "Elu": (exponential_unit, -80, 10),
    "Erf": (erf, -6, 6),
    "Exp": (np.exp, -80, 80),
    "Gelu": (lambda x: x * erfc(-x / math.sqrt(2)) / 2, -10, 10),
    "HardSigmoid": (lambda x: np.clip(np.float64(np.float32(0.2)) * x + 0.5, 0, 1), -6, 6),
    "HardSwish": (lambda x: x * np.clip(x / 6 + 0.5, 0, 1), -6, 6),
    "Log": (np.log, 1e-30, 1e30),
    "Mish": (lambda x: x * np.tanh(softplus(x)), -20, 20),
    "Reciprocal": (np.reciprocal, 1e-30, 1e30),
    "Selu": (
        lambda x: 1.05070102214813232421875 * np.where(x < 0, 1.67326319217681884765625 * np.expm1(x), x),
        -80,
        10,
    ),
    "Sigmoid": (sigmoid, -80, 80),
    "Sin": (np.sin, -100, 100),
    "Sinh": (np.sinh, -80, 80),
    "Softplus": (softplus, -80, 80),
    "Softsign": (lambda x: x / (1 + np.abs(x)), -1e6, 1e6),
    "Sqrt": (np.sqrt, 0, 1e30),
    "Swish": (lambda x: x * sigmoid(x), -80, 80),
    "Tan": (np.tan, -100, 100),
    "Tanh": (np.tanh, -20, 20),
}


def arguments(low: float, high: float, dtype: Any) -> Array:
    """Numbers of all sizes in the range, evenly and by order of magnitude, rounded to the type."""
    even = np.linspace(low, high, 4001)
    small = np.concatenate([even * 10.0**-k for k in range(1, 12)])
    numbers = np.concatenate([even, small[(small >= low) & (small <= high)]])
    rounded = numbers.astype(dtype)
    wide = rounded.astype(np.float64)
    return rounded[(wide >= low) & (wide <= high)]


def units(found: Array, exact: Array) -> Array:
    """The distance in units in the last place of the exact result, in the type of what was found."""
    with np.errstate(all="ignore"):
        spacing = np.spacing(np.abs(exact).astype(found.dtype)).astype(np.float64)
    distance = np.abs(found.astype(np.float64) - exact)
    return np.where(distance == 0, 0, distance / spacing)


@pytest.mark.parametrize("op", FUNCTIONS)
def test_elementwise_functions_are_exact_to_4_units(op: str) -> None:
    function, low, high = FUNCTIONS[op]
    x = arguments(low, high, np.float32)
    found, exact = compute(op, x), function(x.astype(np.float64))
    off = units(found, exact)
    if op == "HardSigmoid":  # a difference: as exact as its terms, one of which is 0.5
        off = np.abs(found - exact) / np.spacing(np.float32(0.5))
    worst = int(np.argmax(off))
    assert off[worst] <= 4, f"at {x[worst]!r}: {found[worst]!r}, exactly {exact[worst]!r}"


@pytest.mark.parametrize("op", FUNCTIONS)
def test_half_precision_is_computed_wider_and_rounded_once(op: str) -> None:
    function, low, high = FUNCTIONS[op]
    x = arguments(max(low, -300), min(high, 300), np.float16)
    found, exact = compute(op, x, opset=28), function(x.astype(np.float64))
    inside = np.abs(exact) < np.finfo(np.float16).max
    assert units(found, exact)[inside].max() <= 0.51


BINARY: Mapping[str, Callable[[Array, Array], Array]] = {
    "Add": np.add,
    "Sub": np.subtract,
    "Mul": np.multiply,
    "Div": np.divide,
    "Pow": np.power,
    "Max": np.maximum,
    "Mean": lambda a, b: (a + b) / 2,
}


@pytest.mark.parametrize("op", BINARY)
def test_elementwise_arithmetic_is_exact_to_4_units(op: str) -> None:
    rng = np.random.default_rng(5)
    a = np.exp(rng.uniform(-20, 20, 20_000)).astype(np.float32)
    b = rng.uniform(0.05, 3, 20_000).astype(np.float32)
    found, exact = compute(op, a, b), BINARY[op](a.astype(np.float64), b.astype(np.float64))
    assert units(found, exact).max() <= 4


# ---- reductions and products ----


def numbers(*shape: int, low: float = -1.0, seed: int = 0) -> Array:
    """float32 numbers up to 1."""
    return np.random.default_rng([seed, *shape]).uniform(low, 1, shape).astype(np.float32)


REDUCTIONS: Mapping[str, Callable[[Array], Array]] = {
    "ReduceL1": lambda x: np.abs(x).sum(-1),
    "ReduceL2": lambda x: np.sqrt((x * x).sum(-1)),
    "ReduceLogSum": lambda x: np.log(x.sum(-1)),
    "ReduceLogSumExp": lambda x: np.log(np.exp(x).sum(-1)),
    "ReduceMean": lambda x: x.mean(-1),
    "ReduceProd": lambda x: x.prod(-1),
    "ReduceSum": lambda x: x.sum(-1),
    "ReduceSumSquare": lambda x: (x * x).sum(-1),
}


@pytest.mark.parametrize("op", REDUCTIONS)
@pytest.mark.parametrize("axis", [0, 1])
def test_long_reductions_are_exact_to_1e_5(op: str, axis: int) -> None:
    x = numbers(8, LENGTH, low=0)
    x = x * np.float32(0.01) + np.float32(0.995) if op == "ReduceProd" else x
    found = compute(op, x if axis else x.T.copy(), np.array([axis]), keepdims=0)
    np.testing.assert_allclose(found, REDUCTIONS[op](x.astype(np.float64)), rtol=1e-5)


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


def test_long_products_are_exact_to_1e_5_of_their_terms() -> None:
    for name, (found, exact, size) in products().items():
        assert (np.abs(found - exact) / size).max() <= 1e-5, name


def test_long_normalisations_are_exact_to_1e_5() -> None:
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
def test_long_half_precision_sums_do_not_stall(name: str) -> None:
    """Summed up in the type itself, ones stop counting at 2048 or 256."""
    ones = np.ones((2, LENGTH), numpy_dtype(name))
    assert compute("ReduceSum", ones, np.array([1]), keepdims=0).tolist() == [LENGTH, LENGTH]
    assert compute("MatMul", ones, ones.T.copy()).tolist() == [[LENGTH, LENGTH]] * 2
    assert compute("ReduceMean", ones, np.array([1]), keepdims=0).tolist() == [1, 1]


# ---- ranks, and dimensions of size zero ----

SHAPE = (2, 1, 3, 1, 2, 3, 1, 2)
SHAPES = [SHAPE[:rank] for rank in range(9)] + [
    (*SHAPE[: rank // 2], 0, *SHAPE[rank // 2 + 1 : rank]) for rank in range(1, 9)
]


def ints(*values: int) -> Array:
    """A vector of int64."""
    return np.array(values, np.int64)


def softmax(x: Array) -> Array:
    """Over the last axis."""
    shares = np.exp(x)
    return shares / shares.sum(-1, keepdims=True)


Pair = tuple[Array, Any]

ANY_RANK: Mapping[str, Callable[[Array], Pair]] = {
    "Relu": lambda x: (compute("Relu", x), np.maximum(x, 0)),
    "Sigmoid": lambda x: (compute("Sigmoid", x), sigmoid(x)),
    "Mul": lambda x: (compute("Mul", x, np.array(2, np.float32)), x * 2),
    "Where": lambda x: (compute("Where", x > 0, x, -x), np.abs(x)),
    "Cast": lambda x: (compute("Cast", x, to=7), x.astype(np.int64)),
    "Expand": lambda x: (compute("Expand", x, ints(2, *x.shape)), np.stack([x, x])),
    "Flatten": lambda x: (compute("Flatten", x, axis=0), x.reshape(1, x.size)),
    "NonZero": lambda x: (compute("NonZero", x), np.nonzero(np.atleast_1d(x))[: x.ndim] or np.empty((0, 1))),
    "Pad": lambda x: (
        compute("Pad", x, ints(*([1] * x.ndim + [0] * x.ndim))),
        np.pad(x, [(1, 0)] * x.ndim) if x.ndim else x,
    ),
    "ReduceSum": lambda x: (compute("ReduceSum", x, keepdims=0), x.sum()),
    "Reshape": lambda x: (compute("Reshape", x, ints(*x.shape, 1), allowzero=1), x[..., None]),
    "Shape": lambda x: (compute("Shape", x), ints(*x.shape)),
    "Size": lambda x: (compute("Size", x), x.size),
    "Tile": lambda x: (compute("Tile", x, ints(*[2] * x.ndim)), np.tile(x, [2] * x.ndim)),
    "Transpose": lambda x: (compute("Transpose", x), x.T),
    "Unsqueeze": lambda x: (compute("Unsqueeze", x, ints(0, -1)), x[None, ..., None]),
}

FROM_RANK_1: Mapping[str, Callable[[Array], Pair]] = {
    "Add": lambda x: (compute("Add", x, x[..., :1]), x + x[..., :1]),
    "Concat": lambda x: (compute("Concat", x, x, axis=-1), np.concatenate([x, x], -1)),
    "Gather": lambda x: (compute("Gather", x, ints(), axis=-1), x[..., :0]),
    "ReduceMax": lambda x: (compute("ReduceMax", x, ints(0)), x.max(0, keepdims=True, initial=-np.inf)),
    "Slice": lambda x: (compute("Slice", x, ints(0), ints(1), ints(-1)), x[..., :1]),
    "Softmax": lambda x: (compute("Softmax", x, axis=-1), softmax(x)),
    "Split": lambda x: (compute("Split", x, ints(0, x.shape[-1]), outputs=2, axis=-1), x[..., :0]),
}


@pytest.mark.parametrize("op", [*ANY_RANK, *FROM_RANK_1])
def test_every_rank_from_0_to_8_and_empty_tensors(op: str) -> None:
    function = ANY_RANK.get(op) or FROM_RANK_1[op]
    for shape in SHAPES if op in ANY_RANK else SHAPES[1:]:
        x = np.asarray(np.random.default_rng(1).uniform(-2, 2, shape), np.float32)
        found, expected = function(x)
        assert found.shape == np.shape(expected), f"{shape}"
        np.testing.assert_allclose(found, expected, rtol=1e-5, err_msg=f"{shape}")
