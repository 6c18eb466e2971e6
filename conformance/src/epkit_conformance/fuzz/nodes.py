"""Strategies for one node of each kind of operator: shapes, none and one included; attributes; element types.

Values are small multiples of a quarter, which add up exactly, so that an error is an error and not a rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any

import ml_dtypes
import numpy as np
import onnx.defs
from hypothesis import assume
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from onnx import helper

from epkit.dtypes import numpy_dtype

from ..corpus.generated import types_of
from ..meanings import BINARY, UNARY
from .trial import FLOATS, OPSET, Trial, make_model

Draw = Callable[[Any], Any]
SPECIAL = (np.nan, np.inf, -np.inf, -0.0)


@dataclass(frozen=True)
class Parts:
    """What a node is made of; inputs named in ``fixed`` are constants, None is an absent one."""

    inputs: Sequence[Any]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    fixed: Sequence[int] = ()
    outputs: int = 1


Kind = Callable[[Draw, str, str], Parts]
KINDS: dict[str, Kind] = {}


def kind(names: str | Iterable[str]) -> Callable[[Kind], Kind]:
    """Declare how nodes of some operators are made."""

    def declare(function: Kind) -> Kind:
        KINDS.update(dict.fromkeys(names.split() if isinstance(names, str) else names, function))
        return function

    return declare


@cache
def element_types(op: str) -> tuple[str, ...]:
    """Those of the operator's main type variable."""
    return tuple(types_of(onnx.defs.get_schema(op, OPSET)))


def operators() -> list[tuple[str, str]]:
    """All (operator, element type) that there are strategies for."""
    return [(op, dtype) for op in sorted(KINDS) if _exists(op) for dtype in element_types(op)]


def _exists(op: str) -> bool:
    return any(s.name == op and s.domain == "" for s in onnx.defs.get_all_schemas()) and (
        onnx.defs.get_schema(op).since_version <= OPSET or onnx.defs.has(op, OPSET)
    )


@st.composite
def nodes(draw: Draw, chosen: Sequence[tuple[str, str]]) -> Trial:
    """One node of one of the operators, in one of its element types."""
    op, dtype = draw(st.sampled_from(chosen))
    parts = KINDS[op](draw, op, dtype)
    names = ["" if x is None else f"x{index}" for index, x in enumerate(parts.inputs)]
    given = {name: x for name, x in zip(names, parts.inputs, strict=True) if name}
    outputs = [f"y{index}" for index in range(parts.outputs)]
    node = helper.make_node(op, names, outputs, "node", **parts.attributes)
    constants = {name: given.pop(name) for name in [f"x{index}" for index in parts.fixed] if name in given}
    model = make_model([node], given, constants, outputs, symbolic=draw(st.booleans()))
    return Trial(model, given, dtype, _meaning(op, parts.attributes))


def _meaning(op: str, attributes: Mapping[str, Any]) -> Callable[..., Any] | None:
    """The closed form of an elementwise operator; its functions take the attributes that it states."""
    found = (UNARY | BINARY).get(op)
    if found is None or dict(found.attributes) != attributes or op == "BitShift":
        return None
    return partial(found.function, **attributes)


# ---- what nodes are made of ----


def shapes(least: int = 0, most: int = 3, smallest: int = 0, largest: int = 5) -> Any:
    """Shapes of so many axes, each of so many elements."""
    return hnp.array_shapes(min_dims=least, max_dims=most, min_side=smallest, max_side=largest)


@st.composite
def arrays(draw: Draw, dtype: str, shape: Sequence[int], *, low: int = -16, special: bool = False) -> Any:
    """Small numbers of an element type; with ``special``, not-a-number and the like among them."""
    kind = numpy_dtype(dtype)
    if dtype == "bool":
        return draw(hnp.arrays(np.bool_, tuple(shape)))
    if dtype.startswith(("int", "uint")):
        limits = ml_dtypes.iinfo(kind)  # type: ignore[no-untyped-call]
        elements = st.integers(max(low, -9, int(limits.min)), min(9, int(limits.max)))
        return draw(hnp.arrays(np.int8, tuple(shape), elements=elements)).astype(kind)
    array = (draw(hnp.arrays(np.int8, tuple(shape), elements=st.integers(low, 16))) / 4).astype(kind)
    if special and array.size and draw(st.booleans()):
        array.reshape(-1)[draw(st.integers(0, array.size - 1))] = draw(st.sampled_from(SPECIAL))
    return array


def _axis(draw: Draw, rank: int) -> int:
    """An axis, from either end."""
    return int(draw(st.integers(-rank, rank - 1)))


def _axes(draw: Draw, rank: int) -> Any:
    chosen = draw(st.lists(st.integers(0, rank - 1), unique=True, min_size=1, max_size=rank))
    return np.array([axis - rank * int(draw(st.booleans())) for axis in chosen], np.int64)


def _numbers(*values: int) -> Any:
    return np.array(values, np.int64)


# ---- elementwise ----


@kind([op for op in UNARY if op not in ("Swish",)])
def unary(draw: Draw, op: str, dtype: str) -> Parts:
    """Within the domain of the function."""
    meaning = UNARY[op]
    x = draw(arrays(dtype, draw(shapes()), special=meaning.nan == "nan" and op not in ("Mish", "Gelu")))
    if (meaning.low, meaning.high) != (-4.0, 4.0) and x.dtype.kind not in "iub":
        span = (meaning.high - meaning.low) / 8
        x = (meaning.low + (x.astype(np.float64) + 4) * span).astype(x.dtype)
    return Parts([x], draw(st.sampled_from([{}, dict(meaning.attributes)])))


@kind(BINARY)
def binary(draw: Draw, op: str, dtype: str) -> Parts:
    """Shapes that broadcast."""
    made = draw(hnp.mutually_broadcastable_shapes(num_shapes=2, max_dims=3, min_side=0, max_side=4))
    meaning = BINARY[op]
    if op == "PRelu":
        assume(np.broadcast_shapes(*made.input_shapes) == made.input_shapes[0])
    special = meaning.nan == "nan" and op not in ("Max", "Min", "Mean", "Sum")
    a, b = (draw(arrays(dtype, shape, special=special)) for shape in made.input_shapes)
    if meaning.positive:
        a, b = np.abs(a), np.abs(b) + b.dtype.type(1)
    attributes = dict(meaning.attributes)
    if op == "Mod" and dtype in FLOATS:
        attributes["fmod"] = 1
    if op == "BitShift":
        attributes["direction"] = draw(st.sampled_from(["LEFT", "RIGHT"]))
        b = b % b.dtype.type(8)
    return Parts([a, b], attributes)


@kind("Where")
def where(draw: Draw, op: str, dtype: str) -> Parts:
    """Three shapes that broadcast."""
    made = draw(hnp.mutually_broadcastable_shapes(num_shapes=3, max_dims=3, min_side=0, max_side=4))
    first, second, third = made.input_shapes
    return Parts([draw(arrays("bool", first)), draw(arrays(dtype, second)), draw(arrays(dtype, third))])


@kind("Clip")
def clip(draw: Draw, op: str, dtype: str) -> Parts:
    """Both limits, one, none; constant or not."""
    low, high = sorted(int(draw(st.integers(0, 4))) for _ in range(2))
    limits: list[Any] = [np.array(value).astype(numpy_dtype(dtype)) for value in (low, high)]
    inputs = [draw(arrays(dtype, draw(shapes()))), *limits[: draw(st.integers(0, 2))]]
    return Parts(inputs, fixed=(1, 2) if draw(st.booleans()) else ())


# ---- along axes ----


@kind("ReduceSum ReduceMean ReduceMax ReduceMin ReduceProd ReduceL1 ReduceL2 ReduceSumSquare ReduceLogSumExp")
def reduction(draw: Draw, op: str, dtype: str) -> Parts:
    """Any axes, kept or not; none given at all."""
    smallest = 1 if op in ("ReduceMax", "ReduceMin", "ReduceMean", "ReduceLogSumExp") else 0
    x = draw(arrays(dtype, draw(shapes(1, smallest=smallest, largest=4))))
    axes = [_axes(draw, x.ndim)] if draw(st.booleans()) else []
    return Parts([x, *axes], {"keepdims": draw(st.integers(0, 1))}, (1,) if draw(st.booleans()) else ())


@kind("ArgMax ArgMin")
def argument(draw: Draw, op: str, dtype: str) -> Parts:
    """The first or the last of equals."""
    x = draw(arrays(dtype, draw(shapes(1, smallest=1))))
    last = {"select_last_index": draw(st.integers(0, 1)), "keepdims": draw(st.integers(0, 1))}
    return Parts([x], {"axis": _axis(draw, x.ndim), **last})


@kind("CumSum")
def cumsum(draw: Draw, op: str, dtype: str) -> Parts:
    """Forwards and backwards, with and without the element itself."""
    x = draw(arrays(dtype, draw(shapes(1, smallest=1))))
    how = {"exclusive": draw(st.integers(0, 1)), "reverse": draw(st.integers(0, 1))}
    return Parts([x, np.array(_axis(draw, x.ndim))], how, (1,))


@kind("Softmax LogSoftmax Hardmax")
def softmax(draw: Draw, op: str, dtype: str) -> Parts:
    """Along any axis."""
    x = draw(arrays(dtype, draw(shapes(1, smallest=1))))
    return Parts([x], {"axis": _axis(draw, x.ndim)} if draw(st.booleans()) else {})


@kind("LayerNormalization")
def layer_normalization(draw: Draw, op: str, dtype: str) -> Parts:
    """From any axis on, with and without a bias."""
    x = draw(arrays(dtype, draw(shapes(1, smallest=1))))
    axis = _axis(draw, x.ndim)
    rest = [draw(arrays(dtype, x.shape[axis % x.ndim :])) for _ in range(draw(st.integers(1, 2)))]
    return Parts([x, *rest], {"axis": axis, "epsilon": 0.5})


@kind("TopK")
def top_k(draw: Draw, op: str, dtype: str) -> Parts:
    """Distinct values, so that there is one answer."""
    count, other = draw(st.integers(1, 6)), draw(st.integers(1, 3))
    columns = [draw(st.permutations(range(count))) for _ in range(other)]
    x = np.array(columns).astype(numpy_dtype(dtype))
    axis = int(draw(st.sampled_from([-1, 0, 1])))
    x = x.T.copy() if axis == 0 else x
    how = {"axis": axis, "largest": draw(st.integers(0, 1)), "sorted": 1}
    return Parts([x, _numbers(draw(st.integers(0, count)))], how, (1,), outputs=2)


# ---- products and windows ----


@kind("MatMul")
def matmul(draw: Draw, op: str, dtype: str) -> Parts:
    """Batches that broadcast, vectors, empty products."""
    made = draw(hnp.mutually_broadcastable_shapes(signature="(m?,n),(n,p?)->(m?,p?)", max_dims=2, max_side=4))
    return Parts([draw(arrays(dtype, shape)) for shape in made.input_shapes])


@kind("Gemm")
def gemm(draw: Draw, op: str, dtype: str) -> Parts:
    """Either transposed, with factors, and what is added in any shape that broadcasts."""
    m, n, k = (draw(st.integers(1, 5)) for _ in range(3))
    turned = {"transA": draw(st.integers(0, 1)), "transB": draw(st.integers(0, 1))}
    a = draw(arrays(dtype, (k, m) if turned["transA"] else (m, k)))
    b = draw(arrays(dtype, (n, k) if turned["transB"] else (k, n)))
    c = draw(st.sampled_from([None, (m, n), (n,), (1, n), (m, 1), ()]))
    factors = {} if dtype not in FLOATS else {"alpha": 0.5, "beta": draw(st.sampled_from([0.0, 2.0]))}
    return Parts([a, b, *([] if c is None else [draw(arrays(dtype, c))])], {**turned, **factors})


@kind("Conv")
def conv(draw: Draw, op: str, dtype: str) -> Parts:
    """One or two spatial axes, groups, strides, dilations, pads."""
    axes, group = draw(st.integers(1, 2)), draw(st.integers(1, 2))
    window = [draw(st.integers(1, 3)) for _ in range(axes)]
    dilations = [draw(st.integers(1, 2)) for _ in range(axes)]
    pads = [draw(st.integers(0, 1)) for _ in range(2 * axes)]
    sizes = [d * (w - 1) + 1 + draw(st.integers(0, 3)) for w, d in zip(window, dilations, strict=True)]
    channels, maps = group * draw(st.integers(1, 2)), group * draw(st.integers(1, 2))
    x = draw(arrays(dtype, (draw(st.integers(0, 2)), channels, *sizes)))
    w = draw(arrays(dtype, (maps, channels // group, *window)))
    bias = [draw(arrays(dtype, (maps,)))] if draw(st.booleans()) else []
    how = {"group": group, "strides": [draw(st.integers(1, 2)) for _ in range(axes)]}
    return Parts([x, w, *bias], {**how, "pads": pads, "dilations": dilations}, (1,))


@kind("MaxPool AveragePool")
def pool(draw: Draw, op: str, dtype: str) -> Parts:
    """Square windows, with equal pads: of others, ``onnx.reference`` gets the shape wrong."""
    side = draw(st.integers(1, 3))
    x = draw(arrays(dtype, (1, draw(st.integers(1, 2)), *(side + draw(st.integers(0, 3)) for _ in "hw"))))
    how: dict[str, Any] = {"kernel_shape": [side] * 2, "strides": [draw(st.integers(1, 2))] * 2}
    how["pads"] = [draw(st.integers(0, (side - 1) // 2))] * 4
    if op == "AveragePool":
        how["count_include_pad"] = draw(st.integers(0, 1))
    return Parts([x], how)


# ---- shapes and indices ----


@kind("Transpose")
def transpose(draw: Draw, op: str, dtype: str) -> Parts:
    """Any order of the axes."""
    x = draw(arrays(dtype, draw(shapes(1, 4))))
    return Parts([x], {"perm": draw(st.permutations(range(x.ndim)))} if draw(st.booleans()) else {})


@kind("Reshape")
def reshape(draw: Draw, op: str, dtype: str) -> Parts:
    """To one axis, or the last to the front; with -1."""
    x = draw(arrays(dtype, draw(shapes(1, smallest=1))))
    to = draw(st.sampled_from([(-1,), x.shape[::-1], (1, -1), (*x.shape, 1), (0, -1)]))
    return Parts([x, _numbers(*to)], fixed=(1,) if draw(st.booleans()) else ())


@kind("Flatten")
def flatten(draw: Draw, op: str, dtype: str) -> Parts:
    """At any axis, both ends included."""
    x = draw(arrays(dtype, draw(shapes(1))))
    return Parts([x], {"axis": int(draw(st.integers(-x.ndim, x.ndim)))})


@kind("Unsqueeze")
def unsqueeze(draw: Draw, op: str, dtype: str) -> Parts:
    """One more axis anywhere."""
    x = draw(arrays(dtype, draw(shapes())))
    return Parts([x, _numbers(_axis(draw, x.ndim + 1))], fixed=(1,))


@kind("Concat")
def concat(draw: Draw, op: str, dtype: str) -> Parts:
    """One to three tensors, some of them empty."""
    shape = list(draw(shapes(1)))
    axis = _axis(draw, len(shape))
    parts = []
    for _ in range(draw(st.integers(1, 3))):
        shape[axis] = draw(st.integers(0, 3))
        parts.append(draw(arrays(dtype, shape)))
    return Parts(parts, {"axis": axis})


@kind("Split")
def split(draw: Draw, op: str, dtype: str) -> Parts:
    """Into two parts, one of which may be empty."""
    x = draw(arrays(dtype, draw(shapes(1, smallest=1))))
    axis = _axis(draw, x.ndim)
    first = draw(st.integers(0, x.shape[axis]))
    return Parts([x, _numbers(first, x.shape[axis] - first)], {"axis": axis}, (1,), outputs=2)


@kind("Slice")
def slice_(draw: Draw, op: str, dtype: str) -> Parts:
    """Starts and ends beyond both edges, steps in both directions."""
    x = draw(arrays(dtype, draw(shapes(1, smallest=1))))
    axis = _axis(draw, x.ndim)
    start, end = (draw(st.integers(-7, 7)) for _ in range(2))
    step = draw(st.sampled_from([1, -1, 2, -2, 9]))
    numbers = [_numbers(value) for value in (start, end, axis, step)]
    return Parts([x, *numbers], fixed=(1, 2, 3, 4) if draw(st.booleans()) else ())


@kind("Pad")
def pad(draw: Draw, op: str, dtype: str) -> Parts:
    """Each mode, and a value."""
    x = draw(arrays(dtype, draw(shapes(1, 2, smallest=2))))
    mode = draw(st.sampled_from(["constant", "edge", "reflect"]))
    most = min(x.shape) - 1 if mode == "reflect" else 3
    widths = _numbers(*(draw(st.integers(0, most)) for _ in range(2 * x.ndim)))
    value = [np.array(1).astype(x.dtype)] if mode == "constant" and draw(st.booleans()) else []
    return Parts([x, widths, *value], {"mode": mode}, (1, 2))


@kind("Tile Expand")
def repeat(draw: Draw, op: str, dtype: str) -> Parts:
    """Repeats, none included; a new shape that broadcasts."""
    if op == "Tile":
        x = draw(arrays(dtype, draw(shapes(1))))
        return Parts([x, _numbers(*(draw(st.integers(0, 2)) for _ in x.shape))], fixed=(1,))
    made = draw(hnp.mutually_broadcastable_shapes(num_shapes=2, max_dims=3, min_side=0, max_side=4))
    assume(made.input_shapes[1])
    return Parts([draw(arrays(dtype, made.input_shapes[0])), _numbers(*made.input_shapes[1])], fixed=(1,))


@kind("Gather GatherElements")
def gather(draw: Draw, op: str, dtype: str) -> Parts:
    """Along any axis, from both ends; no index at all."""
    x = draw(arrays(dtype, draw(shapes(1, smallest=1))))
    axis = _axis(draw, x.ndim)
    size = x.shape[axis]
    shape = list(draw(shapes(most=2, largest=3))) if op == "Gather" else list(x.shape)
    if op == "GatherElements":
        shape[axis] = draw(st.integers(0, 3))
    indices = draw(hnp.arrays(np.int64, tuple(shape), elements=st.integers(-size, size - 1)))
    return Parts([x, indices], {"axis": axis})


@kind("Trilu")
def trilu(draw: Draw, op: str, dtype: str) -> Parts:
    """Either half, from any diagonal."""
    x = draw(arrays(dtype, draw(shapes(2))))
    return Parts([x, np.array(draw(st.integers(-5, 5)))], {"upper": draw(st.integers(0, 1))}, (1,))
