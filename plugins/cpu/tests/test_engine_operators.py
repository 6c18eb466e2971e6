"""Products, movement, reductions, codes and sequences on the native engine, against onnxruntime, on every instruction set."""

from __future__ import annotations

import numpy as np
import pytest
from engine_session import BY_CHANCE, RANDOM, check, normal
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper

from epkit_cpu.native import isas

pytestmark = pytest.mark.skipif(not isas(), reason="the package was built without a compiler")


@BY_CHANCE
@given(
    m=st.integers(1, 70),
    n=st.sampled_from([1, 3, 16, 33, 64, 130]),
    k=st.sampled_from([1, 2, 31, 64, 257]),
    batch=st.sampled_from([(), (3,), (2, 3)]),
    constant=st.booleans(),
)
def test_matmul_with_bias_and_activation(
    isa: str, m: int, n: int, k: int, batch: tuple[int, ...], constant: bool
) -> None:
    a, b, bias = normal(*batch, m, k), normal(k, n), normal(n)
    nodes = [
        helper.make_node("MatMul", ["a", "b"], ["p"]),
        helper.make_node("Add", ["p", "bias"], ["s"]),
        helper.make_node("Relu", ["s"], ["y"]),
    ]
    weights = {"bias": bias} | ({"b": b} if constant else {})
    check(nodes, {"a": a} | ({} if constant else {"b": b}), ["y"], weights, atol=1e-3)


@pytest.mark.parametrize(
    ("a", "b"),
    [((5,), (5, 3)), ((2, 5), (5,)), ((2, 1, 4, 5), (3, 5, 2)), ((1, 4, 5), (6, 5, 2)), ((0, 5), (5, 2))],
)
def test_matmul_of_odd_ranks(isa: str, a: tuple[int, ...], b: tuple[int, ...]) -> None:
    check([helper.make_node("MatMul", ["a", "b"], ["y"])], {"a": normal(*a), "b": normal(*b)}, ["y"])


@pytest.mark.parametrize("c", [(), (1,), (7,), (1, 7), (4, 1), (4, 7)])
def test_gemm(isa: str, c: tuple[int, ...]) -> None:
    node = helper.make_node("Gemm", ["a", "b", "c"], ["y"], alpha=0.5, beta=2.0, transA=1, transB=1)
    check([node], {"a": normal(9, 4), "c": normal(*c)}, ["y"], {"b": normal(7, 9)})


@BY_CHANCE
@given(data=st.data())
def test_movement(isa: str, data: st.DataObject) -> None:
    shape = data.draw(st.lists(st.integers(1, 9), min_size=1, max_size=4))
    rank = len(shape)
    kind = np.dtype(data.draw(st.sampled_from(["float32", "int64", "uint8", "float64", "bool"])))
    x = RANDOM.integers(0, 2 if kind.kind == "b" else 100, shape).astype(kind)
    axis = data.draw(st.integers(-rank, rank - 1))
    steps = data.draw(st.lists(st.sampled_from([-2, -1, 1, 3]), min_size=rank, max_size=rank))
    weights = {
        "starts": np.array([-1 if s < 0 else 1 for s in steps]),
        "ends": np.array([-100 if s < 0 else 100 for s in steps]),
        "axes": np.arange(rank),
        "steps": np.array(steps),
        "indices": RANDOM.integers(-shape[axis], shape[axis], (2, 3)),
        "repeats": RANDOM.integers(0, 3, rank),
    }
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], perm=data.draw(st.permutations(range(rank)))),
        helper.make_node("Slice", ["x", "starts", "ends", "axes", "steps"], ["s"]),
        helper.make_node("Concat", ["x", "x", "x"], ["c"], axis=axis),
        helper.make_node("Gather", ["x", "indices"], ["g"], axis=axis),
        helper.make_node("Tile", ["x", "repeats"], ["r"]),
        helper.make_node("Split", ["c"], ["c1", "c2", "c3"], axis=axis, num_outputs=3),
    ]
    check(nodes, {"x": x}, ["t", "s", "c", "g", "r", "c1", "c3"], weights)


@pytest.mark.parametrize(
    "kind", ["ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceL2", "ReduceLogSumExp"]
)
@pytest.mark.parametrize("axes", [[0], [1], [2], [0, 1], [1, 2], [0, 2], [0, 1, 2], None])
def test_reductions(isa: str, kind: str, axes: list[int] | None) -> None:
    weights = {} if axes is None else {"axes": np.array(axes)}
    nodes = [
        helper.make_node(kind, ["x", *weights], ["kept"]),
        helper.make_node(kind, ["x", *weights], ["gone"], keepdims=0),
    ]
    # around 1: a sum that cancels has no right digits in float32, whoever makes it
    check(nodes, {"x": 1 + normal(7, 33, 40)}, ["kept", "gone"], weights)


def test_top_k_and_extremes(isa: str) -> None:
    x = RANDOM.integers(0, 20, (4, 50, 3)).astype(np.float32)  # with ties
    nodes = [
        helper.make_node("TopK", ["x", "k"], ["v", "i"], axis=1),
        helper.make_node("TopK", ["x", "k"], ["w", "j"], axis=1, largest=0),
        helper.make_node("ArgMax", ["x"], ["a"], axis=1),
        helper.make_node("ArgMin", ["x"], ["b"], axis=-1, keepdims=0, select_last_index=1),
        helper.make_node("CumSum", ["x", "axis"], ["s"], reverse=1),
    ]
    check(nodes, {"x": x}, ["v", "i", "w", "j", "a", "b", "s"], {"k": np.array([7]), "axis": np.array(1)})


@pytest.mark.parametrize("kind", ["uint8", "int8"])
def test_quantised(isa: str, kind: str) -> None:
    zeros = RANDOM.integers(0, 9, 24).astype(kind)
    weights = {"s": np.array(0.03, np.float32), "z": np.array(7, kind), "t": np.abs(normal(24)), "u": zeros}
    weights |= {"b": RANDOM.integers(0, 100, (24, 33)).astype(kind), "bz": np.array(5, kind)}
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "t", "u"], ["d"], axis=-1),
        helper.make_node("MatMulInteger", ["q", "b", "z", "bz"], ["m"]),
    ]
    check(nodes, {"x": normal(5, 24)}, ["q", "d", "m"], weights)


@pytest.mark.parametrize("cell", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
def test_recurrent(isa: str, cell: str, direction: str) -> None:
    gates, d = {"LSTM": 4, "GRU": 3, "RNN": 1}[cell], 2 if direction == "bidirectional" else 1
    weights = {"w": normal(d, gates * 9, 5), "r": normal(d, gates * 9, 9), "b": normal(d, 2 * gates * 9)}
    node = helper.make_node(cell, ["x", "w", "r", "b"], ["y", "h"], hidden_size=9, direction=direction)
    check([node], {"x": normal(11, 3, 5)}, ["y", "h"], weights, atol=1e-4)
