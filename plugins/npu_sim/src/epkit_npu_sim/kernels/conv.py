"""Conv: on the array as products with the columns of windows; depthwise on the vector unit."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

from .. import isa
from ..machine import Machine
from ..quant import Array, Unsupported
from ..schedule import Stream
from ..tile import Finish, Ints, fields, requantise, span
from ..tiles import Buffers, Product, Tiles, plan
from ..unit import Family, Unit, Views, require
from .product import bring_parameters, check_operands, parameters


@dataclass(frozen=True, eq=False)
class Geometry:
    """A convolution over pictures; one over a line is one over pictures of width 1.

    ``begin``: padding before the first row and column.
    """

    x: Ints
    y: Ints
    weights: Array
    strides: Ints
    dilations: Ints
    begin: Ints
    group: int
    params: Array
    result_bytes: int

    @property
    def lone(self) -> bool:
        """One filter for each channel."""
        return self.group == self.x[1] == int(self.weights.shape[0])

    def reach(self, rows: int) -> int:
        """Input rows under so many output rows."""
        return (rows - 1) * self.strides[0] + (int(self.weights.shape[2]) - 1) * self.dilations[0] + 1

    @property
    def product(self) -> Product:
        """For the search of tiles."""
        outs, depth, kh, kw = self.weights.shape

        def sizes(o: int, r: int, d: int) -> tuple[int, int, int]:
            pictures = (o if self.lone else d) * min(self.x[2], self.reach(r)) * self.x[3]
            return o * d * kh * kw, pictures, r * self.y[3]

        out = outs if self.lone else outs // self.group
        return Product(out, self.y[2], depth, sizes, kh * kw, self.lone, self.result_bytes)


def check_conv(unit: Unit, machine: Machine) -> Unit:
    """Weights are constants."""
    x, w = unit.quantised(0), unit.quantised(1)
    check_operands(unit, x, w)
    if w.constant is None:
        raise Unsupported("constant", f"the weights {w.value.name} must be known at compile time")
    rank = len(x.shape) - 2
    require(rank in (1, 2), "shape", f"Conv over {rank} spatial axes", "1 or 2", rank)
    strides, dilations = (
        (*unit.attributes.get(name, (1,) * rank), 1)[:2] for name in ("strides", "dilations")
    )
    shape, result = (*x.shape, 1)[:4], (*unit.output.shape, 1)[:4]
    weights = w.constant.reshape((*w.shape, 1)[:4])
    group, params = int(unit.attributes.get("group", 1)), parameters(unit, x, w, result[1])
    geometry = Geometry(shape, result, weights, strides, dilations, (0, 0), group, params, unit.output.size)
    geometry = replace(geometry, begin=(*_begin(unit, geometry, rank), 0)[:2])
    plan(geometry.product, machine, 0)
    return replace(unit, attributes={**unit.attributes, "geometry": geometry})


def _begin(unit: Unit, g: Geometry, rank: int) -> list[int]:
    """Padding before the first element of each spatial axis."""
    mode = unit.attributes.get("auto_pad", "NOTSET")
    if mode == "NOTSET":
        return list(unit.attributes.get("pads", (0,) * 2 * rank))[:rank]
    begins = []
    for axis in range(rank):
        whole = (
            (g.y[2 + axis] - 1) * g.strides[axis] + (g.weights.shape[2 + axis] - 1) * g.dilations[axis] + 1
        )
        total = 0 if mode == "VALID" else max(0, whole - g.x[2 + axis])
        begins.append(total // 2 if mode == "SAME_UPPER" else total - total // 2)
    return begins


def lower_conv(unit: Unit, stream: Stream, view: Views, finish: Finish, extra: int) -> None:
    """Emit a convolution, group by group."""
    geometry: Geometry = unit.attributes["geometry"]
    product = geometry.product
    tiles = plan(product, stream.machine, extra)
    emitter = _Emitter(unit, geometry, stream, view, tiles, Buffers(product, stream, tiles))
    finish = finish.sized(tiles.out * tiles.points)
    finish = replace(finish, output=finish.output.padded(geometry.y))
    groups = 1 if geometry.lone else geometry.group
    for image, group in itertools.product(range(geometry.x[0]), range(groups)):
        for o, r in tiles.starts(product):
            first, outs = group * product.out + o, min(tiles.out, product.out - o)
            rows = min(tiles.rows, product.rows - r)
            y = emitter.tile(image, group, first, outs, r, rows)
            finish(stream, (image, first, r, 0), (1, outs, rows, geometry.y[3]), y)


@dataclass(frozen=True)
class _Emitter:
    unit: Unit
    geometry: Geometry
    stream: Stream
    view: Views
    tiles: Tiles
    buffers: Buffers

    def tile(self, image: int, group: int, first: int, outs: int, r: int, rows: int) -> int:
        """One tile of the result: loads, products, rounding. Returns its address."""
        g = self.geometry
        params, zeros = bring_parameters(self.stream, self.buffers, g.params, first, outs)
        acc, _ = self.buffers.acc.get(object())
        depth = 1 if g.lone else g.weights.shape[1]
        step = depth if g.lone else self.tiles.depth
        for d in range(0, depth, step):
            count = outs if g.lone else min(step, depth - d)
            channel = first if g.lone else group * depth + d
            x = self._pictures(image, channel, count, r, rows)
            w = self._weights(first, outs, d, 1 if g.lone else count)
            self._emit(x | w | fields(y=acc, zeros=zeros, ho=rows), outs, d > 0)
        y, _ = self.buffers.y.get(object())
        requantise(self.stream, acc, params, outs, rows * g.y[3], 0, {"y": y, **self.unit.out})
        return y

    def _pictures(self, image: int, channel: int, count: int, r: int, rows: int) -> dict[str, int]:
        """Load the rows under some output rows, unless they are there."""
        g, x = self.geometry, self.unit.quantised(0)
        start = r * g.strides[0] - g.begin[0]
        row, last = max(0, start), min(g.x[2], start + g.reach(rows))
        height = max(0, last - row)
        address, there = self.buffers.x.get((image, channel, count, r))
        if not there and height:
            box = self.view(x).padded(g.x).box((image, channel, row, 0), (1, count, height, g.x[3]))
            box.load(self.stream, address)
        return fields(x=address, channels=count, height=height, width=g.x[3], top=row - start)

    def _weights(self, first: int, outs: int, d: int, depth: int) -> dict[str, int]:
        """Load some filters, unless they are there."""
        address, there = self.buffers.w.get((first, d))
        if not there:
            self.stream.constant(self.geometry.weights[first : first + outs, d : d + depth], address)
        return fields(w=address)

    def _emit(self, at: dict[str, int], outs: int, add: bool) -> None:
        g, x, w = self.geometry, self.unit.quantised(0), self.unit.quantised(1)
        kh, kw = g.weights.shape[2:]
        window = at | fields(
            kh=kh, kw=kw, sh=g.strides[0], sw=g.strides[1], dh=g.dilations[0], dw=g.dilations[1]
        )
        window |= fields(left=g.begin[1], wo=g.y[3], zx=x.z, x_type=x.kind)
        window |= fields(zw=int(w.zero.reshape(-1)[0]), w_type=w.kind)
        op = isa.DepthConv(**window) if g.lone else isa.Conv(**window, out=outs, add=int(add))
        taps = kh * kw * (1 if g.lone else at["channels"])
        reads = [span(at["x"], at["channels"] * at["height"] * g.x[3]), span(at["w"], outs * taps)]
        if at["zeros"] >= 0:
            reads.append(span(at["zeros"], 4 * outs))
        self.stream.emit(op, reads, [span(at["y"], 4 * outs * at["ho"] * g.y[3])])


CONV = Family(check_conv, lower_conv, lambda unit: unit.attributes["geometry"].product)
FAMILIES = {"Conv": CONV}
