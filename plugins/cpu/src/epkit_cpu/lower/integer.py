"""Products and convolutions of 8-bit integers: the operators, and float ones between dequantisation and quantisation.

The sums are exact in int32; scales, bias and rounding follow while they are in registers.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from epkit.backend import static_shape

from .epilogue import ACTIVATIONS, addend, only_user
from .quantise import BYTES, is_plain
from .step import Image, Lowering, Operand, Step, View, longs
from .types import kind_of
from .window import three, window

if TYPE_CHECKING:
    import onnx_ir as ir

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Codes:
    """A tensor of 8 bits, which stands for (value - zero) * scale.

    Attributes:
        scale: None where only the numbers themselves count.
        zero: None is 0.
        axis: along which there may be several scales.
        nodes: what made numbers of it.
    """

    value: ir.Value | None
    scale: ir.Value | None
    zero: ir.Value | None
    axis: int = 1
    nodes: tuple[ir.Node, ...] = ()


@dataclass(frozen=True)
class Result:
    """Where sums go.

    Attributes:
        value: what is made in the end.
        scale, zero: of the codes that are made; None: floats, or the sums.
        bias: int32 to add to the sums; offset: float32 to add to the scaled sums. One per column.
        relu: negative results become zero.
        nodes: what followed.
    """

    value: ir.Value
    scale: ir.Value | None = None
    zero: ir.Value | None = None
    bias: Operand = None
    offset: Operand = None
    relu: bool = False
    nodes: tuple[ir.Node, ...] = ()


def codes_behind(view: View, index: int) -> Codes | None:
    """The codes of an input that DequantizeLinear has made numbers of."""
    value = view.input(index)
    node = None if value is None else value.producer()
    if node is None or node not in view.order or node.op_type != "DequantizeLinear" or node.domain:
        return None
    made = View(node, view.graph)
    if made.type(0) not in BYTES or made.result_type() != "float32" or not is_plain(made):
        return None
    if made.type(2) not in ("", made.type(0)):
        return None
    axis = int(made.attributes.get("axis", 1))
    return Codes(made.input(0), made.input(1), made.input(2), axis, (node,))


def is_one(value: ir.Value | None) -> bool:
    """True for one number, and for what is absent."""
    return value is None or static_shape(value) in ((), (1,))


def result_of(view: View, channel_axis: int, channels: int | None, offset: Operand = None) -> Result:
    """The float32 result of a node, with the bias, Relu and quantisation that it alone goes into.

    Args:
        channel_axis: of a bias, counted from the back; channels: its size, None: take none.
        offset: a bias that the node has by itself.
    """
    found = Result(view.node.outputs[0], offset=offset)
    user = only_user(view, found.value, view.order)
    if offset is None and user is not None and user.op == "Add" and user.opset >= 7:
        after = addend(view, user, found.value, channel_axis, channels)
        if after is not None and after.bias is not None:
            found = Result(after.result, offset=after.bias, nodes=(user.node,))
            user = only_user(view, found.value, view.order)
    relu = user if user is not None and user.op == "Relu" and not user.node.domain else None
    if relu is not None:
        user = only_user(view, relu.node.outputs[0], view.order)
    if user is None or user.op != "QuantizeLinear" or user.result_type() not in BYTES or not is_plain(user):
        return found
    scale, zero = user.constant(1), user.constant(2)
    if scale is None or scale.size != 1 or user.type(2) not in ("", user.result_type()):
        return found
    if user.input(2) is not None and (zero is None or zero.size != 1):
        return found
    nodes = (*found.nodes, *(() if relu is None else (relu.node,)), user.node)
    return replace(
        found,
        value=user.node.outputs[0],
        scale=user.input(1),
        zero=user.input(2),
        relu=relu is not None,
        nodes=nodes,
    )


def _step(
    kernel: str, view: View, x: Codes, w: Codes, weights: Operand, result: Result, attributes: bytes
) -> Step:
    """Operands in the order of ops/finish.h."""
    w_zero = w.zero if weights is w.value else None  # what is packed knows its zero points
    made = (result.scale, result.zero, result.bias, result.offset)
    inputs = (x.value, weights, None, x.scale, x.zero, w.scale, w_zero, *made)
    nodes = (view.node, *x.nodes, *w.nodes, *result.nodes)  # a profile names the first
    return Step(kernel, inputs, (result.value,), attributes, nodes)


def _zeros(view: View, w: Codes, count: int) -> tuple[bool, Array | None]:
    """Whether the zero points of weights are known and as many as needed, and they."""
    if w.zero is None:
        return True, None
    zeros = view.graph.constant(w.zero)
    if zeros is None or zeros.size not in (1, count):
        return False, None
    return True, np.ascontiguousarray(zeros.reshape(-1))


# ---- products ----


def gemm_step(view: View, a: Codes, b: Codes, result: Result, transpose: bool = False) -> Step | None:
    """A @ B; a constant matrix B is packed."""
    ranks = [None if v is None or v.shape is None else len(v.shape) for v in (a.value, b.value)]
    if any(rank is None or rank < 2 for rank in ranks) or not is_one(a.scale) or not is_one(a.zero):
        return None
    weights = view.graph.constant(b.value)
    if weights is None or weights.ndim != 2 or not weights.size:
        if not is_one(b.scale) or not is_one(b.zero):
            return None
        attributes = struct.pack("<2q4i", 0, 0, 0, int(transpose), int(result.relu), 0)
        return _step("gemm_int8", view, a, b, b.value, result, attributes)
    k, n = weights.shape[::-1] if transpose else weights.shape
    known, zeros = _zeros(view, b, n)
    if not known or not _fits(b, n, 0 if transpose else 1):
        return None
    packed = view.prepare("gemm_int8_pack", longs(int(transpose)), weights, zeros)
    attributes = struct.pack("<2q4i", k, n, 1, 0, int(result.relu), 0)
    return _step("gemm_int8", view, a, b, packed, result, attributes)


def _fits(w: Codes, count: int, axis: int) -> bool:
    """True for one scale, or one for each column."""
    return is_one(w.scale) or (static_shape(w.scale) == (count,) and w.axis % 2 == axis)


def dequantised_matmul(view: View) -> Step | None:
    """MatMul of dequantised codes."""
    a, b = codes_behind(view, 0), codes_behind(view, 1)
    if a is None or b is None or view.graph.constant(a.value) is not None:
        return None
    n = (static_shape(b.value) or (None,))[-1]
    return gemm_step(view, a, b, result_of(view, -1, n))


def dequantised_gemm(view: View) -> Step | None:
    """Gemm of dequantised codes, with a constant bias."""
    a, b, attributes = codes_behind(view, 0), codes_behind(view, 1), view.attributes
    if a is None or b is None or view.opset < 7 or attributes.get("transA", 0):
        return None
    if attributes.get("alpha", 1.0) != 1.0 or attributes.get("beta", 1.0) != 1.0:
        return None
    transpose = bool(attributes.get("transB", 0))
    shape, bias = static_shape(b.value), view.constant(2)
    if shape is None or (view.input(2) is not None and bias is None):
        return None
    n = shape[0 if transpose else 1]
    if bias is not None and bias.shape not in ((n,), (1, n)):
        return None
    offset = None if bias is None else np.ascontiguousarray(bias.reshape(-1))
    return gemm_step(view, a, b, result_of(view, -1, n, offset), transpose)


def qlinear_matmul(view: View) -> Step | None:
    """QLinearMatMul with one scale for A and one for the result."""
    i = view.inputs
    if not all(view.type(n) in BYTES for n in (0, 3)) or view.result_type() not in BYTES:
        return None
    if any(view.type(n) != "float32" for n in (1, 4, 6)) or not (is_one(i[6]) and is_one(i[7])):
        return None
    result = Result(view.node.outputs[0], i[6], i[7])
    return gemm_step(view, Codes(i[0], i[1], i[2]), Codes(i[3], i[4], i[5]), result)


def matmul_integer(view: View) -> Step | None:
    """MatMulInteger: the sums."""
    if view.type(0) not in BYTES or view.type(1) not in BYTES:
        return None
    a, b = Codes(view.input(0), None, view.input(2)), Codes(view.input(1), None, view.input(3))
    return gemm_step(view, a, b, Result(view.node.outputs[0]))


def matmul_integer_to_float(view: View) -> Step | None:
    """com.microsoft.MatMulIntegerToFloat: A, B, their scales, their zero points, a float bias."""
    if view.type(0) not in BYTES or view.type(1) not in BYTES or view.result_type() != "float32":
        return None
    a = Codes(view.input(0), view.input(2), view.input(4))
    b = Codes(view.input(1), view.input(3), view.input(5))
    return gemm_step(view, a, b, Result(view.node.outputs[0], offset=view.input(6)))


def dynamic_matmul(view: View) -> Step | None:
    """com.microsoft.DynamicQuantizeMatMul: the kernel quantises A."""
    if view.type(0) != "float32" or view.type(1) not in BYTES or view.result_type() != "float32":
        return None
    a, b = Codes(view.input(0), None, None), Codes(view.input(1), view.input(2), view.input(3))
    return gemm_step(view, a, b, Result(view.node.outputs[0], offset=view.input(4)))


# ---- convolutions ----


def conv_step(view: View, x: Codes, w: Codes, result: Result) -> Step | None:
    """A convolution with constant weights."""
    weights, group = view.graph.constant(w.value), int(view.attributes.get("group", 1))
    if weights is None or not weights.size or weights.ndim < 3 or group < 1 or weights.shape[0] % group:
        return None
    filters, channels, kernel = weights.shape[0], weights.shape[1] * group, weights.shape[2:]
    shape, rank = window(view, kernel), len(kernel)
    if shape is None or x.value is None or x.value.shape is None or len(x.value.shape) != rank + 2:
        return None
    if tuple(view.attributes.get("kernel_shape") or kernel) != tuple(kernel):
        return None
    known, zeros = _zeros(view, w, filters)
    scales = is_one(w.scale) or (static_shape(w.scale) == (filters,) and w.axis % weights.ndim == 0)
    if not known or not scales or not is_one(x.scale) or not is_one(x.zero):
        return None
    activation = ACTIVATIONS.index("relu" if result.relu else "none")

    def attributes(in_blocked: int = 0, out_blocked: int = 0) -> bytes:
        numbers = longs(channels, filters, group, 0, in_blocked, out_blocked, *three(None, rank, 0))
        return shape + numbers + struct.pack("<iffi", activation, 0.0, 0.0, 0)

    packed = view.prepare("conv_int8_pack", attributes(), weights, zeros)
    step = _step("conv_int8", view, x, w, packed, result, attributes())
    kind = "depthwise" if group == channels == filters and group > 1 else "conv"
    return replace(step, image=Image(kind, channels, filters, attributes))


def dequantised_conv(view: View) -> Step | None:
    """Conv of dequantised codes; a bias is constant."""
    x, w, bias = codes_behind(view, 0), codes_behind(view, 1), view.constant(2)
    if x is None or w is None or (view.input(2) is not None and bias is None):
        return None
    shape = static_shape(w.value)
    if shape is None or len(shape) < 3 or _is_depthwise(view, shape):
        return None
    offset = None if bias is None else np.ascontiguousarray(bias.reshape(-1))
    return conv_step(view, x, w, result_of(view, 1 - len(shape), shape[0], offset))


def _is_depthwise(view: View, shape: tuple[int, ...]) -> bool:
    """Groups of few channels, which float32 is faster with."""
    return int(view.attributes.get("group", 1)) > 1 and shape[1] < 4


def qlinear_conv(view: View) -> Step | None:
    """QLinearConv: x, w and y, each with scale and zero point, and a bias."""
    i = view.inputs
    if not all(view.type(n) in BYTES for n in (0, 3)) or view.result_type() not in BYTES:
        return None
    if any(view.type(n) != "float32" for n in (1, 4, 6)) or not (is_one(i[6]) and is_one(i[7])):
        return None
    bias = view.input(8)
    if bias is not None and kind_of(bias) != "int32":
        return None
    w = Codes(i[3], i[4], i[5], 0)
    return conv_step(view, Codes(i[0], i[1], i[2]), w, Result(view.node.outputs[0], i[6], i[7], bias))


def conv_integer(view: View) -> Step | None:
    """ConvInteger: the sums."""
    if view.type(0) not in BYTES or view.type(1) not in BYTES:
        return None
    x, w = Codes(view.input(0), None, view.input(2)), Codes(view.input(1), None, view.input(3), 0)
    return conv_step(view, x, w, Result(view.node.outputs[0]))


MS = "com.microsoft"

INTEGER: dict[tuple[str, str], Lowering] = {
    ("", "QLinearMatMul"): qlinear_matmul,
    ("", "MatMulInteger"): matmul_integer,
    (MS, "MatMulIntegerToFloat"): matmul_integer_to_float,
    (MS, "DynamicQuantizeMatMul"): dynamic_matmul,
    ("", "QLinearConv"): qlinear_conv,
    ("", "ConvInteger"): conv_integer,
}
