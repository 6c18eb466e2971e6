"""A few rows times weights: a warp, or a block, for a column or two, streamed once, sixteen bytes a lane.

Here the time is that of reading the weights, and that of starting kernels. So several products of the same rows are
one kernel, and what comes before and after them is inside: a normalisation by the root mean square, a bias, an
activation, a residual, or the gate of one product on another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from epkit.backend import RunContext

from ..launch import launch
from ..source import PRELUDE, computed, stored

MOST_ROWS = 4
WARPS = 4
"""Warps of a block."""

NARROWEST, SMALLEST = 32, 1 << 16
"""Columns, and elements of a matrix, from which on it is worth it."""

WIDTH = 16
"""Bytes that a lane reads at once."""

TOGETHER = 2
"""Columns of codes that a warp has under way: what is done to a row's number is done once for all of them."""

FULL = 2048
"""Warps that a large GPU has room for; where there are fewer, a block shares each column, if it is long enough."""

MOST_PARTS = 3
"""Products of one kernel."""

ACTIVATIONS = {
    "": "{0}",
    "relu": "({0} < 0 ? 0 : {0})",
    "gelu_tanh": "(0.5f * {0} * (1 + tanh(0.7978845608028654f * ({0} + 0.044715f * {0} * {0} * {0}))))",
}
"""What is done to a sum, by name."""


@dataclass(frozen=True)
class Dense:
    """A matrix [k, n] as it is."""

    matrix: Any
    bias: Any = None

    @property
    def columns(self) -> int:
        """Of the result."""
        return int(self.matrix.shape[1])

    @property
    def form(self) -> tuple[Any, ...]:
        """Equal for weights that one kernel can read."""
        return (0, self.bias is not None)

    def fits(self, a: Any) -> bool:
        """True if it can be streamed for rows a [m, k]."""
        b, each = self.matrix, self.matrix.dtype.itemsize
        k, n = b.shape
        wide = k * each % WIDTH == 0 and b.strides[0] == each and b.strides[1] >= k * each
        aligned = b.strides[1] % WIDTH == 0 and b.data.ptr % WIDTH == 0
        alike = a.shape[1] == k and a.dtype == b.dtype
        return bool(alike and wide and aligned and n >= NARROWEST and k * n >= SMALLEST)

    def arguments(self) -> list[Any]:
        """Of the kernel, for this part."""
        b = self.matrix
        return [np.int64(b.strides[1] // b.dtype.itemsize), b, b if self.bias is None else self.bias]


@dataclass(frozen=True)
class Packed:
    """A matrix [k, n] in blocks of codes: the operands of MatMulNBits, dense."""

    codes: Any
    scales: Any
    points: Any
    columns: int
    inner: int
    block: int
    bits: int

    @property
    def form(self) -> tuple[Any, ...]:
        """Equal for weights that one kernel can read."""
        return (self.bits, self.block, self.points is not None)

    def fits(self, a: Any) -> bool:
        """True if every sixteen bytes are codes of one block."""
        count = 8 * WIDTH // self.bits
        whole = self.inner % count == 0 and self.block % count == 0 and self.inner % self.block == 0
        alike = a.shape[1] == self.inner and self.scales.dtype == a.dtype
        return bool(alike and whole and self.codes.data.ptr % WIDTH == 0)

    def arguments(self) -> list[Any]:
        """Of the kernel, for this part."""
        return [self.codes, self.scales, self.codes if self.points is None else self.points]


Weight = Dense | Packed


@dataclass(frozen=True)
class Form:
    """One source.

    Attributes:
        kind: the C++ type of rows, sums apart.
        rows, parts: how many.
        bits: of the weights' codes; 0 for weights of the rows' type.
        points: True with zero points.
        bias: True with one number for each column.
        activation: one of ``ACTIVATIONS``.
        residual: True if something is added to the result.
        norm: True if the rows are normalised first.
        gated: True if there are two parts, and the result is swish(first) second.
        shared: True if a block, not a warp, has a column.
    """

    kind: str
    rows: int
    parts: int = 1
    bits: int = 0
    points: bool = False
    bias: bool = False
    activation: str = ""
    residual: bool = False
    norm: bool = False
    gated: bool = False
    shared: bool = False

    @property
    def together(self) -> int:
        """Columns of a warp or a block."""
        return TOGETHER if self.bits else 1


def _taken(norm: bool) -> str:
    """What becomes of element v of row r: its square is counted, and it is scaled, where rows are normalised."""
    return "squares[r] += v * v; v *= (C)widen(g.v[e]);" if norm else ""


def _dense(form: Form) -> str:
    """Adds the products of a column to ``totals``."""
    return f"""
__device__ inline void stream(const T* b, int packs, const T* a, const T* gamma, int lane, C* totals, C* squares) {{
  #pragma unroll 4
  for (int at = lane; at < packs; at += LANES) {{
    const Pack w = ((const Pack*)b)[at];
    {"const Pack g = ((const Pack*)gamma)[at];" if form.norm else ""}
    for (int r = 0; r < ROWS; r++) {{
      const Pack x = ((const Pack*)a)[r * packs + at];
      for (int e = 0; e < EACH; e++) {{
        C v = widen(x.v[e]);
        {_taken(form.norm)}
        totals[r] += v * widen(w.v[e]);
      }}
    }}
  }}
}}
"""


def _packed(form: Form) -> str:
    """The same for codes: sum a (q - z) s. Layout: see ``quantised``.

    A code stays in its place, as the last bits of 2^23 in a float, and is so 16^p or 256^p times too great; what
    it is multiplied with is made as much smaller. All of it is exact, and costs less than shifts and conversions.
    """
    count, mask, each = 8 * WIDTH // form.bits, (1 << form.bits) - 1, 8 // form.bits
    point = (
        f"points[own * point_bytes + g / {each}] >> (g % {each} * {form.bits}) & {mask}"
        if form.points
        else 1 << (form.bits - 1)
    )
    return f"""
struct alignas(16) Words {{ unsigned v[4]; }};
const int BITS = {form.bits}, COUNT = {count}, INSIDE = 16 / BITS;
__device__ inline void stream(const unsigned char* codes, const T* scales, const unsigned char* points, int packs,
    int block, int blocks, int point_bytes, int left, const T* a, const T* gamma, int lane, C* totals, C* squares) {{
  #pragma unroll 2
  for (int at = lane; at < packs * EACH / COUNT; at += LANES) {{
    const int g = at * COUNT / block;
    Words w[COLUMNS];
    int zero[COLUMNS];
    C sums[COLUMNS * ROWS] = {{}};
    for (int c = 0; c < COLUMNS; c++) {{
      const long long own = c < left ? c : 0;
      w[c] = ((const Words*)(codes + own * packs * EACH * BITS / 8))[at];
      zero[c] = {point};
    }}
    #pragma unroll
    for (int pack = 0; pack < COUNT / EACH; pack++) {{
      Pack x[ROWS];
      for (int r = 0; r < ROWS; r++) x[r] = ((const Pack*)a)[r * packs + at * (COUNT / EACH) + pack];
      {"const Pack g = ((const Pack*)gamma)[at * (COUNT / EACH) + pack];" if form.norm else ""}
      #pragma unroll
      for (int e = 0; e < EACH; e++) {{
        const int place = pack * EACH + e, power = place % INSIDE * BITS;
        C code[COLUMNS];
        for (int c = 0; c < COLUMNS; c++) {{
          const unsigned half = w[c].v[place * BITS / 32] >> (place * BITS / 16 % 2 * 16);
          code[c] = __int_as_float(0x4b000000 | (int)(half & {mask}u << power)) - (C)(0x800000 + (zero[c] << power));
        }}
        for (int r = 0; r < ROWS; r++) {{
          C v = widen(x[r].v[e]);
          {_taken(form.norm)}
          v *= 1.0f / (1 << power);
          for (int c = 0; c < COLUMNS; c++) sums[c * ROWS + r] += v * code[c];
        }}
      }}
    }}
    for (int c = 0; c < COLUMNS; c++) {{
      const C scale = widen(scales[(c < left ? c : 0) * blocks + g]);
      for (int r = 0; r < ROWS; r++) totals[c * ROWS + r] += scale * sums[c * ROWS + r];
    }}
  }}
}}
"""


DENSE = {"step": "long long", "b": "const T*", "bias": "const T*"}
PACKED = {"codes": "const unsigned char*", "scales": "const T*", "points": "const unsigned char*"}
"""Parameters of each part, with their types."""


def _places(form: Form, part: int | str = "") -> str:
    """Where a part's column begins, and how much of it there is."""
    if not form.bits:
        return f"b{part} + column * step{part}, packs"
    codes = f"codes{part} + column * packs * EACH * {form.bits} / 8"
    rest = f"scales{part} + column * blocks, points{part} + column * point_bytes"
    return f"{codes}, {rest}, packs, block, blocks, point_bytes, columns - n"


def gemv_source(form: Form) -> str:
    """y[r, n] = activation(sum over k of a[r, k] b[n, k] + bias[n]) + residual[r, n], for each part."""
    names = PACKED if form.bits else DENSE
    shared = ", int block, int blocks, int point_bytes" if form.bits else ""
    parameters = "".join(
        f", int columns{part}{''.join(f', {kind} {name}{part}' for name, kind in names.items())}, T* y{part}"
        for part in range(form.parts)
    )
    every = ("columns", "y", *names)
    first = " ".join(
        f"{kind} {name} = {name}0;" for name, kind in {"columns": "int", "y": "T*", **names}.items()
    )
    later = range(1, 1 if form.gated else form.parts)
    switch = "\n  ".join(
        f"if (n >= WHOLE(columns)) {{ n -= WHOLE(columns); {' '.join(f'{name} = {name}{part};' for name in every)} }}"
        for part in later
    )
    gate = f"stream({_places(form, 1)}, a, gamma, lane, others, unused);" if form.gated else ""
    lanes = 32 * WARPS if form.shared else 32
    over = "over_block(Sum(), {})" if form.shared else "over_warp({})"
    mean = f"1 / sqrt({over.format('squares[r]')} / (packs * EACH) + epsilon)"
    return f"""{PRELUDE}
typedef {form.kind} T; typedef {computed(form.kind)} C;
const int EACH = {WIDTH} / sizeof(T), ROWS = {form.rows}, COLUMNS = {form.together}, LANES = {lanes};
#define WHOLE(columns) (((columns) + COLUMNS - 1) / COLUMNS * COLUMNS)
struct alignas({WIDTH}) Pack {{ T v[EACH]; }};
__device__ inline C over_warp(C x) {{
  for (int part = 16; part; part >>= 1) x += __shfl_xor_sync(0xffffffffu, x, part);
  return x;
}}
{_packed(form) if form.bits else _dense(form)}
extern "C" __global__ void gemv(int packs{shared}{parameters}, const T* __restrict__ a, const T* __restrict__ gamma,
    float epsilon, const T* __restrict__ residual) {{
  int n = (blockIdx.x * ({32 * WARPS} / LANES) + threadIdx.x / LANES) * COLUMNS;
  const int lane = threadIdx.x % LANES;
  {first}
  {switch}
  if (n >= columns) n = columns;  // nothing to do, but to be there where threads meet
  const long long column = n < columns ? n : 0;
  C totals[COLUMNS * ROWS] = {{}}, squares[ROWS] = {{}}, others[COLUMNS * ROWS] = {{}}, unused[ROWS] = {{}};
  stream({_places(form)}, a, gamma, lane, totals, squares);
  {gate}
  for (int r = 0; r < ROWS; r++) {{
    const C factor = {mean if form.norm else "1"};
    for (int c = 0; c < COLUMNS; c++, n++) {{
      C x = {over.format("totals[c * ROWS + r]")}, z = {over.format("others[c * ROWS + r]") if form.gated else "0"};
      if (n >= columns || lane) continue;
      {_finished(form)}
    }}
    n -= COLUMNS;
  }}
}}
"""


def _finished(form: Form) -> str:
    """What becomes of the sums x and z; as after separate kernels, each result is rounded."""
    value = f"x * factor{' + (C)widen(bias[n])' if form.bias else ''}"
    if form.gated:
        rounded = "(C)widen(stored_as<T>({}))"
        lines = [f"x = {rounded.format('x * factor')}; z = {rounded.format('z * factor')};"]
        lines.append(f"x = {rounded.format('x / (1 + exp(-x))')} * z;")
    else:
        lines = [f"x = {value};", f"x = {ACTIVATIONS[form.activation].format('x')};"]
    if form.residual:
        lines.append("x = (C)widen(stored_as<T>(x)) + (C)widen(residual[(long long)r * columns + n]);")
    return "\n      ".join([*lines, "narrow(x, y[(long long)r * columns + n]);"])


@dataclass(frozen=True)
class Around:
    """What is done in the same kernel.

    Attributes:
        gamma, epsilon: of the normalisation of the rows; None: there is none.
        residual: added to the result, of its shape.
        gated: the result is one: swish(first) second.
        activation: of each sum.
    """

    gamma: Any = None
    epsilon: float = 0.0
    residual: Any = None
    gated: bool = False
    activation: str = ""


def fits(a: Any, weights: Sequence[Weight], most: int = MOST_ROWS) -> bool:
    """True if rows a [m, k] and these weights are what one kernel takes."""
    few = 0 < a.shape[0] <= most and a.data.ptr % WIDTH == 0 and bool(a.flags.c_contiguous)
    alike = len(weights) <= MOST_PARTS and all(item.form == weights[0].form for item in weights)
    return few and alike and all(item.fits(a) for item in weights)


def multiply(
    context: RunContext, a: Any, weights: Sequence[Weight], outs: Sequence[Any], around: Around
) -> None:
    """Each out = a times its weight, for operands that fit."""
    first = weights[0]
    form = Form(stored(a.dtype), a.shape[0], len(weights), activation=around.activation, gated=around.gated)
    form = replace(form, norm=around.gamma is not None, residual=around.residual is not None)
    arguments: list[Any] = [np.int32(a.shape[1] * a.dtype.itemsize // WIDTH)]
    if isinstance(first, Packed):
        form = replace(form, bits=first.bits, points=first.points is not None)
        blocks = first.inner // first.block
        arguments += map(np.int32, (first.block, blocks, -(-blocks * first.bits // 8)))
    else:
        form = replace(form, bias=first.bias is not None)
    targets = [*outs, *outs][: len(weights)]  # a gate has one result
    for weight, out in zip(weights, targets, strict=True):
        arguments += [np.int32(weight.columns), *weight.arguments(), out]
    arguments += [a, a if around.gamma is None else around.gamma, np.float32(around.epsilon)]
    arguments.append(a if around.residual is None else around.residual)
    parts = weights[:1] if around.gated else weights
    groups = sum(-(-item.columns // form.together) for item in parts)
    loads = first.inner * first.bits // 8 if isinstance(first, Packed) else a.shape[1] * a.dtype.itemsize
    form = replace(form, shared=groups < FULL and loads >= 32 * WARPS * WIDTH)
    blocks = groups if form.shared else -(-groups // WARPS)
    launch(context, gemv_source(form), "gemv", blocks, 32 * WARPS, arguments)


def sources() -> list[str]:
    """Every kind of source that these kernels launch."""
    found = []
    for kind in ("float", "f16", "bf16"):
        plain = [Form(kind, 1), Form(kind, MOST_ROWS)]
        found += [
            replace(form, bias=bias, activation=name)
            for form in plain
            for bias in (False, True)
            for name in ACTIVATIONS
        ]
        packed = [
            replace(form, bits=bits, points=points)
            for form in plain
            for bits in (4, 8)
            for points in (False, True)
        ]
        for form in (*plain, *packed):
            found += [form, replace(form, residual=True), replace(form, norm=True, parts=MOST_PARTS)]
            found += [replace(form, norm=norm, parts=2, gated=True) for norm in (False, True)]
            found += [replace(form, norm=True, parts=2, gated=True, shared=True), replace(form, shared=True)]
    return list(dict.fromkeys(map(gemv_source, found)))
