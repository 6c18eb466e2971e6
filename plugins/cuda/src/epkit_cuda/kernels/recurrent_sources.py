"""CUDA C++ of RNN, GRU and LSTM: a block keeps one sequence in one direction, and meets after each step.

The input's part of all gates is there already. The state lies in global memory, so that it may be of any size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from epkit.kernels.recurrent import DEFAULTS

from ..source import PRELUDE, computed

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
    "hardsigmoid": "fmin(fmax(x * {a} + {b}, (C)0), (C)1)",
    "elu": "(x >= 0 ? x : expm1(x) * {a})",
}
"""By name in lower case; a and b are alpha and beta."""

OPTIONAL = ("b", "lens", "h0", "c0", "p", "y", "yh", "yc")
"""Arguments that may be absent: biases, lengths, states, peepholes; all states, the last ones."""


@dataclass(frozen=True)
class Cell:
    """What makes a step of one of the operators.

    Attributes:
        gates: how many a unit has.
        defaults: the activations of one direction.
        step: C++ of one step. In it h and next are the state before and after, cells and updates memory of each
            unit, g the input's part of the gates, r the weights of the state, n a unit, d the direction.
    """

    gates: int
    defaults: tuple[str, ...]
    step: str


UNITS = "for (int n = threadIdx.x; n < size; n += blockDim.x)"


def dots(gates: Sequence[int], state: str) -> str:
    """C++: a0, a1, ... are the products of the state with the columns of unit n of these gates."""
    starts = " ".join(f"C a{gate} = 0;" for gate in gates)
    sums = " ".join(f"a{gate} += x * row[{gate} * size];" for gate in gates)
    return f"""{starts}
      for (int j = 0; j < size; j++) {{
        const C x = {state}[j], *row = r + (long long)j * width + n;
        {sums}
      }}"""


RNN = Cell(1, ("tanh",), f"""
    {UNITS} {{
      {dots([0], "h")}
      next[n] = act0(g[n] + BIAS(0) + a0, d);
    }}""")  # fmt: skip

LSTM = Cell(4, ("sigmoid", "tanh", "tanh"), f"""
    {UNITS} {{
      {dots([0, 1, 2, 3], "h")}
      const C c = cells[n];
      const C i = act0(g[n] + BIAS(0) + a0 + PEEP(0) * c, d);
      const C f = act0(g[2 * size + n] + BIAS(2) + a2 + PEEP(2) * c, d);
      const C now = (coupled ? 1 - i : f) * c + i * act1(g[3 * size + n] + BIAS(3) + a3, d);
      const C o = act0(g[size + n] + BIAS(1) + a1 + PEEP(1) * now, d);
      cells[n] = now;
      next[n] = o * act2(now, d);
    }}""")  # fmt: skip

GRU = Cell(3, ("sigmoid", "tanh"), f"""
    {UNITS} {{
      {dots([0, 1], "h")}
      cells[n] = h[n] * act0(g[size + n] + BIAS(1) + a1, d);
      updates[n] = act0(g[n] + BIAS(0) + a0, d);
    }}
    __syncthreads();
    {UNITS} {{
      {dots([2], "cells")}
      const C made = act1(g[2 * size + n] + BIAS(2) + a2, d);
      next[n] = made + updates[n] * (h[n] - made);
    }}""")  # fmt: skip

GRU_LINEAR = Cell(3, ("sigmoid", "tanh"), f"""
    {UNITS} {{
      {dots([0, 1, 2], "h")}
      const C reset = act0(g[size + n] + BIAS(1) + a1, d);
      const C made = act1(g[2 * size + n] + INPUT_BIAS(2) + reset * (a2 + STATE_BIAS(2)), d);
      next[n] = made + act0(g[n] + BIAS(0) + a0, d) * (h[n] - made);
    }}""")  # fmt: skip


@dataclass(frozen=True)
class Layer:
    """The attributes that the operators share.

    Attributes:
        names: activations in lower case, those of one direction after the other.
        clip: bounds what goes into an activation; 0: not.
        backward: 0: no direction runs from the end; 1: all do; 2: the second one does.
        directions: one or two.
        by_batch: the sequence is the second axis, not the first.
        coupled: the forget gate is what the input gate leaves.
    """

    names: tuple[str, ...]
    alphas: tuple[float, ...]
    betas: tuple[float, ...]
    clip: float
    backward: int
    directions: int
    by_batch: bool
    coupled: bool = False


def literal(value: float) -> str:
    """A number of the computed type."""
    if math.isinf(value):
        return f"((C){'-' if value < 0 else ''}INFINITY)"
    return f"((C){value!r})"


def functions_of(layer: Layer, cell: Cell) -> str:
    """act0, act1, ... of a value and a direction; a list with a number for each name is read by position."""
    slots, names = len(cell.defaults), layer.names
    numbers: list[list[float]] = []
    for which, given in enumerate((layer.alphas, layer.betas)):
        by_position, values = len(given) == len(names), iter(given)
        column = []
        for name in names:
            default = DEFAULTS[name][which]
            column.append(next(values, default) if by_position or default is not None else None)
        numbers.append([0.0 if value is None else value for value in column])
    texts = [
        ACTIVATIONS[name].format(a=literal(a), b=literal(b))
        for name, a, b in zip(names, *numbers, strict=True)
    ]
    bound = f"x = fmin(fmax(x, {literal(-layer.clip)}), {literal(layer.clip)}); " if layer.clip > 0 else ""
    found = ""
    for slot in range(slots):
        first, last = texts[slot], texts[slot - slots]
        value = first if first == last else f"d ? (C)({last}) : (C)({first})"
        found += f"__device__ inline C act{slot}(C x, int d) {{ {bound}return {value}; }}\n"
    return found


def recur_source(c_type: str, cell: Cell, layer: Layer, there: frozenset[str]) -> str:
    """The kernel; ``there``: the optional arguments that are given."""
    extra = "".join(
        f", {'' if name.startswith('y') else 'const '}{'int' if name == 'lens' else 'T'}* {name}"
        for name in OPTIONAL
    )
    base = f"b[(long long)d * {2 * cell.gates} * size"
    place = (
        "(by_batch ? (row * steps + t) * directions + d : ((long long)t * directions + d) * batch + z) * size"
    )

    def start(name: str) -> str:
        return f"(C)widen({name}[state + n])" if name in there else "0"

    def keep(name: str, value: str) -> str:
        return f"narrow({value}, {name}[state + n]);" if name in there else ""

    rest = (
        f"for (int t = length; t < steps; t++) {UNITS} narrow((C)0, y[{place} + n]);" if "y" in there else ""
    )
    length = "lens[z]" if "lens" in there else "steps"
    return f"""{PRELUDE}
typedef {c_type} T; typedef {computed(c_type)} C;
#define INPUT_BIAS(k) {f"(C)widen({base} + (k) * size + n])" if "b" in there else "0"}
#define STATE_BIAS(k) {f"(C)widen({base} + ({cell.gates} + (k)) * size + n])" if "b" in there else "0"}
#define BIAS(k) (INPUT_BIAS(k) + STATE_BIAS(k))
#define PEEP(k) {"(C)widen(p[(d * 3 + (k)) * size + n])" if "p" in there else "0"}
{functions_of(layer, cell)}
extern "C" __global__ void recur(int steps, int batch, int size, int directions, int backward, int by_batch,
    int coupled, const C* __restrict__ G, const C* __restrict__ R, C* S, int* fault{extra}) {{
  const int d = blockIdx.x / batch, z = blockIdx.x % batch, width = {cell.gates} * size;
  const long long row = z;
  const int back = backward == 2 ? d : backward, wanted = {length};
  const int length = wanted < 0 ? 0 : wanted > steps ? steps : wanted;
  if (length != wanted && threadIdx.x == 0) atomicOr(fault, 1);
  const long long state = (long long)(by_batch ? z * directions + d : d * batch + z) * size;
  const C* r = R + (long long)d * size * width;
  C* memory = S + (long long)blockIdx.x * 4 * size;
  C *cells = memory + 2 * size, *updates = memory + 3 * size;
  {UNITS} {{ memory[n] = {start("h0")}; cells[n] = {start("c0")}; updates[n] = 0; }}
  __syncthreads();
  for (int s = 0; s < length; s++) {{
    const int t = back ? length - 1 - s : s;
    const long long token = by_batch ? row * steps + t : (long long)t * batch + z;
    const C* g = G + ((long long)d * steps * batch + token) * width;
    const C* h = memory + (s & 1) * size;
    C* next = memory + (1 - (s & 1)) * size;
    {cell.step}
    {f"{UNITS} narrow(next[n], y[{place} + n]);" if "y" in there else ""}
    __syncthreads();
  }}
  {rest}
  const C* last = memory + (length & 1) * size;
  {UNITS} {{ {keep("yh", "last[n]")} {keep("yc", "cells[n]")} }}
}}
#undef INPUT_BIAS
#undef STATE_BIAS
#undef BIAS
#undef PEEP
"""


def sources() -> list[str]:
    """One of each cell in each type, with everything; and the smallest."""
    every = frozenset(OPTIONAL)
    found = []
    for cell in (RNN, LSTM, GRU, GRU_LINEAR):
        layer = Layer(cell.defaults * 2, (), (), 1.0, 2, 2, True)
        found += [recur_source(t, cell, layer, every) for t in ("float", "double", "f16", "bf16")]
        found.append(recur_source("float", cell, layer, frozenset()))
    return found
