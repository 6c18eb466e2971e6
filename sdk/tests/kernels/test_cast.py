"""Casts: special values, every pair of types, texts, powers of two, bit patterns."""

from __future__ import annotations

import math
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from one_node import by_onnxruntime, run

from epkit.kernels._dtypes import NAMES, dtype_of

T = onnx.TensorProto
FLOAT8 = [T.FLOAT8E4M3FN, T.FLOAT8E4M3FNUZ, T.FLOAT8E5M2, T.FLOAT8E5M2FNUZ]
CASTABLE = [code for code in NAMES if code not in (T.COMPLEX64, T.COMPLEX128)]


@pytest.mark.parametrize("target", CASTABLE, ids=NAMES.get)
@pytest.mark.parametrize("source", CASTABLE, ids=NAMES.get)
def test_one_and_two_survive_every_pair(source: int, target: int) -> None:
    for values in ([1, 1], 1, []):
        numbers = np.array(values, dtype=np.float32)
        x = numbers.astype(str).astype(object) if source == T.STRING else numbers.astype(dtype_of(np, source))
        y = run("Cast", x, to=target)
        assert isinstance(y, np.ndarray) and (y.dtype, y.shape) == (dtype_of(np, target), x.shape)
        assert [float(v) for v in y.ravel()] == [1.0] * x.size
        assert run("CastLike", x, y).dtype == y.dtype


def table_of(code: int) -> dict[float, int]:
    """The finite values of an 8-bit float with their bits."""
    values = np.arange(256, dtype=np.uint8).view(dtype_of(np, code)).astype(np.float64)
    return {v: bits for bits, v in enumerate(values.tolist()) if math.isfinite(v)}


@pytest.mark.parametrize("code", FLOAT8, ids=NAMES.get)
@pytest.mark.parametrize("source", [np.float32, np.float64, np.float16], ids=lambda s: s.__name__)
def test_float8_rounds_to_nearest_even(code: int, source: Any) -> None:
    table = table_of(code)
    values = np.array(sorted(table))
    middles = (values[:-1] + values[1:]) / 2
    x = np.concatenate([values, middles, middles * (1 + 1e-6), middles * (1 - 1e-6), middles * (1 + 1e-12)])
    with np.errstate(all="ignore"):
        x = x.astype(source)
    x = x[np.abs(x.astype(np.float64)) <= values[-1]]
    y = run("Cast", x, to=code).astype(np.float64)
    for wide, got in zip(x.astype(np.float64).tolist(), y.tolist(), strict=True):
        near = np.abs(values - wide)
        best = values[near == near.min()]
        want = best[0] if len(best) == 1 else next(v for v in best if table[float(v)] % 2 == 0)
        assert got == want, wide


@pytest.mark.parametrize("code", FLOAT8, ids=NAMES.get)
def test_float8_special_values(code: int) -> None:
    largest = max(table_of(code))
    x = np.array([np.inf, -np.inf, 1e9, -1e9, np.nan], dtype=np.float32)
    kept = run("Cast", x, to=code).astype(np.float32)
    np.testing.assert_array_equal(kept, [largest, -largest, largest, -largest, np.nan])
    lost = run("Cast", x, to=code, saturate=0).astype(np.float32)
    np.testing.assert_array_equal(
        lost, [np.inf, -np.inf] * 2 + [np.nan] if code == T.FLOAT8E5M2 else [np.nan] * 5
    )
    np.testing.assert_array_equal(run("Cast", np.int64([10**12]), to=code).astype(np.float32), [largest])


def test_double_is_rounded_to_bfloat16_once() -> None:
    x = np.float64([1 + 2.0**-8 + 2.0**-40, 1 + 2.0**-8, 1e300, -1e-300])
    assert run("Cast", x, to=T.BFLOAT16).astype(np.float64).tolist() == [1 + 2.0**-7, 1.0, np.inf, 0.0]


@pytest.mark.parametrize(
    "mode, saturate, want",
    [
        ("up", 1, [2.0**-127, 1, 2, 2, 2, 4, 2.0**127, 2.0**127, np.nan]),
        ("down", 1, [2.0**-127, 1, 1, 1, 1, 2, 2.0**127, 2.0**127, np.nan]),
        ("nearest", 1, [2.0**-127, 1, 1, 2, 2, 4, 2.0**127, 2.0**127, np.nan]),
        ("nearest", 0, [np.nan, 1, 1, 2, 2, 4, np.nan, np.nan, np.nan]),
    ],
)
def test_float8e8m0(mode: str, saturate: int, want: list[float]) -> None:
    x = np.float32([0, 1, 1.25, 1.5, 1.75, 3.5, 3.4e38, np.inf, np.nan])
    y = run("Cast", x, to=T.FLOAT8E8M0, round_mode=mode, saturate=saturate)
    np.testing.assert_array_equal(y.astype(np.float64), want)


def test_higher_bits_are_discarded() -> None:
    x = np.int16([200, -129, 17])
    assert run("Cast", x, to=T.INT8).tolist() == [-56, 127, 17]
    assert run("Cast", x, to=T.INT4).astype(int).tolist() == [-8, -1, 1]
    assert run("Cast", x, to=T.UINT2).astype(int).tolist() == [0, 3, 1]


def test_text_of_numbers() -> None:
    x = np.float32([1, 0.1, 314.15927, np.nan, np.inf, -np.inf, 1e-7])
    assert run("Cast", x, to=T.STRING).tolist() == by_onnxruntime("Cast", x, opset=13, to=T.STRING).tolist()
    assert run("Cast", np.array([True, False]), to=T.STRING).tolist() == ["1", "0"]
    assert run("Cast", np.array(2**63, np.uint64), to=T.STRING).item() == str(2**63)


def test_numbers_of_text() -> None:
    x = np.array(["3.5", "1e3", "+INF", "-inf", "NaN"], dtype=object)
    np.testing.assert_array_equal(
        run("Cast", x, to=T.FLOAT), np.float32([3.5, 1000, np.inf, -np.inf, np.nan])
    )
    assert run("Cast", np.array(["100.5", str(2**62 + 1)], dtype=object), to=T.INT64).tolist() == [
        100,
        2**62 + 1,
    ]


@pytest.mark.parametrize("text, to", [("word", T.FLOAT), ("1_0", T.FLOAT), ("nan", T.INT32), ("300", T.INT8)])
def test_bad_text(text: str, to: int) -> None:
    with pytest.raises(ValueError, match="text"):
        run("Cast", np.array([text], dtype=object), to=to)


def test_bad_types() -> None:
    with pytest.raises(ValueError, match="to=99"):
        run("Cast", np.float32([1]), to=99)
    with pytest.raises(ValueError, match="to='STRING'"):
        run("Cast", np.float32([1]), to="STRING", opset=1)
    with pytest.raises(ValueError, match="bit width"):
        run("BitCast", np.float32([1]), to=T.INT64)
    with pytest.raises(ValueError, match="round_mode"):
        run("Cast", np.float32([1]), to=T.FLOAT8E8M0, round_mode="sideways")


def test_named_type_of_opset_1() -> None:
    assert run("Cast", np.float32([1.5]), to="INT32", opset=5).dtype == np.int32
    assert run("Cast", np.int32([1]), to="DOUBLE", opset=1).dtype == np.float64


def test_bits_come_back() -> None:
    x = np.arange(-8, 8).astype(ml_dtypes.int4)
    y = run("BitCast", x, to=T.UINT4)
    assert y.astype(int).tolist() == [*range(8, 16), *range(8)]
    assert run("BitCast", y, to=T.INT4).astype(int).tolist() == x.astype(int).tolist()
    wide = np.float32([[1, 2], [3, 4]]).T
    assert run("BitCast", run("BitCast", wide, to=T.INT32), to=T.FLOAT).tolist() == wide.tolist()
