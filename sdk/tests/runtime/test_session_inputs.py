"""What callers give: every kind of value that ONNX has, and every way to get it wrong."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import epkit
from epkit.errors import InputError
from epkit.testing.models import model
from epkit.testing.oracle import assert_same, expected

X = np.array([[1, 2, 3]], np.float32)
ADD = model("g (float[N, 3] x, float[N, 3] other) => (float[N, 3] y) { y = Add(x, other) }")


def same(kind: onnx.TypeProto) -> onnx.ModelProto:
    """A model of one Identity over a type."""
    node = helper.make_node("Identity", ["x"], ["y"])
    values = [helper.make_value_info(name, kind) for name in "xy"]
    graph = helper.make_graph([node], "same", values[:1], values[1:])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 25)], ir_version=13)


def tensor(code: int, shape: Any = ("N",)) -> onnx.TypeProto:
    return helper.make_tensor_type_proto(code, shape)


def through(kind: onnx.TypeProto, value: Any) -> Any:
    with epkit.load(same(kind), optimise="none") as session:
        return session(x=value)["y"]


# ---- wrong ----


@pytest.mark.parametrize(
    ("feeds", "what", "remedy"),
    [
        ({"x": X, "othr": X}, "no input 'othr'", "did you mean 'other'?"),
        ({"x": X, "zzz": X, "other": X}, "no input 'zzz'", "its inputs are: x: float32[N, 3]; other"),
        ({"x": X}, "missing input: other", "x: float32[N, 3]; other: float32[N, 3]"),
        ({}, "missing inputs: x, other", "x: float32[N, 3]"),
        (
            {"x": X, "other": X.astype(np.float64)},
            "has dtype float64, the model wants float32",
            "astype('float32')",
        ),
        ({"x": X, "other": X.astype(np.int64)}, "has dtype int64", "astype('float32')"),
        ({"x": X, "other": X.astype("U")}, "has dtype object, the model wants float32", "astype"),
        ({"x": X, "other": X.astype("c16")}, "has dtype complex128", "astype"),
        ({"x": X, "other": X.astype("M8[s]")}, "has dtype datetime64", "astype"),
        (
            {"x": X, "other": X[0]},
            "rank 1 (shape [3]), the model wants rank 2",
            "declared as other: float32[N, 3]",
        ),
        ({"x": X, "other": X[:, :2]}, "has 2 at dimension 1 (shape [1, 2]), the model wants 3", "declared"),
        ({"x": X, "other": [[1], [2, 3]]}, "is a list that does not become float32", "pass a NumPy array"),
        ({"x": X, "other": "text"}, "is a str that does not become float32", "pass a NumPy array"),
        ({"x": X, "other": None}, "input 'other'", "other: float32[N, 3]"),
        ({"x": X, "other": {"a": 1}}, "is a dict that does not become float32", "pass a NumPy array"),
    ],
)
def test_what_does_not_fit_is_named_with_what_would(feeds: dict[str, Any], what: str, remedy: str) -> None:
    with epkit.load(ADD) as session:
        with pytest.raises(InputError) as caught:
            session.run(None, feeds)
        assert what in caught.value.what
        assert remedy in caught.value.remedy
        assert (caught.value.where.stage, caught.value.where.model) == ("run", session.name)
        assert_same(session(x=X, other=X)["y"], X + X)


@pytest.mark.parametrize(
    ("dtype", "value"),
    [
        ("uint8", 256),
        ("uint8", -1),
        ("int8", 200),
        ("int64", 1.5),
        ("bool", 2),
        ("float32", "1"),
        ("float32", None),
    ],
)
def test_python_values_that_do_not_fit_the_type(dtype: str, value: Any) -> None:
    with pytest.raises(InputError, match=f"does not become {dtype}"):
        through(tensor(helper.np_dtype_to_tensor_dtype(np.dtype(dtype))), [value])


# ---- plain Python ----


@pytest.mark.parametrize(
    ("code", "shape", "given", "wanted"),
    [
        (TensorProto.FLOAT, ["N"], [1, 2.5], np.array([1, 2.5], np.float32)),
        (TensorProto.FLOAT, [], 3, np.array(3, np.float32)),
        (TensorProto.INT64, [], np.int64(3), np.array(3)),
        (TensorProto.BOOL, ["N"], (True, False), np.array([True, False])),
        (TensorProto.STRING, ["N"], ["a", "häß"], np.array(["a", "häß"], object)),
        (TensorProto.STRING, [], "a", np.array("a", object)),
        (TensorProto.STRING, ["N"], np.array(["a", "bc"]), np.array(["a", "bc"], object)),
        (TensorProto.STRING, ["N"], np.array(["a", ""], object), np.array(["a", ""], object)),
        (TensorProto.FLOAT, ["N", 2], [], None),
        (TensorProto.FLOAT, [2, "N"], [[], []], np.zeros((2, 0), np.float32)),
        (TensorProto.BFLOAT16, ["N"], [1, -2], np.array([1, -2], ml_dtypes.bfloat16)),
    ],
)
def test_python_values_take_the_models_type(code: int, shape: list[Any], given: Any, wanted: Any) -> None:
    if wanted is None:
        with pytest.raises(InputError, match="rank 1"):
            through(tensor(code, shape), given)
    else:
        assert_same(through(tensor(code, shape), given), wanted)


class Wrapped:
    """An array of some other library."""

    def __init__(self, array: Any) -> None:
        self.array = array


class WithArray(Wrapped):
    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        return self.array


class WithDlpack(Wrapped):
    def __dlpack__(self, **keywords: Any) -> Any:
        return self.array.__dlpack__(**keywords)

    def __dlpack_device__(self) -> Any:
        return self.array.__dlpack_device__()


@pytest.mark.parametrize("kind", [WithArray, WithDlpack])
def test_arrays_of_other_libraries(kind: Any) -> None:
    assert_same(through(tensor(TensorProto.FLOAT), kind(X[0])), X[0])
    with pytest.raises(InputError, match="has dtype float32"):
        through(tensor(TensorProto.INT64), kind(X[0]))


def test_arrays_that_cannot_leave_their_device() -> None:
    class OnDevice:
        def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
            raise RuntimeError("copy it to the host first")

    with pytest.raises(
        InputError, match="is a OnDevice that does not become float32: copy it to the host first"
    ):
        through(tensor(TensorProto.FLOAT), OnDevice())


@pytest.mark.parametrize("array", [X[:, ::-1], np.asfortranarray(np.repeat(X, 2, 0)), X[:0]])
def test_any_layout(array: Any) -> None:
    with epkit.load(ADD) as session:
        assert_same(session(x=array, other=array)["y"], array + array)


# ---- element types ----

NARROW = {
    TensorProto.BFLOAT16: "bfloat16",
    TensorProto.FLOAT8E4M3FN: "float8_e4m3fn",
    TensorProto.FLOAT8E4M3FNUZ: "float8_e4m3fnuz",
    TensorProto.FLOAT8E5M2: "float8_e5m2",
    TensorProto.FLOAT8E5M2FNUZ: "float8_e5m2fnuz",
    TensorProto.INT4: "int4",
    TensorProto.UINT4: "uint4",
    TensorProto.FLOAT4E2M1: "float4_e2m1fn",
}


@pytest.mark.parametrize("code", NARROW)
def test_narrow_types_go_in_and_out(code: int) -> None:
    array = np.array([0, 1, 2, 1], getattr(ml_dtypes, NARROW[code]))
    result = through(tensor(code), array)
    assert result.dtype == array.dtype
    assert result.tobytes() == array.tobytes()
    with pytest.raises(InputError, match=f"the model wants {NARROW[code]}"):
        through(tensor(code), array.astype(np.float32))


@pytest.mark.parametrize("code", [TensorProto.BFLOAT16, TensorProto.FLOAT8E4M3FN, TensorProto.INT4])
def test_narrow_types_are_converted_exactly(code: int) -> None:
    node = helper.make_node("Cast", ["x"], ["y"], to=TensorProto.FLOAT)
    values = [
        helper.make_value_info("x", tensor(code)),
        helper.make_value_info("y", tensor(TensorProto.FLOAT)),
    ]
    graph = helper.make_graph([node], "cast", values[:1], values[1:])
    cast = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    array = np.array([0, 1, 2, -3, 7], getattr(ml_dtypes, NARROW[code]))
    with epkit.load(cast) as session:
        assert_same(session(x=array)["y"], array.astype(np.float32))


# ---- sequences and optionals ----

SEQUENCE = helper.make_sequence_type_proto(tensor(TensorProto.FLOAT, None))
OPTIONAL = helper.make_optional_type_proto(tensor(TensorProto.FLOAT, None))
OPTIONAL_SEQUENCE = helper.make_optional_type_proto(SEQUENCE)


@pytest.mark.parametrize("value", [[], [X], [X, X[0]], (X[0],)])
def test_sequences_are_lists(value: Any) -> None:
    assert_same(through(SEQUENCE, value), list(value))


@pytest.mark.parametrize(
    ("kind", "value"), [(OPTIONAL, X), (OPTIONAL, None), (OPTIONAL_SEQUENCE, [X]), (OPTIONAL_SEQUENCE, None)]
)
def test_optionals_are_values_or_none(kind: onnx.TypeProto, value: Any) -> None:
    assert_same(through(kind, value), value)


def test_an_optional_input_may_be_left_out() -> None:
    graph = model("g (optional(float[N]) x) => (bool y) { y = OptionalHasElement(x) }")
    with epkit.load(graph, optimise="none") as session:
        assert not session()["y"]
        assert session(x=X[0])["y"]


@pytest.mark.parametrize(
    ("kind", "value", "what"),
    [
        (SEQUENCE, X, "is a ndarray, the model wants a list"),
        (SEQUENCE, [X, X.astype(np.int64)], "dtype int64"),
        (OPTIONAL, X.astype(np.float64), "dtype float64"),
        (OPTIONAL_SEQUENCE, X, "the model wants a list"),
    ],
)
def test_wrong_sequences_and_optionals(kind: onnx.TypeProto, value: Any, what: str) -> None:
    with pytest.raises(InputError, match=what):
        through(kind, value)


def test_sequences_are_computed_with() -> None:
    graph = model("""
        g (seq(float[N]) s, float[M] x) => (seq(float[K]) t, int64 n, float[J] joined) {
            t = SequenceInsert(s, x)  n = SequenceLength(t)  joined = ConcatFromSequence <axis = 0> (t)
        }""")
    feeds = {"s": [X[0], X[0, :1]], "x": X[0, 1:]}
    with epkit.load(graph) as session:
        assert_same(session.run(None, feeds), expected(graph, feeds))
        assert len(feeds["s"]) == 2
