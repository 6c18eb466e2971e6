"""Resize and Upsample: one thread a number, which reads what it comes from along all axes at once.

Positions are the portable operator's, in float64, so that both round to the same neighbour. What is rare
(antialiasing, regions, integers between their neighbours) stays portable.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np

from epkit.backend import Kernel, RunContext, element_type, kernel
from epkit.kernels.attributes import attribute_values
from epkit.kernels.resize import LEGACY, LEGACY_LINEAR, WHOLE, Axis, Filter, planned, scaled_axes

from ..launch import dense, launch, on_host
from ..memory import Tensor
from ..source import PRELUDE, computed, stored
from .formulas import ANY, FLOATS
from .indexing import BLOCK, GRID, MOVED
from .rows import output

DEEPEST = 4
"""Axes that move, with those between them joined, at most."""

ROUNDED = {
    "round_prefer_floor": "ceil(p{0} - 0.5)",
    "round_prefer_ceil": "floor(p{0} + 0.5)",
    "floor": "floor(p{0})",
    "ceil": "ceil(p{0})",
    "simple": "(up{0} < down{0} ? ceil(p{0}) : floor(p{0}))",
}
"""Which neighbour of position p is the nearest, by the attribute ``nearest_mode``."""

COORDINATES = ("half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric", "tf_half_pixel_for_nn")

TAPS = {"nearest": 1, "linear": 2, "cubic": 4}
"""Neighbours that count along one axis."""

WEIGHTS = """
__device__ inline double weight(double d, double a) {
  d = fabs(d);
  return CUBIC ? (d <= 1 ? ((a + 2) * d - (a + 3)) * d * d + 1 : d < 2 ? ((a * d - 5 * a) * d + 8 * a) * d - 4 * a : 0)
               : (d < 1 ? 1 - d : 0);
}
"""
"""Of a neighbour at a distance. Keys, "Cubic convolution interpolation for digital image processing" (1981)."""


@dataclass(frozen=True)
class Positions:
    """Position p = (i + before) down / up - after along an axis of ``length``, for i < ``size``."""

    length: int
    size: int
    before: float = 0.0
    after: float = 0.0
    up: float = 1.0
    down: float = 1.0

    @property
    def moves(self) -> bool:
        """False if every position is i."""
        return (self.length, self.before, self.up) != (self.size, self.after, self.down)


def positions(axis: Axis, coordinates: str) -> Positions:
    """Of an axis to be resized, in the standard's coordinates."""
    length, size, up, down = axis.length, axis.size, axis.up, axis.down
    if coordinates == "align_corners":
        wanted = axis.wanted
        return Positions(length, size, 0, 0, *((wanted - 1, length - 1) if wanted > 1 else (1, 0)))
    if coordinates == "pytorch_half_pixel" and size == 1:
        return Positions(length, size, 0, 0, 1, 0)
    if coordinates == "asymmetric":
        return Positions(length, size, 0, 0, up, down)
    return Positions(length, size, 0.5, 0 if coordinates == "tf_half_pixel_for_nn" else 0.5, up, down)


def joined(found: Sequence[Positions]) -> list[Positions]:
    """Neighbouring axes that do not move become one."""
    result: list[Positions] = []
    for item in found:
        if result and not item.moves and not result[-1].moves:
            both = result[-1].length * item.length
            result[-1] = Positions(both, both)
        else:
            result.append(item)
    return result


def resize_source(kind: str, moving: Sequence[bool], rule: Filter) -> str:
    """Elements of C++ type ``kind``; ``moving`` says which axes are resized, the others are read as they are."""
    taps, rank = TAPS[rule.mode], len(moving)
    names = [f"m{axis}, n{axis}" for axis in range(rank)]
    sizes = "".join(f", long long {pair.replace(', ', ', long long ')}" for pair in names)
    places = "".join(
        f", double before{a}, double after{a}, double up{a}, double down{a}" for a in range(rank)
    )
    lines = []
    for axis in reversed(range(rank)):
        lines.append(f"const long long i{axis} = rest % n{axis}; rest /= n{axis};")
        if moving[axis]:
            lines += _along(axis, rule)
    at = "0"
    for axis in range(rank):
        at = f"({at}) * m{axis} + " + (f"at{axis}[t{axis}]" if moving[axis] else f"i{axis}")
    loops = " ".join(f"for (int t{a} = 0; t{a} < {taps}; t{a}++)" for a in range(rank) if moving[a])
    if rule.mode == "nearest":
        inner = f"{loops} y[i] = x[{at}];"
    else:
        factor = " * ".join(f"w{axis}[t{axis}]" for axis in range(rank) if moving[axis]) or "1"
        inner = f"C sum = 0;\n    {loops} {{ const C w = {factor}; if (w != 0) sum += w * widen(x[{at}]); }}"
        inner += "\n    narrow(sum, y[i]);"
    body = "\n    ".join(lines)
    return f"""{PRELUDE}
const bool CUBIC = {str(rule.mode == "cubic").lower()};
typedef {kind} T; typedef {computed(kind)} C;{WEIGHTS}
extern "C" __global__ void resize(long long n, double a{sizes}{places}, const T* __restrict__ x, T* __restrict__ y) {{
  const long long threads = (long long)gridDim.x * blockDim.x;
  for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += threads) {{
    long long rest = i;
    {body}
    {inner}
  }}
}}
"""


def _along(axis: int, rule: Filter) -> list[str]:
    """The neighbours along an axis, and their weights."""
    taps = TAPS[rule.mode]
    position = f"const double p{axis} = (i{axis} + before{axis}) * down{axis} / up{axis} - after{axis};"
    bounded = f"at < 0 ? 0 : at >= m{axis} ? m{axis} - 1 : at"
    if rule.mode == "nearest":
        nearest = ROUNDED[rule.nearest].format(axis)
        return [
            position,
            f"long long at{axis}[1]; {{ const long long at = (long long){nearest}; at{axis}[0] = {bounded}; }}",
        ]
    first = 1 - taps // 2
    counts = f"at >= 0 && at < m{axis}" if rule.exclude_outside else "true"
    return [
        position,
        f"const double b{axis} = floor(p{axis}); long long at{axis}[{taps}]; C w{axis}[{taps}]; double all{axis} = 0;",
        f"for (int t = 0; t < {taps}; t++) {{",
        f"  const long long at = (long long)b{axis} + t + {first};",
        f"  const double w = {counts} ? weight(t + {first} - (p{axis} - b{axis}), a) : 0;",
        f"  at{axis}[t] = {bounded}; w{axis}[t] = w; all{axis} += w;",
        "}",
        f"if (all{axis} != 0) for (int t = 0; t < {taps}; t++) w{axis}[t] /= all{axis};",
    ]


def resized(context: RunContext, node: Any, x: Tensor, plan: Sequence[Axis], rule: Filter) -> Tensor:
    """x with every axis of the plan resized.

    Raises:
        ValueError: if an axis without elements is to get some, or too many axes move.
    """
    known = [Positions(size, size) for size in x.shape]
    for axis in plan:
        if axis.length == 0 and axis.size:
            raise ValueError(f"axis {axis.index} of size 0 cannot be resized to {axis.size}")
        if axis.size != axis.length or axis.scale != 1:
            known[axis.index] = positions(axis, rule.coordinates)
    axes = joined(known)
    if sum(item.moves for item in axes) > DEEPEST:
        raise ValueError(f"{len(axes)} axes move, the kernel takes {DEEPEST}: leave some as they are")
    out = output(context, node, x, [item.size for item in known])
    kind = MOVED[x.dtype.itemsize] if rule.mode == "nearest" else stored(x.dtype)
    source = resize_source(kind, [item.moves for item in axes], rule)
    sizes = [np.int64(n) for item in axes for n in (item.length, item.size)]
    places = [np.float64(n) for item in axes for n in (item.before, item.after, item.up, item.down)]
    arguments = [np.int64(out.size), np.float64(rule.cubic_a), *sizes, *places, dense(context, x), out.array]
    launch(context, source, "resize", min(GRID, -(-out.size // BLOCK)), BLOCK, arguments)
    return out


def takes(node: Any) -> bool | str:
    """The usual coordinates; integers only from their nearest neighbour."""
    attributes = attribute_values(node)
    mode, kind = attributes.get("mode", "nearest"), element_type(node.inputs[0])
    coordinates = attributes.get("coordinate_transformation_mode", "half_pixel")
    if attributes.get("antialias", 0) or coordinates not in COORDINATES:
        return f"antialiasing and {coordinates}: the portable operator"
    known = ANY if mode == "nearest" else FLOATS
    if kind not in known:
        return f"the kernel takes {sorted(known)} for mode {mode!r}, found {kind or 'an unknown type'}"
    rank = len(node.inputs[0].shape or ())
    return rank <= DEEPEST + 1 or f"{rank} axes, the kernel takes {DEEPEST + 1}"


def _values(context: RunContext, tensor: Tensor | None) -> Any:
    """A small input's values, of its element type; None where it is absent."""
    return None if tensor is None else on_host(context, tensor)


@kernel("Resize", since=11, when=takes)
def resize(
    x: Tensor,
    roi: Tensor | None = None,
    scales: Tensor | None = None,
    sizes: Tensor | None = None,
    *,
    axes: Sequence[int] | None = None,
    coordinate_transformation_mode: str = "half_pixel",
    cubic_coeff_a: float = -0.75,
    exclude_outside: int = 0,
    keep_aspect_ratio_policy: str = "stretch",
    mode: str = "nearest",
    nearest_mode: str = "round_prefer_floor",
    context: RunContext,
    node: Any,
) -> Tensor:
    """Each number from those about the place that it comes from."""
    coordinates = coordinate_transformation_mode
    rule = Filter(mode, coordinates, nearest_mode, cubic_coeff_a, bool(exclude_outside))
    given = _values(context, scales), _values(context, sizes)
    plan = planned(
        SimpleNamespace(shape=x.shape, ndim=x.ndim), None, *given, rule, axes, keep_aspect_ratio_policy
    )
    return resized(context, node, x, plan, rule)


def legacy(name: str, since: int, until: int) -> Kernel:
    """By scales that are an input."""

    @kernel(name, since=since, until=until, when=takes)
    def upsample(
        x: Tensor, scales: Tensor, *, mode: str = "nearest", context: RunContext, node: Any
    ) -> Tensor:
        factors = np.asarray(on_host(context, scales), np.float32)
        plan = scaled_axes(x, range(x.ndim), factors, (WHOLE,) * x.ndim)
        return resized(context, node, x, plan, LEGACY if mode == "nearest" else LEGACY_LINEAR)

    return upsample


KERNELS: tuple[Kernel, ...] = (resize, legacy("Resize", 10, 10), legacy("Upsample", 9, 9))


def sources() -> list[str]:
    """Every kind of source that these kernels launch, for pictures."""
    picture = (False, True, True)
    nearest = [Filter(nearest=name) for name in ROUNDED]
    smooth = [
        Filter(mode, exclude_outside=outside) for mode in ("linear", "cubic") for outside in (False, True)
    ]
    return [
        *(resize_source(kind, picture, rule) for kind in MOVED.values() for rule in nearest),
        *(resize_source(stored(name), picture, rule) for name in sorted(FLOATS) for rule in smooth),
    ]
