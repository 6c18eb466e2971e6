"""Fourier transforms against NumPy's in double precision, windows against their formulas."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from peer import assert_like_peer, data, ours


def number(z: Any) -> Any:
    return z[..., 0] if z.shape[-1] == 1 else z[..., 0] + 1j * z[..., 1].astype(np.float64)


@pytest.mark.parametrize("last", [1, 2])
@pytest.mark.parametrize("inverse", [0, 1])
@pytest.mark.parametrize("length", [None, 4, 9])
@pytest.mark.parametrize("axis", [1, -2, 0])
def test_dft(last: int, inverse: int, length: int | None, axis: int) -> None:
    x = data(3, 6, 5, last)
    size = None if length is None else np.array(length)
    function = np.fft.ifft if inverse else np.fft.fft
    want = function(number(x), n=length, axis=axis if axis >= 0 else axis + 1)
    old = ours("DFT", [x, size], 17, axis=axis, inverse=inverse)
    new = ours("DFT", [x, size, np.array(axis)], 20, inverse=inverse)
    assert old.dtype == np.float32
    np.testing.assert_array_equal(old, new)
    np.testing.assert_allclose(number(new), want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("length", [None, 5, 8])
def test_one_side_and_back(length: int | None) -> None:
    x = data(2, 8, 1)
    size = None if length is None else np.array([length])
    half = ours("DFT", [x, size], 20, onesided=1)
    np.testing.assert_allclose(number(half), np.fft.rfft(x[..., 0], n=length), rtol=1e-4, atol=1e-5)
    back = ours("DFT", [half, size], 20, onesided=1, inverse=1)
    np.testing.assert_allclose(back, x[:, :length], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float64])
def test_types(dtype: Any) -> None:
    x = data(1, 8, 1).astype(dtype)
    assert ours("DFT", [x], 20).dtype == dtype
    assert ours("STFT", [x, np.array(2), None, np.array(4)], 17).dtype == dtype


@pytest.mark.parametrize(
    ("shape", "length", "axis", "attributes", "message"),
    [
        ((2, 8, 3), None, -2, {}, "size 1 .real. or 2"),
        ((2, 8, 1), None, -1, {}, "axis=-1"),
        ((2, 8, 1), None, 5, {}, "axis=5"),
        ((2, 8, 1), 0, -2, {}, "dft_length=0"),
        ((2, 8, 2), None, -2, {"onesided": 1}, "needs a real input"),
        ((2, 8, 1), None, -2, {"onesided": 1, "inverse": 1}, "needs a complex input"),
        ((2, 0, 1), None, -2, {}, "too short"),
    ],
)
def test_dft_refuses(shape: Any, length: Any, axis: int, attributes: Any, message: str) -> None:
    size = None if length is None else np.array(length)
    with pytest.raises(ValueError, match=message):
        ours("DFT", [data(*shape), size, np.array(axis)], 20, **attributes)


@pytest.mark.parametrize("onesided", [0, 1])
@pytest.mark.parametrize("windowed", [False, True])
def test_stft(onesided: int, windowed: bool) -> None:
    inputs = [
        data(2, 20, 1),
        np.array(3),
        np.hanning(8).astype(np.float32) if windowed else None,
        np.array(8),
    ]
    if windowed:
        assert_like_peer("STFT", inputs, 17, onesided=onesided, rtol=1e-4)
    y = ours("STFT", inputs, 17, onesided=onesided)
    assert y.shape == (2, 5, 5 if onesided else 8, 2)
    frame = inputs[0][1, 6:14, 0] * (inputs[2] if windowed else 1)
    np.testing.assert_allclose(number(y)[1, 2], np.fft.fft(frame)[: y.shape[2]], rtol=1e-4, atol=1e-5)


def test_stft_of_a_complex_signal_and_refusals() -> None:
    x = data(1, 6, 2)
    y = ours("STFT", [x, np.array(6)], 17, onesided=0)
    np.testing.assert_allclose(number(y)[0, 0], np.fft.fft(number(x)[0]), rtol=1e-4, atol=1e-5)
    for step, length, message in (
        (0, 4, "frame_step=0"),
        (1, 7, "frame length 7"),
        (1, 4, "needs a real signal"),
    ):
        with pytest.raises(ValueError, match=message):
            ours("STFT", [x, np.array(step), None, np.array(length)], 17)


@pytest.mark.parametrize(("name", "oracle"), [("HannWindow", np.hanning), ("BlackmanWindow", np.blackman)])
@pytest.mark.parametrize("size", [1, 2, 10])
def test_windows(name: str, oracle: Any, size: int) -> None:
    np.testing.assert_allclose(ours(name, [np.array(size)], 17, periodic=0), oracle(size), atol=1e-7)
    np.testing.assert_allclose(ours(name, [np.array(size)], 17), oracle(size + 1)[:-1], atol=1e-7)


def test_hamming_window_and_types() -> None:
    y = ours("HammingWindow", [np.array(8)], 17, output_datatype=11)
    np.testing.assert_allclose(y, 25 / 46 - 21 / 46 * np.cos(np.arange(8) * np.pi / 4), rtol=1e-12)
    for code, dtype in ((1, np.float32), (10, np.float16), (16, ml_dtypes.bfloat16), (7, np.int64)):
        assert ours("HammingWindow", [np.array(8)], 17, output_datatype=code).dtype == dtype
    assert ours("HannWindow", [np.array(0)], 17).shape == (0,)
    with pytest.raises(ValueError, match="size=-1"):
        ours("HannWindow", [np.array(-1)], 17)
    with pytest.raises(ValueError, match="output_datatype=8"):
        ours("HannWindow", [np.array(3)], 17, output_datatype=8)


def test_mel_weight_matrix() -> None:
    inputs = [np.array(v) for v in (8, 64, 8192)] + [np.array(v, np.float32) for v in (10, 4000)]
    assert_like_peer("MelWeightMatrix", inputs, 17)
