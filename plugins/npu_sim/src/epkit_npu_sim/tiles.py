"""Tiles of products: the cheapest sizes, by the timing model, that the scratchpad can hold."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from .machine import Machine
from .quant import Unsupported
from .schedule import Stream
from .timing import product_cycles

PARAMETER_BYTES = 16
"""Bias, mult, shift and zero point of a channel."""


@dataclass(frozen=True)
class Product:
    """What the search needs to know of one group or batch of a product.

    Attributes:
        out, rows, depth: channels of the result, rows that stream, what is summed (for each of ``taps``).
        sizes: (out, rows, depth) of a tile -> bytes of weights, bytes of the other operand, elements of the result
            for each channel.
        taps: elements of a filter.
        lone: one filter a channel, on the vector unit.
        result_bytes: of an element of the result.
    """

    out: int
    rows: int
    depth: int
    sizes: Callable[[int, int, int], tuple[int, int, int]]
    taps: int = 1
    lone: bool = False
    result_bytes: int = 1


@dataclass(frozen=True)
class Tiles:
    """Sizes of tiles; ``keep_weights``: the outer loop is over channels, so that weights are loaded once."""

    out: int
    rows: int
    depth: int
    keep_weights: bool
    bytes_w: int
    bytes_x: int
    points: int

    def needs(self, product: Product, extra: int) -> int:
        """Bytes of scratchpad, double buffered; fused units take ``extra`` for each element of the result."""
        each = 4 + product.result_bytes + extra
        parts = self.bytes_w + self.bytes_x + self.out * (self.points * each + PARAMETER_BYTES)
        return 2 * parts + 64 * (10 + extra)

    def starts(self, product: Product) -> Iterator[tuple[int, int]]:
        """First channel and first row of each tile of the result, in the order of the loops."""
        outs, rows = range(0, product.out, self.out), range(0, product.rows, self.rows)
        if self.keep_weights:
            return itertools.product(outs, rows)
        return ((o, r) for r, o in itertools.product(rows, outs))


class Buffers:
    """The slots of one layer."""

    def __init__(self, product: Product, stream: Stream, tiles: Tiles) -> None:
        elements = tiles.out * tiles.points
        self.w, self.x = stream.slots(tiles.bytes_w), stream.slots(tiles.bytes_x)
        self.acc, self.y = stream.slots(4 * elements), stream.slots(product.result_bytes * elements)
        self.params = stream.slots(PARAMETER_BYTES * tiles.out)


def plan(product: Product, machine: Machine, extra: int) -> Tiles:
    """The cheapest tiles that fit half the scratchpad (the next layer loads into the rest), else the whole.

    Raises:
        Unsupported: if none fits.
    """
    candidates = list(_candidates(product, machine))
    for room in (machine.scratchpad // 2, machine.scratchpad):
        fitting = [tiles for tiles in candidates if tiles.needs(product, extra) <= room]
        if fitting:
            return min(fitting, key=lambda tiles: _cost(product, machine, tiles))
    least = min(tiles.needs(product, extra) for tiles in candidates)
    reason = f"its smallest tile needs {least:,} bytes of scratchpad, the machine has {machine.scratchpad:,}"
    raise Unsupported("shape", reason, f"<= {machine.scratchpad}", str(least))


def _candidates(product: Product, machine: Machine) -> Iterator[Tiles]:
    outs, rows, depths = halves(product.out, machine.array), halves(product.rows), halves(product.depth)
    for o, r, d, keep in itertools.product(outs, rows, depths, (False, True)):
        yield Tiles(o, r, d, keep, *product.sizes(o, r, d))


def halves(count: int, unit: int = 1) -> list[int]:
    """The whole and its halves, in multiples of a unit as far as there is more than one."""
    found = [count]
    while found[-1] > unit:
        found.append(max(unit, -(-found[-1] // (2 * unit)) * unit))
    return found


def _cost(product: Product, machine: Machine, t: Tiles) -> float:
    """Clocks, roughly: the slower of engine and DMA, and the first tiles' way in and the last one's way out."""
    n_o, n_r, n_d = -(-product.out // t.out), -(-product.rows // t.rows), -(-product.depth // t.depth)
    split = n_d > 1
    w_loads = n_o * n_d * (n_r if split or (not t.keep_weights and n_o > 2) else 1)
    x_loads = n_r * n_d * (n_o if split or (t.keep_weights and n_r > 2) else 1)
    traffic = w_loads * t.bytes_w + x_loads * t.bytes_x
    dma = traffic / machine.dma_bytes + (w_loads + x_loads) * machine.dma_latency
    if product.lone:
        compute = n_o * n_r * (t.out * t.points * (product.taps + 1) / machine.lanes + 32)
    else:
        compute = n_o * n_r * n_d * product_cycles(machine, t.depth * product.taps, t.out, t.points)
    first = (t.bytes_w + t.bytes_x) / machine.dma_bytes
    last = t.out * t.points * (1 / machine.lanes + product.result_bytes / machine.dma_bytes)
    return max(dma, compute) + first + last
