"""What is read from the operators by which a graph computes shapes: right where something is said, else nothing."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformer_samples import Builder

import epkit
from epkit.model.check import check
from epkit.model.read import read
from epkit.optimize.dims import broadcast, elements
from epkit.optimize.optimise import optimise
from epkit.optimize.shapes import terms
from epkit.testing.models import model
from epkit.testing.oracle import assert_same, expected

CONSTANTS = """int64 i0 = {0}, int64 i1 = {1}, int64 i2 = {2}, int64 i3 = {3}, int64[1] zero = {0}, int64[1] one = {1},
    int64[1] two = {2}, int64[1] four = {4}, int64[3] minus = {-1, -1, -1}, int64[3] ones = {1, 1, 1}"""
SIZES = "s = Shape(x)  n = Gather(s, i0)  l = Gather(s, i2)  n1 = Unsqueeze(n, zero)  l1 = Unsqueeze(l, zero)"


def shapes(result: str, body: str) -> tuple[list[str], list[str]]:
    """Of the result ``y`` the dimensions, and the operators left, of a graph from ``x`` [N, 6, L, 8]."""
    text = f"g (float[N, 6, L, 8] x) => ({result} y) <{CONSTANTS}> {{ {body} }}"
    proto = model(text)
    found = optimise(check(read(proto)).model, "basic").model
    feeds = {"x": np.arange(2 * 6 * 3 * 8, dtype=np.float32).reshape(2, 6, 3, 8)}
    with epkit.load(proto, optimise="basic") as session:
        assert_same(session.run(None, feeds), expected(proto, feeds))
    shape = found.graph.outputs[0].shape
    assert shape is not None
    return [str(dim) for dim in shape], [node.op_type for node in found.graph]


EXPANDED = [
    pytest.param(f"{SIZES} t = Concat <axis = 0> (n1, two, l1)  r = Slice(x, zero, one, one)"
                 " q = ReduceMax <keepdims = 0> (r, tail)  e = Unsqueeze(q, one)  y = Expand(e, t)",
                 ["N", "2", "L"], id="elements of a shape, joined"),
    pytest.param(f"{SIZES} t = Concat <axis = 0> (n1, two, l1)  b = Equal(t, minus)  w = Where(b, ones, t)"
                 " r = Slice(x, zero, one, one)  q = ReduceMax <keepdims = 0> (r, tail)  e = Unsqueeze(q, one)"
                 "  y = Expand(e, w)", ["N", "2", "L"], id="-1 would leave a dimension as it is"),
    pytest.param(f"{SIZES} c = Gather(s, i1)  d = Div(c, i2)  m = Mul(d, i3)  k = Add(m, i1)  k1 = Unsqueeze(k, zero)"
                 " t = Concat <axis = 0> (k1, n1, l1)  r = Slice(x, zero, one, one)  q = ReduceMax <keepdims = 0> (r, tail)"
                 " y = Expand(q, t)", ["10", "N", "L"], id="arithmetic on what is known"),
]  # fmt: skip


@pytest.mark.parametrize(("body", "wanted"), EXPANDED)
def test_a_computed_target_gives_the_dimensions(body: str, wanted: list[str]) -> None:
    found, _ = shapes("float[A, B, C]", f"tail = Constant <value_ints = [1, 3]> ()  {body}")
    assert found == wanted


def test_a_range_up_to_a_dimension_is_as_long_as_it() -> None:
    found, _ = shapes("int64[A]", f"{SIZES} y = Range(i0, l, i1)")
    assert found == ["L"]


def test_a_number_that_is_a_sum_of_a_name_has_no_name() -> None:
    found, _ = shapes("int64[A]", f"{SIZES} m = Add(l, i1)  y = Range(i0, m, i1)")
    assert found != ["L"] and not found[0].isdigit()


@pytest.mark.parametrize(
    ("steps", "wanted"),
    [
        ("m = Mul(l, i3)", "3*L"),
        ("k = Mul(i3, l)  m = Mul(k, i2)", "6*L"),
        ("k = Mul(l, four_)  m = Div(k, i2)", "2*L"),
        ("k = Mul(l, i2)  m = Div(k, i2)", "L"),
    ],
)
def test_a_number_of_times_a_name_is_named_so(steps: str, wanted: str) -> None:
    found, _ = shapes("int64[A]", f"{SIZES} four_ = Squeeze(four)  {steps}  y = Range(i0, m, i1)")
    assert found == [wanted]


def test_what_does_not_divide_a_name_for_certain_has_no_name() -> None:
    found, _ = shapes("int64[A]", f"{SIZES} k = Mul(l, i3)  m = Div(k, i2)  y = Range(i0, m, i1)")
    assert found[0] not in ("L", "1*L") and not found[0].isdigit()


@pytest.mark.parametrize(
    ("target", "wanted"),
    [
        ("0, -1, 4", ["N", "12*L", "4"]),
        ("0, 3, 0, -1", ["N", "3", "L", "16"]),
        ("0, 2, 3, -1", ["N", "2", "3", "8*L"]),
    ],
)
def test_a_reshape_gives_what_is_left(target: str, wanted: list[str]) -> None:
    dims = ", ".join("ABCD"[: len(wanted)])
    assert (
        shapes(f"float[{dims}]", f"t = Constant <value_ints = [{target}]> ()  y = Reshape(x, t)")[0] == wanted
    )


def test_of_two_names_there_is_no_product() -> None:
    (rows, _), _ = shapes("float[A, B]", "t = Constant <value_ints = [-1, 8]> ()  y = Reshape(x, t)")
    assert not rows.isdigit() and "*" not in rows


def test_a_dimension_that_is_known_is_a_constant_though_others_are_not() -> None:
    """Half the size of a head, as it is computed for rotary embedding: then the slices are a split."""
    found, operators = shapes(
        "float[A, B, C, D]",
        "s = Shape(x)  d = Gather(s, i3)  h = Div(d, i2)  h1 = Unsqueeze(h, zero)  three = Constant <value_ints = [3]> ()"
        " end = Constant <value_ints = [9223372036854775807]> ()  a = Slice(x, zero, h1, three)"
        " b = Slice(x, h1, end, three)  y = Sub(a, b)",
    )
    assert found == ["N", "6", "L", "4"]
    assert operators == ["Split", "Sub"]


def test_a_long_chain_of_sums_of_itself_is_left_alone() -> None:
    """Followed along both operands it would have 2 ** 3000 paths, and 3000 calls within each other."""
    b = Builder(18)
    value = b.op("Shape", b.input("x", onnx.TensorProto.FLOAT, ["N"]))
    for _ in range(3000):
        value = b.op("Add", value, value)
    found = optimise(check(read(b.model(value))).model, "basic").model
    assert len(found.graph) == 3001


SIZE = st.integers(1, 3)


@given(st.data())
def test_broadcast_says_what_numpy_finds_for_all_numbers(data: st.DataObject) -> None:
    """Names stand for any numbers: what is said must hold for those drawn here, wherever they fit together at all."""
    numbers = {name: data.draw(SIZE) for name in ("N", "M")}
    dims = st.lists(st.one_of(SIZE, st.sampled_from(["N", "M"])), max_size=3)
    sides = [data.draw(dims) for _ in range(2)]
    found = broadcast(
        *([each if isinstance(each, int) else ir.SymbolicDim(each) for each in d] for d in sides)
    )
    filled = [[numbers.get(str(each), each) for each in side] for side in sides]
    try:
        wanted = np.broadcast_shapes(*(tuple(map(int, side)) for side in filled))
    except ValueError:
        return
    assert len(found) == len(wanted)
    for dim, size in zip(found, wanted, strict=True):
        told = dim if isinstance(dim, int) else numbers.get(str(dim.value))
        assert told is None or told == size


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_arithmetic_on_dimensions_says_what_the_numbers_are(data: st.DataObject) -> None:
    """Sums, products and quotients of dimensions and numbers; of negative numbers there is no quotient to compare."""
    sizes = {name: data.draw(st.integers(1, 6)) for name in ("N", "M")}
    b = Builder(18)
    shape = b.op("Shape", b.input("x", onnx.TensorProto.FLOAT, ["N", "M"]))
    known = {
        b.op("Gather", shape, b.constant(place, np.int64)): size for place, size in enumerate(sizes.values())
    }
    known |= {b.constant(number, np.int64): number for number in (-1, 0, 1, 2, 3)}
    for _ in range(data.draw(st.integers(1, 6))):
        op_type = data.draw(st.sampled_from(["Add", "Mul", "Div"]))
        one, other = (data.draw(st.sampled_from(sorted(known))) for _ in range(2))
        left, right = known[one], known[other]
        if op_type == "Div" and (right <= 0 or left < 0):
            continue
        result = {"Add": left + right, "Mul": left * right, "Div": left // right if right else 0}[op_type]
        known[b.op(op_type, one, other)] = result
    found = check(read(b.model(list(known)[-1]))).model
    for node in found.graph:
        for dim in elements(node.outputs[0]) or () if node.op_type in ("Add", "Mul", "Div") else ():
            count, name = terms(dim)
            told = dim if isinstance(dim, int) else count * sizes[name] if name in sizes else None
            assert told is None or told == known[str(node.outputs[0].name)]
