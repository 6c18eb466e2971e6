"""Windows that move over pictures, as those of Conv and of the pools."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..tile import Ints, fields
from ..unit import Unit, require


@dataclass(frozen=True)
class Window:
    """Windows over pictures; a line is a picture of width 1.

    Attributes:
        x, y: shapes of input and result, [images, channels, height, width].
        kernel, strides, dilations: by rows and by columns.
        begin, end: padding before the first and behind the last row and column.
    """

    x: Ints
    y: Ints
    kernel: Ints
    strides: Ints
    dilations: Ints
    begin: Ints
    end: Ints

    def reach(self, rows: int) -> int:
        """Input rows under so many output rows."""
        return (rows - 1) * self.strides[0] + (self.kernel[0] - 1) * self.dilations[0] + 1

    def under(self, row: int, count: int) -> tuple[int, int, int]:
        """Of the input under some output rows: the first row, how many there are, and rows of padding before it."""
        start = row * self.strides[0] - self.begin[0]
        first, last = max(0, start), min(self.x[2], start + self.reach(count))
        return first, max(0, last - first), first - start

    @property
    def operands(self) -> dict[str, int]:
        """Those of the instructions that are the same for each tile."""
        (kh, kw), (sh, sw), (dh, dw) = self.kernel, self.strides, self.dilations
        sizes = fields(kh=kh, kw=kw, sh=sh, sw=sw, dh=dh, dw=dw)
        return sizes | fields(width=self.x[3], left=self.begin[1], wo=self.y[3])


def window_of(unit: Unit, kernel: Sequence[int]) -> Window:
    """The windows of an operator with a kernel of this shape."""
    x, y, a = unit.quantised(0).shape, unit.output.shape, unit.attributes
    rank = len(x) - 2
    require(rank in (1, 2), "shape", f"{unit.kind} over {rank} spatial axes", "1 or 2", rank)
    strides, dilations = (tuple(a.get(name, (1,) * rank)) for name in ("strides", "dilations"))
    pads = list(a.get("pads", (0,) * 2 * rank))
    if (mode := a.get("auto_pad", "NOTSET")) != "NOTSET":
        for axis in range(rank):
            whole = (y[2 + axis] - 1) * strides[axis] + (kernel[axis] - 1) * dilations[axis] + 1
            total = 0 if mode == "VALID" else max(0, whole - x[2 + axis])
            pads[axis] = total // 2 if mode == "SAME_UPPER" else total - total // 2
            pads[axis + rank] = total - pads[axis]
    two = [(*sizes, 1)[:2] for sizes in (kernel, strides, dilations)]
    ends = [(*sizes, 0)[:2] for sizes in (pads[:rank], pads[rank:])]
    return Window((*x, 1)[:4], (*y, 1)[:4], *two, *ends)
