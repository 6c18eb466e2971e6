"""Constants, ranges, one-hot tensors, dropout: every attribute form, old versions, limits."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from one_node import by_onnxruntime, run

T = onnx.TensorProto


@pytest.mark.parametrize(
    "name, value, dtype, shape",
    [
        ("value", np.ones((2, 1), ml_dtypes.bfloat16), ml_dtypes.bfloat16, (2, 1)),
        ("value_int", 3, np.int64, ()),
        ("value_ints", (1, 2), np.int64, (2,)),
        ("value_ints", (), np.int64, (0,)),
        ("value_float", 0.5, np.float32, ()),
        ("value_floats", (0.5, 2.0), np.float32, (2,)),
        ("value_string", "text", np.object_, ()),
        ("value_strings", ("a", "bc"), np.object_, (2,)),
    ],
)
def test_constant(name: str, value: Any, dtype: Any, shape: tuple[int, ...]) -> None:
    y = run("Constant", **{name: value})
    assert (y.dtype, y.shape) == (np.dtype(dtype), shape) and y.tolist() == np.asarray(value).tolist()


@pytest.mark.parametrize("indices", [[1, 5], [[0, 1], [1, 2]]])
def test_sparse_constant(indices: Any) -> None:
    values = onnx.numpy_helper.from_array(np.float32([7, 8]))
    sparse = onnx.helper.make_sparse_tensor(values, onnx.numpy_helper.from_array(np.int64(indices)), [2, 3])
    assert run("Constant", sparse_value=sparse).tolist() == [[0, 7, 0], [0, 0, 8]]


def test_constant_of_shape() -> None:
    assert run("ConstantOfShape", np.int64([2, 0])).shape == (2, 0)
    assert run("ConstantOfShape", np.int64([]), value=np.int8([3])).tolist() == 3
    for dtype in (ml_dtypes.int4, ml_dtypes.float8_e4m3fn, np.bool, np.float16):
        assert run("ConstantOfShape", np.int64([2]), value=np.ones(1, dtype)).dtype == dtype
    for bad in ([-1], [2**20, 2**20]):
        with pytest.raises(ValueError, match="shape"):
            run("ConstantOfShape", np.int64(bad))


@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.int64, np.float32, np.float64])
@pytest.mark.parametrize("first, last, step", [(1, 10, 3), (10, 1, -2), (5, 5, 1), (1, 5, -1), (-3, 4, 1)])
def test_range_like_onnxruntime(dtype: Any, first: int, last: int, step: int) -> None:
    arguments = [np.array(v, dtype) for v in (first, last, step)]
    want = by_onnxruntime("Range", *arguments, opset=11)
    y = run("Range", *arguments)
    assert y.dtype == want.dtype and y.tolist() == want.tolist()


def test_range_of_narrow_floats_and_errors() -> None:
    zero, end, one = (np.array(v, ml_dtypes.bfloat16) for v in (0, 512, 1))
    y = run("Range", zero, end, one)
    assert y.dtype == zero.dtype and y.shape == (512,) and y[-1] == ml_dtypes.bfloat16(511)
    for start, limit, delta in (
        (0, 1, 0),
        (0, 2**40, 1),
        (0, np.inf, 1.0),
        (0, np.nan, 1.0),
        (0, 1e30, 1e-30),
    ):
        with pytest.raises(ValueError):
            run("Range", np.asarray(start, type(delta)), np.asarray(limit, type(delta)), np.asarray(delta))


@pytest.mark.parametrize("k", [-9, -1, 0, 2, 9])
@pytest.mark.parametrize("dtype", [T.FLOAT, T.BOOL, T.BFLOAT16, None])
def test_eye_like(k: int, dtype: int | None) -> None:
    y = run("EyeLike", np.zeros((3, 4), np.int32), k=k, **({} if dtype is None else {"dtype": dtype}))
    np.testing.assert_array_equal(y.astype(np.int32), np.eye(3, 4, k=k, dtype=np.int32))


def test_one_hot() -> None:
    indices, values = np.int64([0, -1, 5, -4]), np.int8([9, 1])
    assert run("OneHot", indices, np.int64(3), values).tolist() == [[1, 9, 9], [9, 9, 1], [9] * 3, [9] * 3]
    assert run("OneHot", indices, np.int64([3]), values, opset=9)[1].tolist() == [9, 9, 9]
    assert run("OneHot", np.float32([[1.9]]), np.float32(2.5), values, axis=0).tolist() == [[[9]], [[1]]]
    assert run("OneHot", np.uint64([2**64 - 1]), np.int64(2), values).tolist() == [[9, 9]]
    for bad in ({"axis": 2}, {"axis": -3}):
        with pytest.raises(ValueError, match="axis"):
            run("OneHot", indices, np.int64(3), values, **bad)
    with pytest.raises(ValueError, match="depth"):
        run("OneHot", indices, np.int64(-3), values)


def test_identity_of_sequences_and_optionals() -> None:
    sequence = [np.ones(2), np.zeros(1)]
    assert run("Identity", sequence) == sequence and run("Identity", None) is None


@pytest.mark.parametrize(
    "opset, attributes, mask",
    [(6, {"is_test": 1}, "float32"), (7, {}, "float32"), (10, {}, "bool"), (12, {}, "bool")],
)
def test_dropout_in_inference(opset: int, attributes: dict[str, Any], mask: str) -> None:
    x = np.float32([1, 2, 3])
    y, kept = run("Dropout", x, opset=opset, n_outputs=2, **attributes)
    assert y.tolist() == x.tolist() and kept.dtype == mask and kept.all()


def test_dropout_in_training() -> None:
    x = np.ones((200, 200), ml_dtypes.bfloat16)
    y, mask = run("Dropout", x, np.float32(0.75), np.array(True), seed=3)
    assert y.dtype == x.dtype and mask.dtype == np.bool and abs(mask.mean() - 0.25) < 0.02
    np.testing.assert_array_equal(y.astype(np.float32), mask * 4.0)
    np.testing.assert_array_equal(mask, run("Dropout", x, np.float32(0.75), np.array(True), seed=3)[1])
    old, kept = run("Dropout", x, opset=1)
    assert old.dtype == kept.dtype == x.dtype and 0.4 < kept.astype(np.float32).mean() < 0.6
    with pytest.raises(ValueError, match="ratio"):
        run("Dropout", x, np.float32(1), np.array(True))
