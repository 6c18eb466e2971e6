"""Conv, MatMul and Gemm on the array, depthwise Conv on the vector unit."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .. import isa
from ..machine import Machine
from ..quant import Array, QTensor, Unsupported, multiplier
from ..schedule import Slots, Stream
from ..tile import Finish, View, fields, requantise, span
from ..timing import product_cycles
from ..unit import Family, Unit, Views, bring, require

HALF = 2
"""Two layers share the scratchpad, so that the next can load while this one computes."""

# ---- what the units must look like ----


def check_types(unit: Unit, *operands: QTensor) -> None:
    """The array takes bytes."""
    for q in operands:
        require(q.dtype in ("int8", "uint8"), "dtype", f"the array multiplies bytes, {q.value.name} is {q.dtype}",
                "int8 or uint8", q.dtype)  # fmt: skip
    require(
        unit.output.dtype in ("int8", "uint8", "int16", "uint16"), "dtype", "the result must be quantised"
    )


def per_tensor(q: QTensor) -> None:
    """Activations have one scale."""
    require(q.scale.size == 1, "constant", f"{q.value.name} has {q.scale.size} scales; the machine takes one for "
            "activations, and one a channel for weights")  # fmt: skip


def parameters(unit: Unit, x: QTensor, w: QTensor, channels: int, bias: Any) -> Array:
    """int32[4, channels]: bias, mult, shift, and the weights' zero points.

    The factor of a channel is (x_scale w_scale) / y_scale, each step rounded to float32 as onnxruntime does.
    """
    scales = np.broadcast_to(w.scale.reshape(-1), channels).astype(np.float32)
    factors = (x.s * scales) / unit.output.s
    pairs = np.array([multiplier(float(f)) for f in factors], np.int64).reshape(channels, 2)
    zeros = np.broadcast_to(w.zero.reshape(-1), channels)
    rows = [integer_bias(bias, x.s * scales, channels), *pairs.T, zeros]
    return np.stack(rows).astype(np.int32)


def integer_bias(bias: Any, scale: Array, channels: int) -> Array:
    """The bias in units of the accumulator."""
    if bias is None:
        return np.zeros(channels, np.int64)
    if isinstance(bias, QTensor):
        require(bias.constant is not None, "constant", "the bias must be known at compile time")
        whole = np.asarray(bias.constant, np.int64) - bias.zero
        if np.array_equal(np.broadcast_to(bias.scale.reshape(-1), channels), scale):
            bias = whole.reshape(-1)
            return np.broadcast_to(bias, channels)
        bias = whole * bias.scale.astype(np.float64)
    elif np.asarray(bias).dtype.kind in "iu":  # QLinearConv: already in these units
        return np.broadcast_to(np.asarray(bias, np.int64).reshape(-1), channels)
    exact = np.rint(np.asarray(bias, np.float64).reshape(-1) / scale.astype(np.float64))
    require(np.all(np.abs(exact) < 2**31), "constant", "the bias does not fit into the int32 accumulator")
    return np.broadcast_to(exact.astype(np.int64), channels)


def check_conv(unit: Unit, machine: Machine) -> Unit:
    """Two-dimensional; one-dimensional ones become n x 1. Weights are constants."""
    x, w = unit.quantised(0), unit.quantised(1)
    check_types(unit, x, w)
    per_tensor(x)
    per_tensor(unit.output)
    weights = w.constant
    if weights is None:
        raise Unsupported("constant", f"the weights {w.value.name} must be known at compile time")
    rank = len(x.shape) - 2
    require(
        rank in (1, 2),
        "shape",
        f"Conv over {rank} spatial axes; the machine has 1 and 2",
        "rank 3 or 4",
        len(x.shape),
    )
    shape, weights, out_shape = (
        (*x.shape, 1)[:4],
        weights.reshape((*w.shape, 1)[:4]),
        (*unit.output.shape, 1)[:4],
    )
    pads = list(unit.attributes.get("pads", (0,) * 2 * rank))
    kernel = weights.shape[2:]
    strides, dilations = (
        (*unit.attributes.get(name, (1,) * rank), 1)[:2] for name in ("strides", "dilations")
    )
    top, left = (*_begins(unit, shape, out_shape, kernel, strides, dilations, pads, rank), 0)[:2]
    group = int(unit.attributes.get("group", 1))
    derived = {
        "x_shape": shape,
        "y_shape": out_shape,
        "weights": weights,
        "strides": strides,
        "dilations": dilations,
        "begin": (top, left),
        "group": group,
        "params": parameters(unit, x, w, out_shape[1], unit.inputs[2] if len(unit.inputs) > 2 else None),
        "zeros": w.zero.size > 1 and bool(np.ptp(w.zero)),
    }
    unit = replace(unit, attributes={**unit.attributes, **derived})
    plan(unit, machine, 0)
    return unit


def _begins(
    unit: Unit, x: Any, y: Any, kernel: Any, strides: Any, dilations: Any, pads: list[int], rank: int
) -> list[int]:
    """Padding before the first element of each spatial axis."""
    mode = unit.attributes.get("auto_pad", "NOTSET")
    if mode == "NOTSET":
        return pads[:rank]
    if mode == "VALID":
        return [0] * rank
    begins = []
    for axis in range(rank):
        whole = (y[2 + axis] - 1) * strides[axis] + (kernel[axis] - 1) * dilations[axis] + 1
        total = max(0, whole - x[2 + axis])
        begins.append(total // 2 if mode == "SAME_UPPER" else total - total // 2)
    return begins


def check_matmul(unit: Unit, machine: Machine) -> Unit:
    """Two matrices, or batches of such; scales of the second by column."""
    a, b = unit.quantised(0), unit.quantised(1)
    check_types(unit, a, b)
    per_tensor(a)
    per_tensor(unit.output)
    attributes = unit.attributes
    require(
        attributes.get("alpha", 1.0) == attributes.get("beta", 1.0) == 1.0,
        "attribute",
        "Gemm with factors alpha or beta",
    )
    require(len(a.shape) > 1 and len(b.shape) > 1, "shape", "a product with a vector", "rank >= 2")
    ta, tb = bool(attributes.get("transA", 0)), bool(attributes.get("transB", 0))
    m, n = a.shape[-1 if ta else -2], b.shape[-2 if tb else -1]
    k = a.shape[-2 if ta else -1]
    if b.scale.size > 1:
        axis = b.axis % len(b.shape)
        require(
            axis == len(b.shape) - (2 if tb else 1),
            "attribute",
            f"scales of the weights along axis {b.axis}",
            "by column",
        )
    bias = unit.inputs[2] if len(unit.inputs) > 2 else None
    if bias is not None:
        size = bias.shape if isinstance(bias, QTensor) else np.shape(bias)
        require(
            math.prod(size) in (1, n) and math.prod(size[:-1]) <= 1,
            "shape",
            "a bias that is no row",
            f"[{n}]",
            list(size),
        )
    derived = {"mkn": (m, k, n), "trans": (ta, tb), "params": parameters(unit, a, b, n, bias),
               "zeros": b.zero.size > 1 and bool(np.ptp(b.zero))}  # fmt: skip
    unit = replace(unit, attributes={**unit.attributes, **derived})
    plan(unit, machine, 0)
    return unit


# ---- tiles ----


@dataclass(frozen=True)
class Tiles:
    """Sizes of tiles: ``out`` channels (stationary), ``rows`` that stream, ``depth`` that is summed.

    ``keep_weights``: the outer loop is over out channels, so that weights are loaded once.
    """

    out: int
    rows: int
    depth: int
    keep_weights: bool
    bytes_w: int
    bytes_x: int
    points: int

    def needs(self, unit: Unit, extra: int) -> int:
        """Bytes of scratchpad, double buffered."""
        elements = self.out * self.points
        per_element = 4 + unit.output.size + extra
        slack = 10 * 64 + extra * 64
        return 2 * (self.bytes_w + self.bytes_x + elements * per_element + 16 * self.out) + slack


def plan(unit: Unit, machine: Machine, extra: int) -> Tiles:
    """The cheapest tiles by the timing model that fit half the scratchpad, else the whole.

    Raises:
        Unsupported: if none fits.
    """
    candidates = list(_candidates(unit, machine))
    for part in (HALF, 1):
        fitting = [t for t in candidates if t.needs(unit, extra) <= machine.scratchpad // part]
        if fitting:
            return min(fitting, key=lambda tiles: _cost(unit, machine, tiles))
    least = min(tiles.needs(unit, extra) for tiles in candidates)
    raise Unsupported(
        "shape",
        f"its smallest tile needs {least:,} bytes of scratchpad, the machine has {machine.scratchpad:,}",
        f"<= {machine.scratchpad}",
        str(least),
    )


def _candidates(unit: Unit, machine: Machine) -> Iterator[Tiles]:
    out, rows, depth = _extents(unit)
    for o, r, d in itertools.product(_steps(out, machine.array), _steps(rows, 1), _steps(depth, 1)):
        bytes_w, bytes_x, points = _tile_bytes(unit, o, r, d)
        yield Tiles(o, r, d, False, bytes_w, bytes_x, points)
        yield Tiles(o, r, d, True, bytes_w, bytes_x, points)


def _steps(count: int, unit: int) -> list[int]:
    """The whole and its halves, in multiples of a unit as far as there is more than one."""
    found, step = [count], count
    while step > unit:
        step = max(unit, -(-step // (2 * unit)) * unit)
        found.append(step)
    return found


def _extents(unit: Unit) -> tuple[int, int, int]:
    """Out channels, rows, depth of one group or batch."""
    if "mkn" in unit.attributes:
        m, k, n = unit.attributes["mkn"]
        return n, m, k
    weights, y = unit.attributes["weights"], unit.attributes["y_shape"]
    if depthwise(unit):
        return y[1], y[2], 1
    return weights.shape[0] // unit.attributes["group"], y[2], weights.shape[1]


def depthwise(unit: Unit) -> bool:
    """One filter for each channel."""
    if "mkn" in unit.attributes:
        return False
    group, channels = unit.attributes["group"], unit.attributes["x_shape"][1]
    return bool(group == channels == unit.attributes["weights"].shape[0])


def _tile_bytes(unit: Unit, o: int, r: int, d: int) -> tuple[int, int, int]:
    """Bytes of weights, bytes of the other operand, elements of a result row block for one out channel."""
    if "mkn" in unit.attributes:
        return d * o, r * d, r
    _, _, kh, kw = unit.attributes["weights"].shape
    height, width = unit.attributes["x_shape"][2:]
    tall = min(height, _reach(unit, r))
    channels = o if depthwise(unit) else d
    return o * d * kh * kw, channels * tall * width, r * unit.attributes["y_shape"][3]


def _reach(unit: Unit, rows: int) -> int:
    """Input rows under ``rows`` output rows."""
    kh = unit.attributes["weights"].shape[2]
    return int((rows - 1) * unit.attributes["strides"][0] + (kh - 1) * unit.attributes["dilations"][0] + 1)


def _cost(unit: Unit, machine: Machine, t: Tiles) -> float:
    """Clocks of one group or batch, roughly: the slower of engine and DMA, and the first tiles' way in."""
    out, rows, depth = _extents(unit)
    n_o, n_r, n_d = -(-out // t.out), -(-rows // t.rows), -(-depth // t.depth)
    split = n_d > 1
    w_times = n_r if (split or (not t.keep_weights and n_o > 2)) else 1
    x_times = n_o if (split or (t.keep_weights and n_r > 2)) else 1
    traffic = n_o * n_d * t.bytes_w * w_times + n_r * n_d * t.bytes_x * x_times
    loads = n_o * n_d * w_times + n_r * n_d * x_times * (1 if "mkn" in unit.attributes else t.depth)
    dma = traffic / machine.dma_bytes + loads * machine.dma_latency
    taps = math.prod(unit.attributes["weights"].shape[2:]) if "weights" in unit.attributes else 1
    if depthwise(unit):
        compute = n_o * n_r * (t.out * t.points * (taps + 1) / machine.lanes + 32)
    else:
        compute = n_o * n_r * n_d * product_cycles(machine, t.depth * taps, t.out, t.points)
    first = (t.bytes_w + t.bytes_x) / machine.dma_bytes
    last = t.out * t.points * (1 / machine.lanes + unit.output.size / machine.dma_bytes)
    return max(dma, compute) + first + last


# ---- commands ----


@dataclass
class _Buffers:
    """The slots of one layer."""

    w: Slots
    x: Slots
    acc: Slots
    y: Slots
    params: Slots

    @classmethod
    def of(cls, unit: Unit, stream: Stream, t: Tiles) -> _Buffers:
        elements = t.out * t.points
        return cls(
            stream.slots(t.bytes_w),
            stream.slots(t.bytes_x),
            stream.slots(4 * elements),
            stream.slots(unit.output.size * elements),
            stream.slots(16 * t.out),
        )


def _tiles(out: int, rows: int, t: Tiles) -> Iterator[tuple[int, int]]:
    """Starts of the output tiles, in the order of the loops."""
    if t.keep_weights:
        return itertools.product(range(0, out, t.out), range(0, rows, t.rows))
    return ((o, r) for r, o in itertools.product(range(0, rows, t.rows), range(0, out, t.out)))


def _parameters(stream: Stream, buffers: _Buffers, params: Array, first: int, count: int, zeros: bool) -> int:
    """The address of three (with zero points four) vectors of a range of channels."""
    address, there = buffers.params.get(first)
    if not there:
        stream.constant(params[: 4 if zeros else 3, first : first + count], address)
    return address


def lower_conv(unit: Unit, stream: Stream, view: Views, finish: Finish, extra: int) -> None:
    """Emit a convolution, group by group."""
    tiles = plan(unit, stream.machine, extra)
    buffers = _Buffers.of(unit, stream, tiles)
    finish = finish.sized(tiles.out * tiles.points)
    finish = replace(
        finish, output=replace(finish.output, **_as_4d(finish.output, unit.attributes["y_shape"]))
    )
    emit = _ConvEmitter(unit, stream, view, finish, tiles, buffers)
    groups = 1 if depthwise(unit) else unit.attributes["group"]
    for image, group in itertools.product(range(unit.attributes["x_shape"][0]), range(groups)):
        out, rows, _ = _extents(unit)
        for o, r in _tiles(out, rows, tiles):
            emit.tile(image, group, o, r, min(tiles.out, out - o), min(tiles.rows, rows - r))


def _as_4d(v: View, shape: tuple[int, ...]) -> dict[str, Any]:
    extra = len(shape) - len(v.shape)
    return {"shape": shape, "strides": v.strides + (v.size,) * extra}


@dataclass
class _ConvEmitter:
    unit: Unit
    stream: Stream
    view: Views
    finish: Finish
    tiles: Tiles
    buffers: _Buffers

    def tile(self, image: int, group: int, o: int, r: int, outs: int, rows: int) -> None:
        """One tile of the output: loads, products, rounding, and what follows."""
        unit, stream = self.unit, self.stream
        _, _, _, wo = unit.attributes["y_shape"]
        params, zeros = unit.attributes["params"], unit.attributes["zeros"]
        first = group * (unit.attributes["weights"].shape[0] // unit.attributes["group"]) + o
        block = _parameters(stream, self.buffers, params, first, outs, zeros)
        acc, _ = self.buffers.acc.get(object())
        if depthwise(unit):
            self._part(image, group, first, r, outs, rows, 0, outs, acc, block)
        else:
            depth = unit.attributes["weights"].shape[1]
            for d in range(0, depth, self.tiles.depth):
                self._part(
                    image, group, first, r, outs, rows, d, min(self.tiles.depth, depth - d), acc, block
                )
        y, _ = self.buffers.y.get(object())
        requantise(stream, acc, block, outs, rows * wo, 0, {"y": y, **unit.out})
        self.finish(stream, (image, first, r, 0), (1, outs, rows, wo), y)

    def _part(
        self,
        image: int,
        group: int,
        first: int,
        r: int,
        outs: int,
        rows: int,
        d: int,
        depth: int,
        acc: int,
        block: int,
    ) -> None:
        """The contribution of input channels d to d + depth."""
        unit, stream = self.unit, self.stream
        x, weights = unit.quantised(0), unit.attributes["weights"]
        lone = depthwise(unit)
        _, per_group, kh, kw = weights.shape
        (sh, sw), (dh, dw), (top, left) = (
            unit.attributes[name] for name in ("strides", "dilations", "begin")
        )
        height, width = unit.attributes["x_shape"][2:]
        start = r * sh - top
        row, last = max(0, start), min(height, start + _reach(unit, rows))
        channel = first if lone else group * per_group + d
        x_at, there = self.buffers.x.get((image, channel, depth, r))
        if not there and last > row:
            source = replace(self.view(x), **_as_4d(self.view(x), unit.attributes["x_shape"]))
            source.box((image, channel, row, 0), (1, depth, last - row, width)).load(stream, x_at)
        w_at, there = self.buffers.w.get((first, d))
        if not there:
            stream.constant(weights[first : first + outs, 0 if lone else d : 1 if lone else d + depth], w_at)
        zero = unit.quantised(1).zero.reshape(-1)[0]
        window = (
            fields(x=x_at, y=acc, channels=depth, height=max(0, last - row), width=width, kh=kh, kw=kw)
            | fields(sh=sh, sw=sw, dh=dh, dw=dw, top=row - start, left=left, ho=rows)
            | fields(wo=unit.attributes["y_shape"][3], zx=x.z, x_type=x.kind, w=w_at, zw=int(zero))
            | fields(zeros=block + 12 * outs if unit.attributes["zeros"] else -1)
        )
        kind = unit.quantised(1).kind
        op: isa.Operands = isa.DepthConv(**window, w_type=kind) if lone else isa.Conv(
            **window, w_type=kind, out=outs, add=int(d > 0)
        )  # fmt: skip
        taps = kh * kw * (1 if lone else depth)
        reads = [
            span(x_at, depth * max(0, last - row) * width),
            span(w_at, outs * taps),
            span(block, 16 * outs),
        ]
        stream.emit(op, reads, [span(acc, 4 * outs * rows * unit.attributes["y_shape"][3])])


def lower_matmul(unit: Unit, stream: Stream, view: Views, finish: Finish, extra: int) -> None:
    """Emit a product, matrix by matrix."""
    tiles = plan(unit, stream.machine, extra)
    buffers = _Buffers.of(unit, stream, tiles)
    finish = finish.sized(tiles.out * tiles.points)
    m, k, n = unit.attributes["mkn"]
    a, b = unit.quantised(0), unit.quantised(1)
    for batch in itertools.product(*map(range, unit.output.shape[:-2])):
        here, there = _broadcast(batch, a.shape[:-2]), _broadcast(batch, b.shape[:-2])
        for o, r in _tiles(n, m, tiles):
            outs, rows = min(tiles.out, n - o), min(tiles.rows, m - r)
            block = _parameters(stream, buffers, unit.attributes["params"], o, outs, unit.attributes["zeros"])
            acc, _ = buffers.acc.get(object())
            for d in range(0, k, tiles.depth):
                depth = min(tiles.depth, k - d)
                a_at = _matrix(
                    stream, view, a, buffers.x, here, unit.attributes["trans"][0], r, rows, d, depth
                )
                b_at = _matrix(
                    stream, view, b, buffers.w, there, unit.attributes["trans"][1], d, depth, o, outs
                )
                _emit_product(unit, stream, a_at, b_at, acc, block, rows, depth, outs, d > 0)
            y, _ = buffers.y.get(object())
            requantise(stream, acc, block, rows, outs, 1, {"y": y, **unit.out})
            finish(stream, (*batch, r, o), (*(1 for _ in batch), rows, outs), y)


def _broadcast(index: tuple[int, ...], shape: tuple[int, ...]) -> tuple[int, ...]:
    """The index into an operand whose leading axes may be 1 or missing."""
    own = index[len(index) - len(shape) :]
    return tuple(0 if count == 1 else i for i, count in zip(own, shape, strict=True))


def _matrix(
    stream: Stream,
    view: Views,
    q: QTensor,
    slots: Slots,
    batch: Any,
    trans: bool,
    r: int,
    rows: int,
    c: int,
    cols: int,
) -> int:
    """The address of a block of a matrix, loaded if it is not there; transposed ones lie as they are."""
    address, there = slots.get((batch, r, c))
    if not there:
        start, shape = ((c, r), (cols, rows)) if trans else ((r, c), (rows, cols))
        bring(stream, view, q, (*batch, *start), (*(1 for _ in batch), *shape), address)
    return address


def _emit_product(
    unit: Unit,
    stream: Stream,
    a_at: int,
    b_at: int,
    acc: int,
    block: int,
    rows: int,
    depth: int,
    outs: int,
    add: bool,
) -> None:
    a, b = unit.quantised(0), unit.quantised(1)
    ta, tb = unit.attributes["trans"]
    operands = (
        fields(a=a_at, b=b_at, c=acc, m=rows, k=depth, n=outs, add=int(add), a_type=a.kind, b_type=b.kind)
        | fields(a_row=1 if ta else depth, a_col=rows if ta else 1)
        | fields(b_row=1 if tb else outs, b_col=depth if tb else 1)
        | fields(za=a.z, zb=int(b.zero.reshape(-1)[0]))
        | fields(zeros=block + 12 * outs if unit.attributes["zeros"] else -1)
    )
    reads = [span(a_at, rows * depth), span(b_at, depth * outs), span(block, 16 * outs)]
    stream.emit(isa.MatMul(**operands), reads, [span(acc, 4 * rows * outs)])


FAMILIES = {
    "Conv": Family(check_conv, lower_conv),
    "MatMul": Family(check_matmul, lower_matmul),
    "Gemm": Family(check_matmul, lower_matmul),
}
