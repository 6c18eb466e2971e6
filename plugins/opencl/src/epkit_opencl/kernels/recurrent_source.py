"""The kernel of RNN, GRU and LSTM: what a step of each computes, the activations, and the loop over a sequence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from epkit.kernels.recurrent import DEFAULTS

from ..launch import pragma
from ..memory import Tensor
from .formulas import literal
from .gemm_source import WIDTH

ACTIVATIONS = {
    "relu": "(x < 0 ? 0 : x)",
    "tanh": "tanh(x)",
    "sigmoid": "1 / (1 + exp(-x))",
    "softsign": "x / (1 + fabs(x))",
    "softplus": "(x > 0 ? x : 0) + log1p(exp(-fabs(x)))",
    "affine": "x * {a} + {b}",
    "leakyrelu": "(x >= 0 ? x : x * {a})",
    "thresholdedrelu": "(x >= {a} ? x : 0)",
    "scaledtanh": "tanh(x * {b}) * {a}",
    "hardsigmoid": "clamp(x * {a} + {b}, (T)0, (T)1)",
    "elu": "(x >= 0 ? x : expm1(x) * {a})",
}
"""By name in lower case; a and b are alpha and beta."""


@dataclass(frozen=True)
class Cell:
    """What makes a step of one of the three operators.

    Attributes:
        gates: how many a unit has.
        defaults: the activations of one direction.
        step: C code of one step; see :func:`source_of` for its words.
    """

    gates: int
    defaults: tuple[str, ...]
    step: str


def dots(gates: Sequence[int], state: str) -> str:
    """C code: a0, a1, ... are the products of the state with the columns of these gates."""
    starts = "".join(f"TV a{g} = 0; " for g in gates)
    sums = "".join(
        f"a{g} = fma(x, vloadV(0, r + ({g} * panels * size + j) * {WIDTH}), a{g}); " for g in gates
    )
    stores = "".join(f"T d{g}[V]; vstoreV(a{g}, 0, d{g}); " for g in gates)
    return f"{starts}for (int j = 0; j < size; j++) {{ const TV x = {state}[j]; {sums}}} {stores}"


UNITS = "for (int u = me; u < panels * PARTS; u += workers)"
LANES = "for (int l = 0, n = u * V; l < V; l++, n++) if (n < size)"
COLUMNS = f"__global const T* r = R + ((long)(u / PARTS) * size * {WIDTH} + u % PARTS * V);"

RNN = Cell(1, ("Tanh",), f"""
    {UNITS} {{
      {COLUMNS}
      {dots([0], "h")}
      {LANES} next[n] = act0(g[n] + BIAS(0) + d0[l], d);
    }}""")  # fmt: skip

LSTM = Cell(4, ("Sigmoid", "Tanh", "Tanh"), f"""
    {UNITS} {{
      {COLUMNS}
      {dots([0, 1, 2, 3], "h")}
      {LANES} {{
        const T c = cells[n];
        const T i = act0(g[n] + BIAS(0) + d0[l] + PEEP(0) * c, d);
        const T f = act0(g[2 * size + n] + BIAS(2) + d2[l] + PEEP(2) * c, d);
        const T now = (coupled ? 1 - i : f) * c + i * act1(g[3 * size + n] + BIAS(3) + d3[l], d);
        const T o = act0(g[size + n] + BIAS(1) + d1[l] + PEEP(1) * now, d);
        cells[n] = now;
        next[n] = o * act2(now, d);
      }}
    }}""")  # fmt: skip

GRU = Cell(3, ("Sigmoid", "Tanh"), f"""
    {UNITS} {{
      {COLUMNS}
      {dots([0, 1], "h")}
      {LANES} {{
        cells[n] = h[n] * act0(g[size + n] + BIAS(1) + d1[l], d);
        updates[n] = act0(g[n] + BIAS(0) + d0[l], d);
      }}
    }}
    barrier(CLK_GLOBAL_MEM_FENCE);
    {UNITS} {{
      {COLUMNS}
      {dots([2], "cells")}
      {LANES} {{
        const T made = act1(g[2 * size + n] + BIAS(2) + d2[l], d);
        next[n] = made + updates[n] * (h[n] - made);
      }}
    }}""")  # fmt: skip

GRU_LINEAR = Cell(3, ("Sigmoid", "Tanh"), f"""
    {UNITS} {{
      {COLUMNS}
      {dots([0, 1, 2], "h")}
      {LANES} {{
        const T reset = act0(g[size + n] + BIAS(1) + d1[l], d);
        const T made = act1(g[2 * size + n] + INPUT_BIAS(2) + reset * (d2[l] + STATE_BIAS(2)), d);
        next[n] = made + act0(g[n] + BIAS(0) + d0[l], d) * (h[n] - made);
      }}
    }}""")  # fmt: skip


@dataclass(frozen=True)
class Layer:
    """The attributes that the three operators share, as the standard has them."""

    direction: str
    activations: Sequence[str]
    alphas: Sequence[float]
    betas: Sequence[float]
    clip: float
    layout: int
    coupled: int = 0

    @property
    def directions(self) -> int:
        """One or two."""
        return 2 if self.direction == "bidirectional" else 1

    @property
    def backward(self) -> int:
        """0: none runs from the end; 1: all; 2: the second."""
        return {"reverse": 1, "bidirectional": 2}.get(self.direction, 0)


def activations_of(layer: Layer, cell: Cell, t: str) -> str:
    """The C functions act0, act1, ... of a value and a direction.

    Raises:
        ValueError: if there are too few activations, or one is unknown.
    """
    slots, names = len(cell.defaults), list(layer.activations) or list(cell.defaults) * layer.directions
    names = [name.lower() for name in names[: slots * layer.directions]]
    if len(names) < slots * layer.directions or any(name not in ACTIVATIONS for name in names):
        raise ValueError(f"activations {names} are not {slots * layer.directions} known ones")
    numbers: list[list[float]] = []
    for which, given in enumerate((layer.alphas, layer.betas)):
        by_position, values = len(given) == len(names), iter(given)
        column = []
        for name in names:
            default = DEFAULTS[name][which]
            column.append(next(values, default) if by_position or default is not None else None)
        numbers.append([0.0 if value is None else value for value in column])
    clipped = f"x = clamp(x, {literal(-layer.clip, t)}, {literal(layer.clip, t)}); " if layer.clip > 0 else ""
    texts = [
        ACTIVATIONS[name].format(a=literal(a, t), b=literal(b, t))
        for name, a, b in zip(names, *numbers, strict=True)
    ]
    found = ""
    for slot in range(slots):
        first, last = texts[slot], texts[slot - slots]
        value = first if first == last else f"d ? ({last}) : ({first})"
        found += f"inline T act{slot}(T x, int d) {{ {clipped}return {value}; }}\n"
    return found


def source_of(cell: Cell, t: str, lanes: int, functions: str, given: Mapping[str, Tensor | None]) -> str:
    """The kernel. In a step, h and next are the state before and after, cells and updates memory of each unit,
    g the input's part of the gates, me one of the workers, n a unit, d the direction.
    """
    there = {name for name, tensor in given.items() if tensor is not None}
    extra = "".join(
        f", __global {'' if name.startswith('y') else 'const '}{'int' if name == 'lens' else 'T'}* {name}, "
        f"const long o_{name}"
        for name in given
        if name in there
    )

    def starts(name: str) -> str:
        return f"{name}[o_{name} + state + n]" if name in there else "0"

    base = f"b[o_b + (long)d * {2 * cell.gates} * size"
    ends = "".join(
        f"{LANES} {name}[o_{name} + state + n] = {kept}[n]; "
        for name, kept in (("yh", "last"), ("yc", "cells"))
        if name in there
    )
    at_y = (
        "(by_batch ? ((long)z * steps + t) * directions + d : ((long)t * directions + d) * batch + z) * size"
    )
    keep = f"{UNITS} {LANES} y[o_y + {at_y} + n] = next[n];" if "y" in there else ""
    rest = (
        f"for (int t = length; t < steps; t++) {UNITS} {LANES} y[o_y + {at_y} + n] = 0;"
        if "y" in there
        else ""
    )
    return f"""{pragma([t])}
typedef {t} T;
typedef {t}{lanes} TV;
#define V {lanes}
#define PARTS {WIDTH // lanes}
#define vloadV vload{lanes}
#define vstoreV vstore{lanes}
#define INPUT_BIAS(k) {f"{base} + (k) * size + n]" if "b" in there else "0"}
#define STATE_BIAS(k) {f"{base} + ({cell.gates} + (k)) * size + n]" if "b" in there else "0"}
#define BIAS(k) (INPUT_BIAS(k) + STATE_BIAS(k))
#define PEEP(k) {"p[o_p + (d * 3 + (k)) * size + n]" if "p" in there else "0"}
{functions}
__kernel void recur(const int steps, const int batch, const int size, const int panels, const int directions,
                    const int backward, const int by_batch, const int coupled,
                    __global const T* G, const long og, __global const T* R, const long or_,
                    __global T* S, const long os{extra}) {{
  const int d = get_group_id(0) / batch, z = get_group_id(0) % batch, wide = panels * {WIDTH};
  const int me = get_local_id(0), workers = get_local_size(0), back = backward == 2 ? d : backward;
  const int length = {"clamp(lens[o_lens + z], 0, steps)" if "lens" in there else "steps"};
  const long state = (long)(by_batch ? z * directions + d : d * batch + z) * size;
  G += og;
  R += or_ + (long)d * {cell.gates} * panels * size * {WIDTH};
  S += os + (long)get_group_id(0) * 4 * wide;
  __global T* cells = S + 2 * wide;
  __global T* updates = S + 3 * wide;
  {UNITS} {LANES} {{ S[n] = {starts("h0")}; cells[n] = {starts("c0")}; }}
  barrier(CLK_GLOBAL_MEM_FENCE);
  for (int s = 0; s < length; s++) {{
    const int t = back ? length - 1 - s : s;
    __global const T* g =
      G + (((long)d * steps * batch) + (by_batch ? (long)z * steps + t : (long)t * batch + z)) * {cell.gates} * size;
    __global T* h = S + (s & 1) * wide;
    __global T* next = S + (1 - (s & 1)) * wide;
    {cell.step}
    {keep}
    barrier(CLK_GLOBAL_MEM_FENCE);
  }}
  {rest}
  __global T* last = S + (length & 1) * wide;
  {UNITS} {{ {ends} }}
}}
"""
