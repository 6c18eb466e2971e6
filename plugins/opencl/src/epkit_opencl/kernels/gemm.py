"""Products of matrices: the right side is packed into panels, blocks of the result are kept in registers.

C[b] = alpha A[b] B[b] + beta D[b]. Every operand has element strides, so transposed and broadcast operands are
read in place. B is copied into panels of K rows of WIDTH columns, padded with zeros; A is copied into blocks of a few
rows where that pays. Weights are copied once. Which way is the fastest is measured (see ``tuning``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from epkit.backend import RunContext

from ..launch import c_type, launch, pragma
from ..memory import ClStream, Tensor, new_buffer
from ..tuning import fastest
from .gemm_source import ROWS, TILES, WIDTH, End, Finish, Text, Way, block_source, tiled_source


@dataclass(frozen=True)
class Side:
    """An operand.

    Attributes:
        tensor: its elements.
        row, column, batch: element strides.
        batches: how many there are before they repeat.
        first: where the first one starts.
        outer, inner: for packing, a second stride of batches, taken after ``inner`` of them.
    """

    tensor: Tensor
    row: int
    column: int
    batch: int = 0
    batches: int = 1
    first: int = 0
    outer: int = 0
    inner: int = 2**31 - 1


PACKING = (16, 1, 1)
"""Rows of a panel that a group copies."""


def padded(k: int, panels: int, count: int) -> list[int]:
    """The range of a kernel that fills panels; 0 where there is nothing to fill."""
    return [-(-k // PACKING[0]) * PACKING[0], panels, count]


def pack(context: RunContext, b: Side, k: int, n: int, count: int, purpose: str = "panels") -> Tensor:
    """Copy ``count`` matrices K x N into panels; a weight's panels are kept."""
    panels = -(-n // WIDTH)
    shape = (count, panels, k, WIDTH)
    key = f"panels {k} {n} {count} {b.row} {b.column} {b.batch} {b.first} {b.outer} {b.inner}"
    kept = b.tensor.packed
    if kept is not None and key in kept:
        return kept[key]
    t = c_type(b.tensor.dtype)
    source = f"""{pragma([t])}
__kernel void pack(const int k, const int n, const int panels, __global const {t}* p, const long op,
                   __global {t}* q, const long oq, const int row, const int column, const int batch,
                   const int first, const int outer, const int inner) {{
  const int i = get_global_id(0), panel = get_global_id(1), z = get_global_id(2);
  if (i >= k) return;
  const long from = op + first + (long)(z / inner) * outer + (long)(z % inner) * batch + (long)i * row;
  const long to = oq + (((long)z * panels + panel) * k + i) * {WIDTH};
  for (int j = 0; j < {WIDTH}; j++) {{
    const int c = panel * {WIDTH} + j;
    q[to + j] = c < n ? p[from + (long)c * column] : 0;
  }}
}}
"""
    out = temporary(context, purpose, shape, b.tensor, keep=kept is not None)
    sizes = [k, n, panels, b.tensor, out, b.row, b.column, b.batch, b.first, b.outer, b.inner]
    launch(context, source, "pack", padded(k, panels, count), sizes, group=PACKING)
    if kept is not None:
        finish(context)  # other queues may read it from now on
        kept[key] = out
    return out


def finish(context: RunContext) -> None:
    """Wait for the run's queue."""
    assert isinstance(context.stream, ClStream)
    context.stream.queue.finish()


def temporary(context: RunContext, purpose: str, shape: tuple[int, ...], like: Tensor, keep: bool) -> Tensor:
    """Scratch memory of the run's queue, or memory that stays."""
    stream = context.stream
    assert isinstance(stream, ClStream)
    nbytes = max(1, int(np.prod(shape, dtype=np.int64)) * like.dtype.itemsize)
    buffer = new_buffer(stream.gpu, nbytes) if keep else stream.scratch(purpose, nbytes)
    return Tensor(buffer, 0, shape, like.dtype)


def packed_rows(context: RunContext, a: Side, m: int, k: int, rows: int, keep: bool) -> Tensor:
    """Copy every M x K matrix of A into blocks of ``rows`` rows, column after column; a weight's are kept."""
    blocks = -(-m // rows)
    key = f"rows {m} {k} {rows} {a.row} {a.column} {a.batch} {a.batches} {a.first}"
    kept = a.tensor.packed if keep else None
    if kept is not None and key in kept:
        return kept[key]
    t = c_type(a.tensor.dtype)
    source = f"""{pragma([t])}
__kernel void pack_rows(const int m, const int k, const int blocks, __global const {t}* p, const long op,
                        __global {t}* q, const long oq, const int row, const int column, const int batch,
                        const int first) {{
  const int part = get_global_id(0), block = get_global_id(1), z = get_global_id(2), i = block * {rows};
  p += op + first + (long)z * batch;
  q += oq + ((long)z * blocks + block) * k * {rows};
  const int last = min(k, (part + 1) * {PART});
  for (int r = 0; r < {rows}; r++)
    for (int s = part * {PART}; s < last; s++)
      q[s * {rows} + r] = i + r < m ? p[(long)(i + r) * row + (long)s * column] : 0;
}}
"""
    out = temporary(context, "rows", (a.batches, blocks, k, rows), a.tensor, keep=kept is not None)
    arguments = [m, k, blocks, a.tensor, out, a.row, a.column, a.batch, a.first]
    launch(context, source, "pack_rows", [-(-k // PART), blocks, a.batches], arguments, group=[1, 1, 1])
    if kept is not None:
        finish(context)
        kept[key] = out
    return out


PART = 128
"""Columns of a block that a work-item copies."""


def multiply(
    context: RunContext,
    a: Side,
    panels: Tensor,
    panel_batches: int,
    out: Tensor,
    sizes: tuple[int, int, int, int],
    *,
    first: int = 0,
    addend: Side | None = None,
    alpha: float = 1.0,
    beta: float = 1.0,
    end: End | None = None,
) -> None:
    """out[z] = end(alpha A[z] B[z] + beta addend[z]) for dense matrices M x N, ``sizes`` = (count, M, N, K)."""
    count, m, n, k = sizes
    t = c_type(out.dtype)
    text = Text(t, column_of(addend), alpha != 1, beta != 1, end.text if end else Finish())
    tail: list[Any] = [
        a.tensor,
        panels,
        out,
        a.row,
        a.column,
        a.batch,
        a.batches,
        a.first,
        panel_batches,
        first,
    ]
    if addend is not None:
        tail += [addend.tensor, addend.row, addend.column, addend.batch, addend.batches]
    scale = out.dtype.type
    tail += [scale(alpha)] if alpha != 1 else []
    tail += [scale(beta)] if addend is not None and beta != 1 else []
    tail += [end.residual] if end is not None and end.residual is not None else []

    def run(way: Way, keep: bool = True) -> None:
        arguments = [m, n, k, -(-n // WIDTH), *tail]
        if way.kind == "blocks":
            arguments[4] = packed_rows(context, a, m, k, way.rows, keep)
        source = tiled_source(text, way) if way.kind == "tiles" else block_source(text, way)
        size, group = way.range(m, -(-n // WIDTH), count)
        launch(context, source, "gemm", size, arguments, group=group)

    stream = context.stream
    assert isinstance(stream, ClStream)
    ways = ways_of(stream, m, n, out.dtype.itemsize)
    heavy = count * m * n * k >= HEAVY and len(ways) > 1
    key = f"gemm {t} {' '.join(str(size.bit_length()) for size in (m, n, k))}"
    run(fastest(stream, key, ways, lambda way: run(way, keep=False)) if heavy else ways[0])


def column_of(addend: Side | None) -> str:
    """Where in a row of the addend a column is."""
    if addend is None:
        return ""
    return {0: "0", 1: "(column)"}.get(addend.column, "(long)(column) * dc")


HEAVY = 1 << 26
"""Multiplications from which on it pays to measure which way is the fastest."""


def ways_of(stream: ClStream, m: int, n: int, itemsize: int) -> list[Way]:
    """The ways that the device can go for a product M x N; the one to take unmeasured comes first."""
    limits = stream.limits
    if not stream.gpu.is_cpu:
        found = [way for way in TILES if way.fits(limits.work_items, limits.local_memory, itemsize)]
        if found and m > 8:
            return found
    rows = min(ROWS, m)
    plain = Way("rows", rows)
    if m < ROWS or n < 4 * WIDTH or not stream.gpu.is_cpu:
        return [plain]
    return [Way("blocks", ROWS), Way("blocks", 8), plain]
