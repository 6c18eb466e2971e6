"""What is invented, and how values are compared."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from epkit.cli._compare import compare
from epkit.cli._invent import Inventor
from epkit.dtypes import CODE, SPELLING, numpy_dtype
from epkit.errors import InputError
from epkit.runtime.feeds import ValueInfo

FLOATS = st.floats(width=32)


def tensor(name: str, dtype: str, *shape: int | str | None) -> ValueInfo:
    return ValueInfo(name, dtype, shape, f"tensor({SPELLING[dtype]})")


# ---- inventing ----


@settings(deadline=None)
@given(
    dtype=st.sampled_from(sorted(CODE)),
    shape=st.lists(st.one_of(st.integers(0, 4), st.sampled_from(["n", "channel", "past + 1"])), max_size=4),
)
def test_invented_tensors_have_the_declared_type_and_shape(dtype: str, shape: list[int | str]) -> None:
    value = Inventor({}).make(tensor("x", dtype, *shape))
    assert value.dtype == numpy_dtype(dtype)
    expected = [{"n": 1, "channel": 3, "past + 1": 1}[dim] if isinstance(dim, str) else dim for dim in shape]
    assert list(value.shape) == expected


def test_a_symbolic_dimension_has_one_size_everywhere() -> None:
    inventor = Inventor({"seq": 7})
    ids = inventor.make(tensor("input_ids", "int64", "batch", "seq"))
    mask = inventor.make(tensor("attention_mask", "int64", "batch", "past_len + seq"))
    assert ids.shape == mask.shape == (1, 7)
    assert (mask == 1).all()
    assert ids.min() >= 0 and ids.max() < 8


def test_names_shape_the_values() -> None:
    inventor = Inventor({})
    positions = inventor.make(tensor("position_ids", "int64", 2, 4))
    np.testing.assert_array_equal(positions, [[0, 1, 2, 3]] * 2)
    assert not inventor.make(tensor("token_type_ids", "int64", 2, 4)).any()
    image = inventor.make(tensor("pixels", "float32", None, 3, "height", "width"))
    assert image.shape == (1, 3, 64, 64)
    assert image.min() >= 0 and image.max() < 1


@pytest.mark.parametrize(
    ("dtype", "declared", "made"),
    [
        ("int64", (None, None), (1, 16)),
        ("float32", (None, None), (1, 512)),
        ("float32", ("batch", "sequence"), (1, 512)),
        ("float32", (None, None, 80), (1, 16, 80)),
        ("float32", (2, None, 128), (2, 1, 128)),
        ("float32", (None, None, None, None), (1, 3, 64, 64)),
        ("float32", ("unk__1", 3, 48, "unk__2"), (1, 3, 48, 64)),
    ],
)
def test_sizes_by_position(dtype: str, declared: tuple[int | str | None, ...], made: tuple[int, ...]) -> None:
    assert Inventor({}).make(tensor("x", dtype, *declared)).shape == made


def test_optional_inputs_are_left_out_and_sequences_are_lists() -> None:
    assert Inventor({}).make(ValueInfo("x", "", None, "optional(tensor(float))")) is None
    items = Inventor({}).make(ValueInfo("x", "", None, "seq(tensor(int64))"))
    assert [item.dtype for item in items] == [np.dtype("int64")] * 2


@pytest.mark.parametrize(
    "info",
    [
        ValueInfo("x", "float32", None, "tensor(float)"),
        ValueInfo("x", "", None, "seq(map(string, tensor(float)))"),
    ],
)
def test_what_cannot_be_invented_is_asked_for(info: ValueInfo) -> None:
    with pytest.raises(InputError, match="--input x=FILE"):
        Inventor({}).make(info)


# ---- comparing ----

pairs = arrays.mutually_broadcastable_shapes(num_shapes=1, max_dims=3, max_side=4).flatmap(
    lambda shapes: st.tuples(
        arrays.arrays(np.float32, shapes.result_shape, elements=FLOATS),
        arrays.arrays(np.float32, shapes.result_shape, elements=FLOATS),
    )
)


@settings(deadline=None)
@given(pairs, st.sampled_from([0.0, 1e-3, 0.5]), st.sampled_from([0.0, 1e-5, 1.0]))
def test_numbers_are_compared_as_numpy_does(
    pair: tuple[np.ndarray[tuple[int, ...], np.dtype[np.float32]], ...], rtol: float, atol: float
) -> None:
    actual, expected = pair
    wide = (actual.astype(np.float64), expected.astype(np.float64))
    close = np.isclose(*wide, rtol=rtol, atol=atol, equal_nan=True)
    result = compare("y", actual, expected, rtol, atol)
    assert result.wrong == np.count_nonzero(~close)
    assert result.passed == close.all()
    assert compare("y", expected, expected.copy(), 0, 0).passed


def test_the_measures() -> None:
    result = compare("y", np.array([1.5, 0.0, 4.0]), np.array([1.0, 0.0, 5.0]), 0, 0)
    assert (result.max_abs, result.max_rel, result.wrong, result.total) == (1.0, 0.5, 2, 3)
    lost = compare("y", np.array([np.nan]), np.array([1.0]), 1, 1)
    assert math.isinf(lost.max_abs) and not lost.passed


@pytest.mark.parametrize(
    ("actual", "expected", "problem"),
    [
        (np.zeros((2, 3)), np.zeros((3, 2)), "expected shape [3, 2], got [2, 3]"),
        (np.zeros(2, np.float32), np.zeros(2), "expected float64, got float32"),
        ([np.zeros(2)], [np.zeros(2)] * 2, "expected 2 items, got 1 items"),
        ({"a": 1}, {"b": 1}, "expected a map with the keys ['b'], got a map with the keys ['a']"),
        (None, np.zeros(2), "got None"),
        (np.zeros(2), None, "expected None"),
    ],
)
def test_things_that_cannot_be_compared(actual: object, expected: object, problem: str) -> None:
    result = compare("y", actual, expected, 1, 1)
    assert problem in result.problem
    assert not result.passed


def test_items_text_and_large_integers() -> None:
    big = np.array([2**62, 5])
    assert compare("y", [big, np.array(["a"], object)], [big, np.array(["a"])], 0, 0).passed
    assert compare("y", big + [1, 0], big, 0, 0).wrong == 1
    assert compare("y", np.array(["a", "b"], object), np.array(["a", "c"], object), 1, 1).wrong == 1
    assert compare("y", [{"a": 1.0, "b": 2.0}], [{"a": 1.0, "b": 2.5}], 0, 0.1).wrong == 1
