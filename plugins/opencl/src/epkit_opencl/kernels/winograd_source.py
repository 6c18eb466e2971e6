"""The texts of Winograd convolution, generated from the matrices of the minimal filtering algorithms.

Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks" (2016). For tiles of m x m outputs and kernels of
3 x 3, s = m + 2: y = A' [(G w G') * (B' x B)] A, where the product in the middle, summed over channels, is s² products
of matrices.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from .activations import activated
from .gemm_source import WIDTH, Finish

Matrix = Sequence[Sequence[float]]


@dataclass(frozen=True)
class Tile:
    """F(m x m, 3 x 3).

    Attributes:
        outputs: m, along an axis.
        data, weights, result: B', G and A'.
    """

    outputs: int
    data: Matrix
    weights: Matrix
    result: Matrix

    @property
    def inputs(self) -> int:
        """s, along an axis."""
        return self.outputs + 2

    @property
    def points(self) -> int:
        """Products of matrices."""
        return self.inputs**2

    def __repr__(self) -> str:
        return f"winograd {self.outputs}"


TWO = Tile(
    2,
    ((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, 1, 0, -1)),
    ((1, 0, 0), (1 / 2, 1 / 2, 1 / 2), (1 / 2, -1 / 2, 1 / 2), (0, 0, 1)),
    ((1, 1, 1, 0), (0, 1, -1, -1)),
)
FOUR = Tile(
    4,
    (
        (4, 0, -5, 0, 1, 0),
        (0, -4, -4, 1, 1, 0),
        (0, 4, -4, -1, 1, 0),
        (0, -2, -1, 2, 1, 0),
        (0, 2, -1, -2, 1, 0),
        (0, 4, 0, -5, 0, 1),
    ),
    (
        (1 / 4, 0, 0),
        (-1 / 6, -1 / 6, -1 / 6),
        (-1 / 6, 1 / 6, -1 / 6),
        (1 / 24, 1 / 12, 1 / 6),
        (1 / 24, -1 / 12, 1 / 6),
        (0, 0, 1),
    ),
    ((1, 1, 1, 1, 1, 0), (0, 1, -1, 2, -2, 0), (0, 1, 1, 4, 4, 0), (0, 1, -1, 8, -8, 1)),
)


def combination(factors: Sequence[float], names: Sequence[str]) -> str:
    """The sum of the named numbers times the factors."""
    terms = [
        ("-" if factor < 0 else "+") + (name if abs(factor) == 1 else f" {float(abs(factor))}f * {name}")
        for factor, name in zip(factors, names, strict=True)
        if factor
    ]
    return " ".join(terms)


def both_sides(matrix: Matrix, number: str, source: str, target: str) -> str:
    """Statements for target = M source M'; arrays of ``number`` by rows. They declare the target."""
    out, size = len(matrix), len(matrix[0])
    down = " ".join(
        f"half_{target}[{i * size} + j] = {combination(row, [f'{source}[{k * size} + j]' for k in range(size)])};"
        for i, row in enumerate(matrix)
    )
    across = " ".join(
        f"{target}[i * {out} + {j}] = {combination(row, [f'half_{target}[i * {size} + {k}]' for k in range(size)])};"
        for j, row in enumerate(matrix)
    )
    return f"""{number} half_{target}[{out * size}], {target}[{out * out}];
  for (int j = 0; j < {size}; j++) {{ {down} }}
  for (int i = 0; i < {out}; i++) {{ {across} }}"""


@cache
def weights_source(tile: Tile) -> str:
    """G w G' for every pair of channels, matrix after matrix: (points, pairs)."""
    return f"""
__kernel void weights(const int pairs, __global const float* p, const long op, __global float* q, const long oq) {{
  const int i = get_global_id(0);
  if (i >= pairs) return;
  float w[9];
  for (int k = 0; k < 9; k++) w[k] = p[op + (long)i * 9 + k];
  {both_sides(tile.weights, "float", "w", "u")}
  for (int z = 0; z < {tile.points}; z++) q[oq + (long)z * pairs + i] = u[z];
}}
"""


@cache
def data_source(tile: Tile, lanes: int) -> str:
    """B' x B for every tile and channel, as panels: (points, panels, channels, WIDTH). A work-item does ``lanes`` tiles
    of some channels: it copies lines of them, and makes vectors of those in which each lane is a tile.
    """
    size, points, number = tile.inputs, tile.points, vector(lanes)
    line = 1 << (size - 1).bit_length()
    return f"""
__kernel void data(const int tiles, const int panels, const int C, const int IH, const int IW, const int TH,
                   const int TW, const int ph, const int pw, const int each,
                   __global const float* p, const long op, __global float* q, const long oq) {{
  const int first = get_global_id(0) * {lanes}, channel = get_global_id(1) * each;
  const int last = min(C, channel + each);
  if (first >= panels * {WIDTH}) return;
  int row[{lanes}], column[{lanes}], image[{lanes}];
  for (int l = 0; l < {lanes}; l++) {{
    const int t = first + l;
    column[l] = t % TW * {tile.outputs} - pw;
    row[l] = t < tiles ? t / TW % TH * {tile.outputs} - ph : IH;
    image[l] = t / TW / TH;
  }}
  float d[{size * line * lanes}];
  for (int c = channel; c < last; c++) {{
    for (int l = 0; l < {lanes}; l++) {{
      const int y = row[l], x = column[l];
      __global const float* from = p + op + ((long)image[l] * C + c) * IH * IW + (long)y * IW + x;
      float* to = d + l * {line};
      if (y >= 0 && x >= 0 && y + {size} <= IH && x + {size} <= IW)
        for (int r = 0; r < {size}; r++, to += {lanes * line}, from += IW) {{
          vstore4(vload4(0, from), 0, to);
          {"vstore2(vload2(2, from), 2, to);" if size == 6 else ""}
        }}
      else
        for (int r = 0; r < {size}; r++, to += {lanes * line}, from += IW) {{
          const bool inside = y + r >= 0 && y + r < IH;
          for (int k = 0; k < {size}; k++) to[k] = inside && x + k >= 0 && x + k < IW ? from[k] : 0;
        }}
    }}
    {number} x[{points}];
    for (int r = 0; r < {size}; r++) {{
      const float* from = d + r * {line * lanes};
      {apart(size, line, lanes)}
    }}
    {both_sides(tile.data, number, "x", "v")}
    __global float* to = q + oq + ((long)(first / {WIDTH}) * C + c) * {WIDTH} + first % {WIDTH};
    for (int k = 0; k < {points}; k++, to += (long)panels * C * {WIDTH}) {store(lanes, "v[k]", "to")}
  }}
}}
"""


def apart(size: int, line: int, lanes: int) -> str:
    """Statements for x[r * size + k], lane l = from[l * line + k]."""
    if lanes == 1:
        return f"for (int k = 0; k < {size}; k++) x[r * {size} + k] = from[k];"
    statements = [f"const {vector(lanes)} s{k} = vload{lanes}({k}, from);" for k in range(line)]

    def split(names: list[str]) -> list[str]:
        if len(names) == 1:
            return names
        parts = []
        for half in ("even", "odd"):
            made = [f"{a}{half[0]}" for a in names[::2]]
            for name, a, b in zip(made, names[::2], names[1::2], strict=True):
                statements.append(
                    f"const {vector(lanes)} {name} = ({vector(lanes)})({a}.{half}, {b}.{half});"
                )
            parts.append(split(made))
        return [name for pair in zip(*parts, strict=True) for name in pair]

    found = split([f"s{k}" for k in range(line)])
    statements += [f"x[r * {size} + {k}] = {name};" for k, name in enumerate(found[:size])]
    return "\n      ".join(statements)


@cache
def result_source(tile: Tile, lanes: int, bias: bool, end: Finish) -> str:
    """A' m A for every tile and output channel, and what ends the convolution. A work-item does ``lanes`` tiles."""
    size, points, number = tile.outputs, tile.points, vector(lanes)
    more = ", __global const float* b, const long ob" if bias else ""
    more += ", __global const float* e, const long oe" if end.residual else ""
    activation = activated(end.activation, end.numbers, "x", "float") if end.activation else ""
    each = f"for (int l = 0; l < {lanes}; l++)"
    start = f"const int t = first + l, oh = t / TW % TH * {size}, ow = t % TW * {size};"
    place = "((long)(t / TW / TH) * M + m) * H * W + (long)oh * W + ow"
    added = f"""{each} {{
    {start}
    if (t < tiles) for (int r = 0; r < {size} && oh + r < H; r++)
      for (int k = 0; k < {size} && ow + k < W; k++)
        o[(r * {size} + k) * {lanes} + l] += e[oe + {place} + r * W + k];
  }}"""
    finished = (
        f"for (int k = 0; k < {size * size * lanes}; k++) {{ const float x = o[k]; o[k] = {activation}; }}"
    )
    return f"""
__kernel void result(const int tiles, const int panels, const int M, const int H, const int W, const int TH,
                     const int TW, __global const float* p, const long op, __global float* q,
                     const long oq{more}) {{
  const int first = get_global_id(0) * {lanes}, m = get_global_id(1), wide = panels * {WIDTH};
  if (first >= tiles) return;
  {number} x[{points}];
  p += op + (long)m * wide + first;
  for (int k = 0; k < {points}; k++, p += (long)M * wide) x[k] = {load(lanes, "p")};
  {both_sides(tile.result, number, "x", "y")}
  float o[{size * size * lanes}];
  for (int k = 0; k < {size * size}; k++) {{
    const {number} v = y[k]{" + b[ob + m]" if bias else ""};
    {store(lanes, "v", f"o + k * {lanes}")}
  }}
  {added if end.residual else ""}
  {finished if activation else ""}
  {each} {{
    {start}
    if (t >= tiles) break;
    __global float* to = q + oq + {place};
    if (ow + {size} <= W) {{
      for (int r = 0; r < {size} && oh + r < H; r++)
        for (int k = 0; k < {size}; k++) to[r * W + k] = o[(r * {size} + k) * {lanes} + l];
    }} else for (int r = 0; r < {size} && oh + r < H; r++)
        for (int k = 0; k < {size} && ow + k < W; k++) to[r * W + k] = o[(r * {size} + k) * {lanes} + l];
  }}
}}
"""


def vector(lanes: int) -> str:
    """The type of as many numbers."""
    return "float" if lanes == 1 else f"float{lanes}"


def load(lanes: int, place: str) -> str:
    """As many numbers from there on."""
    return f"*({place})" if lanes == 1 else f"vload{lanes}(0, {place})"


def store(lanes: int, number: str, place: str) -> str:
    """Write them there."""
    return f"*({place}) = {number};" if lanes == 1 else f"vstore{lanes}({number}, 0, {place});"
