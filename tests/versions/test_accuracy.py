"""How near results in float32 come to an evaluation in float64; and ranks and sizes at the edges."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

import epkit

Array = Any
OPSET = 22
LENGTH = 4096
UNITS = 4

UNARY: Mapping[str, tuple[Callable[[Array], Array], float, float]] = {
    "Exp": (np.exp, -20, 20),
    "Log": (np.log, 1e-3, 1e3),
    "Sqrt": (np.sqrt, 0, 1e4),
    "Reciprocal": (np.reciprocal, 0.01, 100),
    "Sin": (np.sin, -10, 10),
    "Cos": (np.cos, -10, 10),
    "Tan": (np.tan, -1.4, 1.4),
    "Asin": (np.arcsin, -1, 1),
    "Acos": (np.arccos, -1, 1),
    "Atan": (np.arctan, -50, 50),
    "Sinh": (np.sinh, -10, 10),
    "Cosh": (np.cosh, -10, 10),
    "Tanh": (np.tanh, -8, 8),
    "Asinh": (np.arcsinh, -100, 100),
    "Acosh": (np.arccosh, 1, 100),
    "Atanh": (np.arctanh, -0.99, 0.99),
    "Sigmoid": (lambda x: 1 / (1 + np.exp(-x)), -20, 20),
    "Softplus": (lambda x: np.logaddexp(0, x), -20, 20),
    "Softsign": (lambda x: x / (1 + np.abs(x)), -20, 20),
    "Elu": (lambda x: np.where(x < 0, np.expm1(x), x), -10, 10),
    "HardSwish": (lambda x: x * np.clip(x / 6 + 0.5, 0, 1), -5, 5),
    "Mish": (lambda x: x * np.tanh(np.logaddexp(0, x)), -10, 10),
}
BINARY: Mapping[str, Callable[[Array, Array], Array]] = {
    "Add": np.add,
    "Sub": np.subtract,
    "Mul": np.multiply,
    "Div": np.divide,
    "Pow": np.power,
    "Max": np.maximum,
}
REDUCED: Mapping[str, Callable[[Array], Array]] = {
    "ReduceSum": lambda x: x.sum(-1),
    "ReduceMean": lambda x: x.mean(-1),
    "ReduceSumSquare": lambda x: (x * x).sum(-1),
    "ReduceL1": lambda x: np.abs(x).sum(-1),
    "ReduceL2": lambda x: np.sqrt((x * x).sum(-1)),
    "ReduceLogSum": lambda x: np.log(x.sum(-1)),
    "ReduceLogSumExp": lambda x: np.log(np.exp(x).sum(-1)),
    "ReduceProd": lambda x: x.prod(-1),
}
SHAPES = [(2,) * rank for rank in range(9)] + [(0,), (2, 0), (0, 3), (2, 0, 3), (1, 0, 1, 0, 2)]
SAMPLE: Mapping[str, Callable[..., Array]] = {
    "Abs": np.abs,
    "Neg": np.negative,
    "Relu": lambda x: np.maximum(x, 0),
    "Floor": np.floor,
    "Identity": lambda x: x,
    "Transpose": np.transpose,
    "Shape": lambda x: np.array(x.shape, np.int64),
    "Size": lambda x: np.array(x.size, np.int64),
    "ReduceSum": lambda x: np.asarray(x.sum(keepdims=True)),
    "NonZero": lambda x: np.array(np.nonzero(np.atleast_1d(x)), np.int64)[: x.ndim],
    "IsNaN": np.isnan,
}


def run(op: str, *inputs: Array, **attributes: Any) -> Array:
    """The first output of one node in a session on the CPU provider."""
    names = [f"x{i}" for i in range(len(inputs))]
    node = helper.make_node(op, names, ["y"], name="node", **attributes)
    infos = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(x.dtype), x.shape)
        for name, x in zip(names, inputs, strict=True)
    ]
    graph = helper.make_graph([node], "one", infos, [onnx.ValueInfoProto(name="y")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)
    with epkit.load(model, ["cpu"], optimise="none") as session:
        return session.run(None, dict(zip(names, inputs, strict=True)))["y"]


def assert_within_units(found: Array, exact: Array) -> None:
    """Within some units in the last place of the exact result."""
    assert found.dtype == np.float32
    units = np.abs(found - exact) / np.spacing(np.abs(exact).astype(np.float32))
    assert units.max() <= UNITS, f"{units.max():.1f} units at {exact.flat[units.argmax()]}"


@pytest.mark.parametrize("op", UNARY)
def test_unary_operators_are_within_units_of_float64(op: str) -> None:
    exact, low, high = UNARY[op]
    x = np.linspace(low, high, 20_001).astype(np.float32)
    assert_within_units(run(op, x), exact(x.astype(np.float64)))


@pytest.mark.parametrize("op", BINARY)
def test_binary_operators_are_within_units_of_float64(op: str) -> None:
    rng = np.random.default_rng(1)
    a, b = rng.uniform(0.1, 8, (2, 20_000)).astype(np.float32)
    assert_within_units(run(op, a, b), BINARY[op](a.astype(np.float64), b.astype(np.float64)))


@pytest.mark.parametrize("op", REDUCED)
@pytest.mark.parametrize("axis", [0, 1])
def test_reductions_are_within_1e_5_of_float64(op: str, axis: int) -> None:
    x = np.random.default_rng(2).uniform(0.9, 1.1, (5, LENGTH)).astype(np.float32)
    exact = REDUCED[op](x.astype(np.float64))
    found = run(op, x if axis else np.ascontiguousarray(x.T), np.array([axis]), keepdims=0)
    np.testing.assert_allclose(found, exact, 1e-5)


@pytest.mark.parametrize("op", ["MatMul", "Gemm"])
def test_products_are_within_1e_5_of_float64(op: str) -> None:
    rng = np.random.default_rng(3)
    a, b = (
        rng.uniform(0, 1, (7, LENGTH)).astype(np.float32),
        rng.uniform(0, 1, (LENGTH, 9)).astype(np.float32),
    )
    np.testing.assert_allclose(run(op, a, b), a.astype(np.float64) @ b.astype(np.float64), 1e-5)


@pytest.mark.parametrize("op", ["Softmax", "LogSoftmax"])
def test_softmax_is_within_1e_5_of_float64(op: str) -> None:
    x = np.random.default_rng(4).normal(size=(3, LENGTH)).astype(np.float32)
    e = np.exp(x.astype(np.float64))
    exact = e / e.sum(-1, keepdims=True)
    np.testing.assert_allclose(run(op, x), exact if op == "Softmax" else np.log(exact), 1e-5)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("op", SAMPLE)
def test_every_rank_and_empty_axes_go_through_a_session(op: str, shape: tuple[int, ...]) -> None:
    x = np.random.default_rng(5).normal(size=shape).astype(np.float32) * np.float32(3)
    x = np.asarray(x, np.float32)
    found, exact = run(op, x), np.asarray(SAMPLE[op](x))
    assert (found.dtype, found.shape) == (exact.dtype, exact.shape)
    np.testing.assert_allclose(found, exact, 1e-5)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_rank_and_empty_axes_broadcast(shape: tuple[int, ...]) -> None:
    x = np.asarray(np.random.default_rng(6).normal(size=shape), np.float32)
    for other in (np.float32(2), np.ones(shape[-1:], np.float32), x):
        np.testing.assert_array_equal(run("Add", x, np.asarray(other)), np.asarray(x + other))
