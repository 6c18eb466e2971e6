"""Arithmetic of two or more tensors: integers, broadcasting of old opsets, shifts, powers, errors."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from one_node import by_onnxruntime, run

A = np.arange(1, 25, dtype=np.float32).reshape(2, 3, 4)
OLD = [("Add", np.add), ("Sub", np.subtract), ("Mul", np.multiply), ("Div", np.divide)]


@pytest.mark.parametrize("name, function", OLD)
@pytest.mark.parametrize(
    "b, axis, moved",
    [
        (A[0, 0], None, A[0, 0]),
        (A[0], None, A[0]),
        (A[:, 0, 0], 0, A[:, :1, :1]),
        (A[0, :, 0], 1, A[:1, :, :1]),
        (A[0, :, 0], -2, A[:1, :, :1]),
        (A[:1, :1, 0], None, A[:1, :1, :1]),
        (A[0, 0, 0], 0, A[:1, :1, :1]),
    ],
)
def test_old_opsets_align_b_from_axis(name: str, function: Any, b: Any, axis: int | None, moved: Any) -> None:
    attributes = {} if axis is None else {"axis": axis}
    np.testing.assert_array_equal(run(name, A, b, opset=6, broadcast=1, **attributes), function(A, moved))


@pytest.mark.parametrize("attributes", [{}, {"broadcast": 1, "axis": 0}, {"broadcast": 1, "axis": 2}])
def test_old_opsets_refuse_other_shapes(attributes: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="shape"):
        run("Add", A, A[0, :, :], opset=1, **attributes)


@pytest.mark.parametrize("name", ["Max", "Min", "Sum", "Mean"])
def test_variadic(name: str) -> None:
    inputs = [A, -A[0], A[:, :1]]
    function = {"Max": np.max, "Min": np.min, "Sum": np.sum, "Mean": np.mean}[name]
    want = function(np.stack(np.broadcast_arrays(*inputs)), axis=0)
    np.testing.assert_allclose(run(name, *inputs), want, rtol=1e-6)
    assert run(name, A, opset=1) is not None
    with pytest.raises(ValueError, match="same shape"):
        run(name, *inputs, opset=7)


def test_sum_of_narrow_floats_is_rounded_once() -> None:
    tiny = np.full(1, 2.0**-9, ml_dtypes.bfloat16)
    one = np.ones(1, ml_dtypes.bfloat16)
    assert run("Sum", one, tiny, tiny, tiny, tiny) == ml_dtypes.bfloat16(1 + 2.0**-7)


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.int32, np.int64])
def test_integer_division_truncates(dtype: Any) -> None:
    a, b = (np.array(v, dtype=dtype) for v in ([7, -7, 7, -7, 6, np.iinfo(dtype).min], [2, 2, -2, -2, 3, -1]))
    assert run("Div", a, b).tolist() == [3, -3, -3, 3, 2, np.iinfo(dtype).min]
    assert run("Mod", a, b).tolist() == [1, 1, -1, -1, 0, 0]
    assert run("Mod", a, b, fmod=1).tolist() == [1, -1, 1, -1, 0, 0]


@pytest.mark.parametrize("name", ["Div", "Mod"])
def test_integer_division_by_zero(name: str) -> None:
    with pytest.raises(ValueError, match="zero"):
        run(name, np.array([1, 2]), np.array([1, 0]))


def test_mod_of_floats_needs_fmod_before_opset_28() -> None:
    x = np.array([-5.5], dtype=np.float32)
    assert run("Mod", x, x + 8).tolist() == [2.0]
    with pytest.raises(ValueError, match="fmod"):
        run("Mod", x, x, opset=27)


@pytest.mark.parametrize(
    "x, y, want",
    [
        (np.int32([2, -3, 1, -1, -1, 5]), np.int64([10, 3, -5, -5, -4, -1]), [1024, -27, 1, -1, 1, 0]),
        (np.int32([2, 3]), np.float32([0.5, 2.5]), [1, 15]),
        (np.int64([3]), np.uint64([40]), [3**40 - 2**64 if 3**40 >= 2**63 else 3**40]),
        (np.int32([-1, 2, 3]), np.int64([2**40 + 1, 2**40, 0]), [-1, 0, 1]),
        (np.float32([-1.0, 2.0]), np.int64([16777217, -2]), [-1.0, 0.25]),
        (np.float32([3, -2]), np.int8([3]), [27.0, -8.0]),
        (np.float16([3, -2]), np.float64([2]), [9.0, 4.0]),
    ],
)
def test_power(x: Any, y: Any, want: list[float]) -> None:
    z = run("Pow", x, y)
    assert z.dtype == x.dtype and z.tolist() == want


def test_zero_has_no_negative_power_in_integers() -> None:
    with pytest.raises(ValueError, match="zero"):
        run("Pow", np.int32([0]), np.int32([-1]))


def test_power_broadcasts_a_square() -> None:
    assert run("Pow", np.float32(3), np.float32([[2]])).shape == (1, 1)


@pytest.mark.parametrize("exponent", [0.5, -1.5, 2.0, 3.0, 7.25])
def test_power_is_accurate(exponent: float) -> None:
    x = np.random.default_rng(1).uniform(0.01, 20, 500).astype(np.float32)
    want = x.astype(np.float64) ** exponent
    got = run("Pow", x, np.float32([exponent]))
    assert (np.abs(got - want) <= 4 * np.spacing(want.astype(np.float32))).all()


@pytest.mark.parametrize("opset", [1, 6, 7, 10])
def test_clip_by_attributes(opset: int) -> None:
    x = np.float32([-5, 0.5, 5])
    low = {"min": -1.0}
    assert run("Clip", x, opset=opset, **low).tolist() == [-1, 0.5, 5]
    np.testing.assert_array_equal(run("Clip", x, opset=opset, max=1.0, **low), np.clip(x, -1, 1))
    assert run("Clip", x, opset=opset).tolist() == x.tolist()


def test_clip_by_inputs() -> None:
    x = np.int8([-5, 1, 5])
    assert run("Clip", x, np.int8(-1), np.int8(2)).tolist() == [-1, 1, 2]
    assert run("Clip", x, None, np.int8([2])).tolist() == [-5, 1, 2]
    assert run("Clip", x, np.int8(3), np.int8(2)).tolist() == [2, 2, 2]
    with pytest.raises(ValueError, match="min"):
        run("Clip", x, np.int8([1, 2]))


def test_shifts_past_the_ends() -> None:
    x, y = np.int8([-5, 5, -1, 64]), np.int8([9, 9, -1, 1])
    assert run("BitShift", x, y, direction="RIGHT").tolist() == [-1, 0, -1, 32]
    assert run("BitShift", x, y, direction="LEFT").tolist() == [0, 0, 0, -128]
    assert run("BitShift", np.uint8([255]), np.uint8([8]), direction="RIGHT").tolist() == [0]
    with pytest.raises(ValueError, match="direction"):
        run("BitShift", x, y, direction="UP")


@pytest.mark.parametrize("name", ["Add", "Sub", "Mul", "Div", "Max", "Min", "Mod"])
@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_like_onnxruntime(name: str, dtype: Any) -> None:
    rng = np.random.default_rng(3)
    a, b = (rng.integers(lo, 100, (5, 1, 7)[:n]).astype(dtype) for lo, n in ((-100, 3), (1, 2)))
    attributes = {"fmod": 1} if name == "Mod" and dtype == np.float32 else {}
    b = b[:, :, None]
    want = by_onnxruntime(name, a, b, opset=14 if name != "Mod" else 13, **attributes)
    np.testing.assert_array_equal(run(name, a, b, opset=14, **attributes), want)
