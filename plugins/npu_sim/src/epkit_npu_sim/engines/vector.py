"""The vector unit. All results are those of exact integer arithmetic, rounded once, half to even."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import isa
from .array import Array, Result, centred, tensor, windows

EXACT = 2.0**53


def rounded(product: Array, shift: Array | int) -> Array:
    """product / 2^shift of int64 numbers, half to even."""
    shift = np.asarray(shift, np.int64)
    quotient = product >> shift
    rest = product - (quotient << shift)
    half = np.where(shift > 0, np.int64(1) << np.maximum(shift - 1, 0), np.int64(1))
    up = (rest > half) | ((rest == half) & (quotient & 1 == 1))
    return np.asarray(quotient + (up & (shift > 0)))


def scaled(values: Array, mult: Array | int, shift: Array | int) -> Array:
    """values mult / 2^shift, half to even; in float64 where that is exact, else in int64."""
    largest = float(np.abs(values).max(initial=0)) * float(np.max(mult, initial=0))
    if largest < EXACT:
        result = values.astype(np.float64)
        result *= np.ldexp(np.asarray(mult, np.float64), -np.asarray(shift))
        return np.rint(result, out=result)
    return rounded(values.astype(np.int64) * np.asarray(mult, np.int64), shift)


def write(spad: Array, op: Any, values: Array) -> Result:
    """Move by the zero point, keep in range."""
    values = values + op.zero
    np.clip(values, op.low, op.high, out=values)
    return tensor(spad, op.y, values.shape, op.y_type), values


def requantise(spad: Array, op: isa.Requantise) -> Result:
    """The instruction Requantise."""
    acc = tensor(spad, op.acc, (op.rows, op.cols), isa.INT32).astype(np.float64)
    count = (op.rows, op.cols, 1)[op.axis]
    bias, mult, shift = tensor(spad, op.params, (3, count), isa.INT32)
    if op.axis == 0:
        bias, mult, shift = bias[:, None], mult[:, None], shift[:, None]
    acc += bias
    return write(spad, op, scaled(acc, mult, shift))


def add(spad: Array, op: isa.Add) -> Result:
    """The instruction Add: the sum of two products below 2^49, exact."""
    a = centred(tensor(spad, op.a, (op.n,), op.a_type), op.za, np.float64)
    b = centred(tensor(spad, op.b, (op.n,), op.b_type), op.zb, np.float64)
    total = a * op.ma
    total += b * op.mb
    return write(spad, op, np.rint(np.ldexp(total, -op.shift)))


def mul(spad: Array, op: isa.Mul) -> Result:
    """The instruction Mul."""
    a = centred(tensor(spad, op.a, (op.n,), op.a_type), op.za, np.float64)
    a *= centred(tensor(spad, op.b, (op.n,), op.b_type), op.zb, np.float64)
    return write(spad, op, scaled(a, op.ma, op.shift))


def table(spad: Array, op: isa.Table) -> Result:
    """The instruction Table."""
    entries = tensor(spad, op.table, (256 * op.size,), isa.UINT8).view(f"V{op.size}")
    found = entries[tensor(spad, op.x, (op.n,), isa.UINT8)]
    return tensor(spad, op.y, (op.n * op.size,), isa.UINT8).view(f"V{op.size}"), found


def select(spad: Array, op: isa.Select) -> Result:
    """The instruction Select."""
    mask = tensor(spad, op.mask, (op.n,), isa.UINT8)[:, None]
    a, b, y = (tensor(spad, at, (op.n, op.size), isa.UINT8) for at in (op.a, op.b, op.y))
    return y, np.where(mask != 0, a, b)


def polynomial(spad: Array, op: isa.Polynomial) -> Result:
    """The instruction Polynomial."""
    x = tensor(spad, op.x, (op.n,), isa.INT16).astype(np.int64)
    segment, t = (x >> 8) + 128, x & 255
    c0, c1, c2 = tensor(spad, op.table, (256, 3), isa.INT32).astype(np.int64)[segment].T
    return write(spad, op, rounded((c0 << 16) + (c1 * t << 8) + c2 * t * t, 24))


def depth_conv(spad: Array, op: isa.DepthConv) -> Result:
    """The instruction DepthConv: one multiply-add a filter element, over all windows."""
    x = centred(tensor(spad, op.x, (op.channels, op.height, op.width), op.x_type), op.zx, np.float32)
    w = tensor(spad, op.w, (op.channels, op.kh * op.kw), op.w_type)
    zero = op.zw if op.zeros < 0 else tensor(spad, op.zeros, (op.channels, 1), isa.INT32)
    dtype = np.float32 if op.kh * op.kw * 65025 < 1 << 24 else np.float64
    weights, found = centred(w, zero, dtype), windows(x.astype(dtype, copy=False), op)
    total = np.zeros(found.shape[:3], dtype)
    for index in range(op.kh * op.kw):
        total += found[..., index // op.kw, index % op.kw] * weights[:, index, None, None]
    return tensor(spad, op.y, total.shape, isa.INT32), total


def pool_sum(spad: Array, op: isa.PoolSum) -> Result:
    """The instruction PoolSum."""
    x = tensor(spad, op.x, (op.channels, op.height, op.width), op.x_type)
    found = windows(centred(x, op.zx, np.float64), op)
    return tensor(spad, op.y, found.shape[:3], isa.INT32), found.sum((3, 4))


def pool_max(spad: Array, op: isa.PoolMax) -> Result:
    """The instruction PoolMax: padding is the lowest number there is."""
    x = tensor(spad, op.x, (op.channels, op.height, op.width), op.x_type)
    lowest = int(np.iinfo(x.dtype).min)
    found = windows(x.astype(np.int32) - lowest, op)
    result = found[..., 0, 0].copy()
    for index in range(1, op.kh * op.kw):
        np.maximum(result, found[..., index // op.kw, index % op.kw], out=result)
    return tensor(spad, op.y, result.shape, op.x_type), result + lowest


def softmax(spad: Array, op: isa.Softmax) -> Result:
    """The instruction Softmax."""
    x = tensor(spad, op.x, (op.rows, op.cols), op.x_type).astype(np.int64)
    exponentials = tensor(spad, op.table, (256,), isa.INT32).view(np.uint32).astype(np.int64)
    e = exponentials[x.max(axis=1, keepdims=True, initial=-128) - x]
    whole = e.sum(axis=1, keepdims=True) << op.shift
    return write(spad, op, divided(e * op.mult, np.maximum(whole, 1)))


def divided(product: Array, divisor: Array) -> Array:
    """Integer quotient, half to even."""
    quotient, rest = np.divmod(product, divisor)
    up = (2 * rest > divisor) | ((2 * rest == divisor) & (quotient & 1 == 1))
    return np.asarray(quotient + up)


def integer_root(value: Array) -> Array:
    """The largest r with r^2 <= value, for 0 <= value < 2^62."""
    root = np.floor(np.sqrt(value.astype(np.float64))).astype(np.int64)
    root -= root * root > value
    root += (root + 1) * (root + 1) <= value
    return root


def layer_norm(spad: Array, op: isa.LayerNorm) -> Result:
    """The instruction LayerNorm: mean, variance and the inverse root are those of the row, in integers.

    With n columns: d = n x - sum(x), v = n sum(x^2) - sum(x)^2 + eps (= n^2 (variance + eps)), moved left by an
    even 2k into [2^60, 2^62); r = 2^61 / isqrt(v 2^2k) rounded down. d r / 2^(61-k) is the normalised
    number, taken with 20 fractional bits as u; y = (u gamma + beta 2^20) / 2^(shift + 20).
    """
    n = op.cols
    x = tensor(spad, op.x, (op.rows, n), op.x_type).astype(np.int64)
    total = x.sum(axis=1, keepdims=True)
    d = n * x - total
    v = n * (x * x).sum(axis=1, keepdims=True) - total * total + (op.eps_hi << 31) + op.eps_lo
    v = np.maximum(v, 1)
    k = (61 - np.floor(np.log2(v.astype(np.float64))).astype(np.int64)) // 2
    k -= (v << 2 * k) >= 1 << 62  # log2 may round up or down beside a power of two
    k += (v << 2 * k) < 1 << 60
    r = (1 << 61) // integer_root(v << 2 * k)
    u = rounded(d * r, 61 - k - 20)
    gamma, beta = tensor(spad, op.table, (2, n), isa.INT32).astype(np.int64)
    return write(spad, op, rounded(u * gamma + (beta << 20), op.shift + 20))
