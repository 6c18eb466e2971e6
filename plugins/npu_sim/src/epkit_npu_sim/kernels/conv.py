"""Conv: on the array as products with the columns of windows; depthwise on the vector unit."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace

from .. import isa
from ..machine import Machine
from ..quant import Array, Unsupported
from ..schedule import Stream
from ..tile import Finish, fields, requantise, span
from ..tiles import Buffers, Product, Tiles, plan
from ..unit import Family, Unit, Views
from .product import bring_parameters, check_operands, parameters
from .window import Window, window_of


@dataclass(frozen=True, eq=False)
class Geometry:
    """A convolution: ``weights`` as [outs, channels of a group, kh, kw]."""

    window: Window
    weights: Array
    group: int
    params: Array
    result_bytes: int

    @property
    def lone(self) -> bool:
        """One filter for each channel."""
        return self.group == self.window.x[1] == int(self.weights.shape[0])

    @property
    def product(self) -> Product:
        """For the search of tiles."""
        outs, depth, kh, kw = self.weights.shape
        x, y = self.window.x, self.window.y

        def sizes(o: int, r: int, d: int) -> tuple[int, int, int]:
            pictures = (o if self.lone else d) * min(x[2], self.window.reach(r)) * x[3]
            return o * d * kh * kw, pictures, r * y[3]

        out = outs if self.lone else outs // self.group
        return Product(out, y[2], depth, sizes, kh * kw, self.lone, self.result_bytes)


def check_conv(unit: Unit, machine: Machine) -> Unit:
    """Weights are constants."""
    x, w = unit.quantised(0), unit.quantised(1)
    check_operands(unit, x, w)
    if w.constant is None:
        raise Unsupported("constant", f"the weights {w.value.name} must be known at compile time")
    window = window_of(unit, w.shape[2:])
    group, params = int(unit.attributes.get("group", 1)), parameters(unit, x, w, window.y[1])
    geometry = Geometry(window, w.constant.reshape((*w.shape, 1)[:4]), group, params, unit.output.size)
    plan(geometry.product, machine, 0)
    return replace(unit, attributes={**unit.attributes, "geometry": geometry})


def lower_conv(unit: Unit, stream: Stream, view: Views, finish: Finish, extra: int) -> None:
    """Emit a convolution, group by group."""
    geometry: Geometry = unit.attributes["geometry"]
    product = geometry.product
    tiles = plan(product, stream.machine, extra)
    emitter = _Emitter(unit, geometry, stream, view, tiles, Buffers(product, stream, tiles))
    finish = finish.sized(tiles.out * tiles.points)
    x, y_shape = geometry.window.x, geometry.window.y
    finish = replace(finish, output=finish.output.padded(y_shape))
    groups = 1 if geometry.lone else geometry.group
    for image, group in itertools.product(range(x[0]), range(groups)):
        for o, r in tiles.starts(product):
            first, outs = group * product.out + o, min(tiles.out, product.out - o)
            rows = min(tiles.rows, product.rows - r)
            y = emitter.tile(image, group, first, outs, r, rows)
            finish(stream, (image, first, r, 0), (1, outs, rows, y_shape[3]), y)


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
            self._emit(x | w | fields(y=acc, zeros=zeros), outs, d > 0)
        y, _ = self.buffers.y.get(object())
        requantise(self.stream, acc, params, outs, rows * g.window.y[3], 0, {"y": y, **self.unit.out})
        return y

    def _pictures(self, image: int, channel: int, count: int, r: int, rows: int) -> dict[str, int]:
        """Load the rows under some output rows, unless they are there."""
        window = self.geometry.window
        row, height, top = window.under(r, rows)
        address, there = self.buffers.x.get((image, channel, count, r))
        if not there and height:
            view = self.view(self.unit.quantised(0)).padded(window.x)
            view.box((image, channel, row, 0), (1, count, height, window.x[3])).load(self.stream, address)
        return fields(x=address, channels=count, height=height, top=top, ho=rows)

    def _weights(self, first: int, outs: int, d: int, depth: int) -> dict[str, int]:
        """Load some filters, unless they are there."""
        address, there = self.buffers.w.get((first, d))
        if not there:
            self.stream.constant(self.geometry.weights[first : first + outs, d : d + depth], address)
        return fields(w=address)

    def _emit(self, at: dict[str, int], outs: int, add: bool) -> None:
        g, x, w = self.geometry, self.unit.quantised(0), self.unit.quantised(1)
        window = at | g.window.operands | fields(zx=x.z, x_type=x.kind)
        window |= fields(zw=int(w.zero.reshape(-1)[0]), w_type=w.kind)
        op = isa.DepthConv(**window) if g.lone else isa.Conv(**window, out=outs, add=int(add))
        taps = math.prod(g.window.kernel) * (1 if g.lone else at["channels"])
        reads = [span(at["x"], at["channels"] * at["height"] * g.window.x[3]), span(at["w"], outs * taps)]
        if at["zeros"] >= 0:
            reads.append(span(at["zeros"], 4 * outs))
        self.stream.emit(op, reads, [span(at["y"], 4 * outs * at["ho"] * g.window.y[3])])


CONV = Family(check_conv, lower_conv, lambda unit: unit.attributes["geometry"].product)
FAMILIES = {"Conv": CONV}
