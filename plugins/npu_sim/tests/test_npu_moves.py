"""Gather, Pad, Tile, Where and Concat: on plain integers, and on integers that stand for real numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx.parser
import onnx.reference
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from npu_node import Q, code, feeds_of, integers, on_npu, qdq
from onnx import helper, numpy_helper

import epkit
from epkit.errors import RunError

TYPES = ["int8", "uint8", "int16", "uint16"]
FEW = settings(max_examples=12, deadline=None)


def standard(model: onnx.ModelProto, feeds: dict[str, Any]) -> Any:
    return onnx.reference.ReferenceEvaluator(model).run(None, feeds)[0]


def plain(op: str, operands: dict[str, Any], constant: set[str], dtype: str, shape: Any, **how: Any) -> Any:
    """One operator on integers as they are; what is not constant is fed."""
    fed = {name: value for name, value in operands.items() if name not in constant}
    infos = [helper.make_tensor_value_info(n, code(str(v.dtype)), v.shape) for n, v in fed.items()]
    result = helper.make_tensor_value_info("y", code(dtype), shape)
    initializers = [numpy_helper.from_array(operands[name], name) for name in constant]
    graph = helper.make_graph(
        [helper.make_node(op, list(operands), ["y"], **how)], "g", infos, [result], initializers
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    got = on_npu(model, fed)
    assert np.array_equal(got, standard(model, fed))
    return model, got


@FEW
@given(
    st.integers(0, 10**6), st.sampled_from(TYPES), st.integers(0, 2), st.booleans(), st.sampled_from(["int32", "int64"])
)  # fmt: skip
def test_gather_takes_indices_of_the_run(seed: int, dtype: str, axis: int, fixed: bool, kind: str) -> None:
    """Negative ones too; the indices may be constants, and so may the table."""
    rng = np.random.default_rng(seed)
    shape = tuple(int(n) for n in rng.integers(1, 9, 3))
    index = rng.integers(-shape[axis], shape[axis], rng.integers(1, 6, 2)).astype(kind)
    x = integers(rng, shape, dtype)
    out = (*shape[:axis], *index.shape, *shape[axis + 1 :])
    plain("Gather", {"x": x, "index": index}, {"index"} if fixed else set(), dtype, out, axis=axis)
    plain("Gather", {"x": x, "index": index}, {"x"} if not fixed else set(), dtype, out, axis=axis)


def test_gather_cuts_long_rows_into_tiles() -> None:
    rng = np.random.default_rng(0)
    x, index = integers(rng, (3, 5, 30000), "int8"), np.array([4, -5, 2, 2])
    plain("Gather", {"x": x, "index": index}, set(), "int8", (3, 4, 30000), axis=1)
    x, index = integers(rng, (40, 7, 3), "int16"), rng.integers(-7, 7, 3000)
    plain("Gather", {"x": x, "index": index}, set(), "int16", (40, 3000, 3), axis=1)


def test_an_index_beyond_its_axis_is_an_error_with_its_place() -> None:
    """Indices are data of the run, so the device is the first to see them."""
    rng = np.random.default_rng(0)
    x, index = integers(rng, (4, 3), "int8"), np.array([0, 3])
    model, _ = plain("Gather", {"x": x, "index": index}, set(), "int8", (2, 3))
    model.graph.node[0].name = "lookup"
    with epkit.load(model, ["npu_sim"], fallback="error") as session:
        for wrong in (4, -5):
            with pytest.raises(RunError, match=r"not in \[-4, 3\]") as caught:
                session.run(None, {"x": x, "index": np.array([0, wrong])})
            assert (caught.value.where.provider, caught.value.where.node) == ("npu_sim", "lookup")
        assert np.array_equal(session.run(None, {"x": x, "index": index})["y"], x[index])


def test_an_embedding_is_looked_up_in_quantised_form() -> None:
    """A constant table behind DequantizeLinear: its integers are gathered, and summed with others."""
    model = onnx.parser.parse_model("""<ir_version: 10, opset_import: ["" : 21]>
    g (int64[6] ids, int8[6, 8] x) => (int8[6, 8] y) <float s = {0.05}, float t = {0.2}, int8 z = {3}> {
        table_r = DequantizeLinear(table, s, z)  rows = Gather(table_r, ids)
        xr = DequantizeLinear(x, s, z)  a = Add(rows, xr)  y = QuantizeLinear(a, t, z)
    }""")
    rng = np.random.default_rng(0)
    model.graph.initializer.append(numpy_helper.from_array(integers(rng, (50, 8), "int8"), "table"))
    feeds = {"ids": np.array([3, -1, 49, 0, 3, -50]), "x": integers(rng, (6, 8), "int8")}
    assert np.abs(on_npu(model, feeds).astype(int) - standard(model, feeds).astype(int)).max() <= 1


@FEW
@given(st.integers(0, 10**6), st.sampled_from(TYPES), st.integers(1, 4), st.booleans())
def test_padding_on_any_side(seed: int, dtype: str, rank: int, valued: bool) -> None:
    rng = np.random.default_rng(seed)
    shape, pads = rng.integers(1, 6, rank), rng.integers(0, 4, (2, rank))
    out = tuple(int(n) for n in shape + pads.sum(axis=0))
    operands = {"x": integers(rng, tuple(shape), dtype), "pads": pads.reshape(-1).astype(np.int64)}
    if valued:
        operands["value"] = integers(rng, (), dtype)
    plain("Pad", operands, {"pads", "value"} & set(operands), dtype, out)


@pytest.mark.parametrize("value", [None, np.float32(0.5)])
def test_padding_of_real_numbers_is_their_zero(value: Any) -> None:
    x = Q(integers(np.random.default_rng(0), (2, 3, 4), "int8"), 0.1, 9)
    rest = [np.array([1, 0, 2, 0]), value, np.array([2, 0])]
    for y in (Q((4, 3, 5), 0.1, 9), Q((4, 3, 5), 0.13, -7)):
        model = qdq("Pad", [x, *rest], y)
        assert np.array_equal(on_npu(model, feeds_of([x])), standard(model, feeds_of([x])))


@FEW
@given(st.integers(0, 10**6), st.sampled_from(TYPES), st.integers(1, 4))
def test_tiles(seed: int, dtype: str, rank: int) -> None:
    rng = np.random.default_rng(seed)
    shape, repeats = rng.integers(1, 6, rank), rng.integers(1, 4, rank)
    operands = {"x": integers(rng, tuple(shape), dtype), "repeats": repeats.astype(np.int64)}
    plain("Tile", operands, {"repeats"}, dtype, tuple(int(n) for n in shape * repeats))


@FEW
@given(
    st.integers(0, 10**6), st.sampled_from(TYPES), st.sets(st.sampled_from(["mask", "a", "b"]), max_size=2),
    st.sampled_from([((4, 5), (4, 5), (4, 5)), ((7, 1), (7, 5), (5,)), ((), (2, 3), (1, 1)), ((3, 1, 2), (4, 1), (1,))]),
)  # fmt: skip
def test_where_broadcasts(seed: int, dtype: str, constant: set[str], shapes: Any) -> None:
    rng = np.random.default_rng(seed)
    operands = {"mask": rng.random(shapes[0]) < 0.5, "a": integers(rng, shapes[1], dtype)}
    operands["b"] = integers(rng, shapes[2], dtype)
    plain("Where", operands, constant, dtype, np.broadcast_shapes(*shapes))


def test_where_between_scales() -> None:
    """Masked attention: the choice itself, in a chain, is one pass with the sum before it."""
    model = onnx.parser.parse_model("""<ir_version: 10, opset_import: ["" : 21]>
    g (bool[4, 6] m, int8[4, 6] a, int8[4, 6] b) => (int8[4, 6] y) <float s = {0.1}, float t = {0.2}, int8 z = {5}> {
        ar = DequantizeLinear(a, s, z)  br = DequantizeLinear(b, t, z)  c = Add(ar, br)  q = QuantizeLinear(c, t, z)
        cr = DequantizeLinear(q, t, z)  d = Where(m, cr, br)  y = QuantizeLinear(d, t, z)
    }""")
    rng = np.random.default_rng(0)
    feeds = {name: integers(rng, (4, 6), "int8") for name in ("a", "b")} | {"m": rng.random((4, 6)) < 0.5}
    got, want = on_npu(model, feeds), standard(model, feeds)
    assert np.array_equal(got[~feeds["m"]], feeds["b"][~feeds["m"]])
    assert np.abs(got.astype(int) - want.astype(int)).max() <= 1


def test_a_constant_may_be_part_of_a_whole() -> None:
    """Concat with a constant, and with a tensor that has no elements: the first failed to compile."""
    rng = np.random.default_rng(0)
    parts = {
        "a": integers(rng, (3, 2), "int8"),
        "k": integers(rng, (3, 4), "int8"),
        "e": np.zeros((3, 0), np.int8),
    }
    plain("Concat", parts, {"k"}, "int8", (3, 6), axis=1)
