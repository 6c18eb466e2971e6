"""Products of matrices: the right side is packed into panels, each work-item keeps a block of the result in registers.

C[b] = alpha A[b] B[b] + beta D[b]. Every operand has element strides, so transposed and broadcast operands are
read in place; only B is copied, once for a weight. A panel is K rows of WIDTH columns, padded with zeros.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from epkit.backend import RunContext

from ..launch import c_type, launch, pragma
from ..memory import ClStream, Tensor, new_buffer
from .activations import activated

WIDTH = 32
"""Columns of a panel, and of a work-item's block: two vectors of 16."""

ROWS = 12
"""Rows of a block; 12 x 2 accumulators and two vectors of B fit 32 vector registers."""


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
    source = _source(t, addend is not None, alpha != 1, beta != 1, min(ROWS, m), end)
    rows = min(ROWS, m)
    arguments = [
        m, n, k, -(-n // WIDTH), a.tensor, panels, out,
        a.row, a.column, a.batch, a.batches, a.first, panel_batches, first,
    ]  # fmt: skip
    if addend is not None:
        arguments += [addend.tensor, addend.row, addend.column, addend.batch, addend.batches]
    scale = out.dtype.type
    arguments += [scale(alpha)] if alpha != 1 else []
    arguments += [scale(beta)] if addend is not None and beta != 1 else []
    arguments += [end.residual] if end is not None and end.residual is not None else []
    launch(context, source, "gemm", [-(-m // rows), -(-n // WIDTH), count], arguments, group=[1, 1, 1])


def _source(t: str, has_addend: bool, has_alpha: bool, has_beta: bool, rows: int, end: End | None) -> str:
    span = range(rows)
    extra = ""
    if has_addend:
        extra += (
            f", __global const {t}* d, const long od, const int dr, const int dc, const int db, const int dz"
        )
    extra += f", const {t} alpha" if has_alpha else ""
    extra += f", const {t} beta" if has_addend and has_beta else ""
    residual = end is not None and end.residual is not None
    extra += f", __global const {t}* e, const long oe" if residual else ""
    multiply_add = "fma" if t in ("float", "double") else "MAD"
    pointers = "\n  ".join(f"__global const {t}* a{r} = a + (long)min(i + {r}, m - 1) * ar;" for r in span)
    zeros = "\n  ".join(f"{t}16 l{r} = 0, h{r} = 0;" for r in span)
    steps = "\n    ".join(
        f"{{ const {t}16 x = a{r}[at]; l{r} = {multiply_add}(x, lo, l{r}); h{r} = {multiply_add}(x, hi, h{r}); }}"
        for r in span
    )
    scaled = "".join(f"l{r} *= alpha; h{r} *= alpha; " for r in span) if has_alpha else ""
    addend = ""
    if has_addend:
        factor = "beta * " if has_beta else ""
        addend = (
            f"for (int c = 0; c < w; c++) v[c] += {factor}d[od + (long)(z % dz) * db + (long)(i + r) * dr "
            f"+ (long)(j + c) * dc];"
        )
    finish = ""
    if end is not None:
        more = " + e[oe + first + ((long)z * m + i + r) * n + j + c]" if residual else ""
        value = activated(end.activation, end.numbers, "x", t) if end.activation else "x"
        finish = f"for (int c = 0; c < w; c++) {{ const {t} x = v[c]{more}; v[c] = {value}; }}"
    stores = "\n  ".join(
        f"if (i + {r} < m) {{ const int r = {r}; {t} v[{WIDTH}]; vstore16(l{r}, 0, v); vstore16(h{r}, 1, v); "
        f"{addend} {finish} __global {t}* o = q + (long)(i + r) * n + j; "
        f"if (w == {WIDTH}) {{ vstore16(vload16(0, v), 0, o); vstore16(vload16(1, v), 1, o); }} "
        f"else for (int c = 0; c < w; c++) o[c] = v[c]; }}"
        for r in span
    )
    return f"""{pragma([t])}
#define MAD(x, y, z) ((x) * (y) + (z))
__kernel void gemm(const int m, const int n, const int k, const int panels,
                   __global const {t}* a, const long oa, __global const {t}* b, const long ob,
                   __global {t}* q, const long oq, const int ar, const int ac, const int ab, const int az,
                   const int af, const int bz, const int first{extra}) {{
  const int i = get_global_id(0) * {rows}, panel = get_global_id(1), z = get_global_id(2);
  const int j = panel * {WIDTH}, w = min({WIDTH}, n - j);
  a += oa + af + (long)(z % az) * ab;
  b += ob + ((long)(z % bz) * panels + panel) * k * {WIDTH};
  q += oq + first + (long)z * m * n;
  {pointers}
  {zeros}
  for (int s = 0; s < k; s++) {{
    const long at = (long)s * ac;
    const {t}16 lo = vload16(0, b), hi = vload16(1, b);
    b += {WIDTH};
    {steps}
  }}
  {scaled}
  {stores}
}}
"""
