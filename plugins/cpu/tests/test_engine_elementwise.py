"""Elementwise chains on the native engine, against onnxruntime, on every instruction set."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
from engine_session import BY_CHANCE, RANDOM, all_native, check, make, normal
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper

import epkit
from epkit.errors import RunError
from epkit_cpu.native import isas

pytestmark = pytest.mark.skipif(not isas(), reason="the package was built without a compiler")


UNARY = [
    "Relu",
    "Tanh",
    "Sigmoid",
    "Neg",
    "Abs",
    "Exp",
    "Erf",
    "Floor",
    "Ceil",
    "Round",
    "Softplus",
    "Elu",
    "Sin",
]
BINARY = ["Add", "Sub", "Mul", "Div", "Max", "Min"]


@BY_CHANCE
@given(data=st.data())
def test_chains_of_any_shape(isa: str, data: st.DataObject) -> None:
    """A random expression over inputs that broadcast; every value is kept within reach of exp."""
    rank = data.draw(st.integers(0, 4))
    full = [data.draw(st.sampled_from([1, 2, 3, 17, 64])) for _ in range(rank)]
    feeds, nodes, values = {}, [], []
    for index in range(data.draw(st.integers(1, 4))):
        cut = data.draw(st.integers(0, rank))
        shape = [d if data.draw(st.booleans()) else 1 for d in full[cut:]]
        feeds[f"x{index}"] = np.asarray(np.clip(normal(*shape), -2, 2))
        values.append(f"x{index}")
    for index in range(data.draw(st.integers(1, 8))):
        name = f"v{index}"
        if data.draw(st.booleans()):
            nodes.append(
                helper.make_node(
                    data.draw(st.sampled_from(UNARY)), [data.draw(st.sampled_from(values))], [f"{name}_"]
                )
            )
        else:
            pair = [data.draw(st.sampled_from(values)), data.draw(st.sampled_from(values))]
            nodes.append(helper.make_node(data.draw(st.sampled_from(BINARY)), pair, [f"{name}_"]))
        nodes.append(helper.make_node("Clip", [f"{name}_", "low", "high"], [name]))
        values.append(name)
    weights = {"low": np.array(-3, np.float32), "high": np.array(3, np.float32)}
    # a floor just below and above a whole number differs by 1 between libraries that round exp differently
    rough = any(node.op_type in ("Floor", "Ceil", "Round") for node in nodes)
    model = make(nodes, feeds, [values[-1]], weights)
    with epkit.load(model) as session:
        assert all_native(session)
        found = session.run(None, feeds)[values[-1]]
    peer = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (wanted,) = peer.run(None, feeds)
    assert found.shape == wanted.shape
    near = np.isclose(found, wanted, rtol=1e-3, atol=1e-4, equal_nan=True)
    assert near.mean() > 0.9 if rough and near.size > 8 else near.all() or rough


@pytest.mark.parametrize("dtype", ["int32", "int64", "uint8", "float64"])
def test_arithmetic_of_other_types(isa: str, dtype: str) -> None:
    feeds = {
        "a": RANDOM.integers(1, 50, (3, 70)).astype(dtype),
        "b": RANDOM.integers(1, 9, (70,)).astype(dtype),
    }
    ops = ["Add", "Sub", "Mul", "Div"] + (["Max", "Min"] if dtype != "uint8" else [])
    nodes = [helper.make_node(op, ["a", "b"], [op]) for op in ops]
    nodes += [
        helper.make_node("Less", ["a", "b"], ["less"]),
        helper.make_node("Where", ["less", "a", "b"], ["where"]),
    ]
    check(nodes, feeds, [*ops, "less", "where"])


def test_an_integer_division_by_zero_is_an_error_and_not_the_end(isa: str) -> None:
    nodes = [helper.make_node("Div", ["a", "b"], ["y"], name="div")]
    a, b = np.arange(4), np.array([1, 2, 0, 4])
    with epkit.load(make(nodes, {"a": a, "b": b}, ["y"], {})) as session:
        with pytest.raises(RunError, match="division by zero") as caught:
            session(a=a, b=b)
        assert caught.value.where.node == "div"
        assert session(a=a, b=b + 1)["y"].tolist() == [0, 0, 2, 0]
