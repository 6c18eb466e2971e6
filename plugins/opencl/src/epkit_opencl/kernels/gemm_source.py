"""The texts of the matrix product: blocks of rows in registers for CPUs, tiles in local memory for GPUs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

from ..launch import pragma
from ..memory import Tensor
from .activations import activated

WIDTH = 32
"""Columns of a panel, and of a work-item's block: two vectors of 16."""

ROWS = 12
"""Rows of a block; 12 x 2 accumulators and two vectors of B fit 32 vector registers."""


@dataclass(frozen=True)
class End:
    """What is done to each element of a product before it is stored.

    Attributes:
        activation: an operator's name, or "".
        numbers: its parameters.
        residual: added before the activation; of the result's shape.
    """

    activation: str = ""
    numbers: Sequence[float] = ()
    residual: Tensor | None = None

    @property
    def text(self) -> Finish:
        """What the text of a kernel depends on."""
        return Finish(self.activation, tuple(self.numbers), self.residual is not None)


class Finish(NamedTuple):
    """An ``End`` without the residual's numbers."""

    activation: str = ""
    numbers: tuple[float, ...] = ()
    residual: bool = False


@dataclass(frozen=True)
class Text:
    """What the text of a product depends on.

    Attributes:
        t: the C type.
        addend: where in a row of the addend a column is, "" if there is no addend. A text that knows the stride
            lets the compiler make vectors.
        alpha, beta: whether there are such.
        end: what is done at the end.
    """

    t: str
    addend: str
    alpha: bool
    beta: bool
    end: Finish = Finish()

    @property
    def parameters(self) -> str:
        """Those of the kernel."""
        t = self.t
        extra = (
            f", __global const {t}* d, const long od, const int dr, const int dc, const int db, const int dz"
        )
        found = extra if self.addend else ""
        found += f", const {t} alpha" if self.alpha else ""
        found += f", const {t} beta" if self.addend and self.beta else ""
        found += f", __global const {t}* e, const long oe" if self.end.residual else ""
        return f"""const int m, const int n, const int k, const int panels,
                   __global const {t}* a, const long oa, __global const {t}* b, const long ob,
                   __global {t}* q, const long oq, const int ar, const int ac, const int ab, const int az,
                   const int af, const int bz, const int first{found}"""

    @property
    def macros(self) -> str:
        """FMA, and FINISH(v, row, column): what becomes of the number v of the product before it is stored."""
        t, value = self.t, "(v)"
        fma = "fma(x, y, z)" if t in ("float", "double") else "((x) * (y) + (z))"
        if self.alpha:
            value = f"{value} * alpha"
        if self.addend:
            factor = "beta * " if self.beta else ""
            value += f" + {factor}d[od + (long)(z % dz) * db + (long)(row) * dr + {self.addend}]"
        activation = "x"
        if self.end.residual:
            value += " + e[oe + first + ((long)z * m + (row)) * n + (column)]"
        if self.end.activation:
            activation = activated(self.end.activation, self.end.numbers, "x", t)
        return f"""{pragma([t])}
#define FMA(x, y, z) {fma}
#define FINISH(v, row, column) finished({value})
inline {t} finished(const {t} x) {{ return {activation}; }}
"""

    @property
    def plain(self) -> bool:
        """True if the product is stored as it is."""
        return not (self.addend or self.alpha or self.end != Finish())


@dataclass(frozen=True)
class Way:
    """How a product is computed.

    Attributes:
        kind: "rows" of A read in place, "blocks" of rows of A packed, or "tiles" in local memory.
        rows: that a work-item computes.
        height, depth: of a tile of A.
    """

    kind: str
    rows: int
    height: int = 0
    depth: int = 0

    @property
    def group(self) -> list[int]:
        """Work-items of a group; those of tiles have COLUMNS columns each."""
        return [1, 1, 1] if self.kind != "tiles" else [WIDTH // COLUMNS, self.height // self.rows, 1]

    def range(self, m: int, panels: int, count: int) -> tuple[list[int], list[int]]:
        """All work-items and those of a group, for so many rows, panels and matrices."""
        group = self.group
        if self.kind != "tiles":
            return [-(-m // self.rows), panels, count], group
        return [panels * group[0], -(-m // self.height) * group[1], count], group

    def fits(self, work_items: int, local_memory: int, itemsize: int) -> bool:
        """True if a device with these limits can hold the tiles."""
        needed = self.depth * (self.height + PADDING + WIDTH) * itemsize
        return self.group[0] * self.group[1] <= work_items and needed <= local_memory


COLUMNS = 4
PADDING = 4
"""Numbers after each row of the tile of A, so that its columns lie in different banks."""

TILES = (Way("tiles", 8, 64, 16), Way("tiles", 4, 64, 16), Way("tiles", 8, 128, 16), Way("tiles", 4, 32, 16))


@cache
def block_source(text: Text, way: Way) -> str:
    """A work-item computes ``way.rows`` rows of a panel: 12 x 2 accumulators of 16 and two vectors of B fit 32
    vector registers.
    """
    t, span = text.t, range(way.rows)
    blocks = way.kind == "blocks"
    pointers = (
        f"a += oa + ((long)(z % az) * get_global_size(0) + get_global_id(0)) * k * {way.rows};"
        if blocks
        else "a += oa + af + (long)(z % az) * ab;\n  "
        + "\n  ".join(f"__global const {t}* a{r} = a + (long)min(i + {r}, m - 1) * ar;" for r in span)
    )
    zeros = "\n  ".join(f"{t}16 l{r} = 0, h{r} = 0;" for r in span)
    steps = "\n    ".join(
        f"{{ const {t}16 x = {f'a[{r}]' if blocks else f'a{r}[at]'}; "
        f"l{r} = FMA(x, lo, l{r}); h{r} = FMA(x, hi, h{r}); }}"
        for r in span
    )
    keep = "\n  ".join(f"vstore16(l{r}, {2 * r}, v); vstore16(h{r}, {2 * r + 1}, v);" for r in span)
    finish = "" if text.plain else "row[c] = FINISH(row[c], i + r, j + c);"
    whole, part = (f"for (int c = 0; c < {end}; c++) {finish}" if finish else "" for end in (WIDTH, "w"))
    return f"""{text.macros}
__kernel void gemm({text.parameters}) {{
  const int i = get_global_id(0) * {way.rows}, panel = get_global_id(1), z = get_global_id(2);
  const int j = panel * {WIDTH}, w = min({WIDTH}, n - j);
  b += ob + ((long)(z % bz) * panels + panel) * k * {WIDTH};
  q += oq + first + (long)z * m * n;
  {pointers}
  {zeros}
  for (int s = 0; s < k; s++) {{
    const long at = (long)s * ac;
    const {t}16 lo = vload16(0, b), hi = vload16(1, b);
    b += {WIDTH};
    {steps}
    {f"a += {way.rows};" if blocks else ""}
  }}
  {t} v[{way.rows * WIDTH}]; /* left to the compiler as an array: all accumulators stay in registers until here */
  {keep}
  const int rows = min({way.rows}, m - i);
  for (int r = 0; r < rows; r++) {{
    {t}* row = v + r * {WIDTH};
    __global {t}* o = q + (long)(i + r) * n + j;
    if (w == {WIDTH}) {{
      {whole}
      vstore16(vload16(0, row), 0, o);
      vstore16(vload16(1, row), 1, o);
    }} else {{
      {part}
      for (int c = 0; c < w; c++) o[c] = row[c];
    }}
  }}
}}
"""


@cache
def tiled_source(text: Text, way: Way) -> str:
    """A group computes ``way.height`` rows of a panel; tiles of A and B pass through local memory."""
    t, height, depth, rows = text.t, way.height, way.depth, way.rows
    across, down = way.group[:2]
    workers = across * down
    return f"""{text.macros}
__kernel void gemm({text.parameters}) {{
  __local {t} as[{depth}][{height + PADDING}], bs[{depth}][{WIDTH}];
  const int lx = get_local_id(0), ly = get_local_id(1), me = ly * {across} + lx;
  const int i = get_group_id(1) * {height}, panel = get_group_id(0), z = get_group_id(2);
  a += oa + af + (long)(z % az) * ab;
  b += ob + ((long)(z % bz) * panels + panel) * k * {WIDTH};
  q += oq + first + (long)z * m * n;
  {t}4 sum[{rows}];
  for (int r = 0; r < {rows}; r++) sum[r] = 0;
  for (int s = 0; s < k; s += {depth}) {{
    for (int t = me; t < {height * depth}; t += {workers}) {{
      const int row = i + t / {depth}, at = s + t % {depth};
      as[t % {depth}][t / {depth}] = row < m && at < k ? a[(long)row * ar + (long)at * ac] : 0;
    }}
    for (int t = me; t < {depth * WIDTH}; t += {workers})
      bs[t / {WIDTH}][t % {WIDTH}] = s + t / {WIDTH} < k ? b[(long)s * {WIDTH} + t] : 0;
    barrier(CLK_LOCAL_MEM_FENCE);
    for (int at = 0; at < {depth}; at++) {{
      const {t}4 y = vload4(lx, bs[at]);
      for (int r = 0; r < {rows}; r++) sum[r] = FMA(({t}4)as[at][ly * {rows} + r], y, sum[r]);
    }}
    barrier(CLK_LOCAL_MEM_FENCE);
  }}
  for (int r = 0; r < {rows}; r++) {{
    const int row = i + ly * {rows} + r, column = panel * {WIDTH} + lx * {COLUMNS};
    {t} v[{COLUMNS}];
    vstore4(sum[r], 0, v);
    for (int c = 0; c < {COLUMNS}; c++)
      if (row < m && column + c < n) q[(long)row * n + column + c] = FINISH(v[c], row, column + c);
  }}
}}
"""
