"""What the names stand for in the formulas of quantised operators."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
from drawn_arrays import SIDE, f32, floats, shape_of
from hypothesis import strategies as st
from network_cases import CONVOLUTION
from rule_instances import Draw, Given

from epkit.optimize.fuse import Fusion
from epkit.optimize.fusions import qlinear, qmoved, quantized


def codes(draw: Draw, *shape: int, kind: str = "") -> np.ndarray[Any, Any]:
    dtype = np.dtype(kind or draw(st.sampled_from(["int8", "uint8"])))
    rng = np.random.default_rng(draw(st.integers(0, 999)))
    low, high = (0, 200) if dtype == np.uint8 else (-100, 100)
    return rng.integers(low, high, shape).astype(dtype)


def quantised_product(draw: Draw) -> Given:
    m, k, n = draw(SIDE), draw(SIDE), draw(SIDE)
    a, b, y = codes(draw, m, k), codes(draw, k, n), codes(draw, 1)
    scales = np.linspace(0.01, 0.02, n).astype(np.float32) if draw(st.booleans()) else f32(0.015)
    constants = {"b": b, "y_scale": f32(0.02), "a_scale": f32(0.01), "b_scale": scales}
    constants |= {f"{name}_zero_point": np.asarray(3, array.dtype) for name, array in (("a", a), ("y", y))}
    constants["b_zero_point"] = np.full(scales.shape, 3, b.dtype)
    return Given({"a": a}, constants, {"b_axis": 1} if scales.ndim else {})


def quantised_convolution(draw: Draw) -> Given:
    n, c, m, h, w = draw(SIDE), draw(SIDE), draw(SIDE), draw(SIDE) + 2, draw(SIDE) + 2
    x, weights, y = codes(draw, n, c, h, w), codes(draw, m, c, 2, 2, kind="int8"), codes(draw, 1)
    scales = np.linspace(0.01, 0.02, m).astype(np.float32) if draw(st.booleans()) else f32(0.01)
    zeros = np.zeros(scales.shape, np.int8)
    constants = {
        "w": weights,
        "w_scale": scales,
        "w_zero_point": zeros,
        "x_scale": f32(0.02),
        "y_scale": f32(0.05),
    }
    constants |= {
        "B": codes(draw, m, kind="int8").astype(np.int32),
        "B_scale": (scales * np.float32(0.02)).astype(np.float32),
    }
    constants["B_zero_point"] = np.zeros(scales.shape, np.int32)
    constants |= {f"{name}_zero_point": np.asarray(4, array.dtype) for name, array in (("x", x), ("y", y))}
    attributes = CONVOLUTION | ({"w_axis": 0, "B_axis": 0} if scales.ndim else {})
    return Given({"x": x}, constants, attributes, opset=18)


def quantised_pointwise(*names: str) -> Callable[[Draw], Given]:
    """Codes of one type: the last name is the result."""

    def given_for(draw: Draw) -> Given:
        shape, kind = shape_of(draw), draw(st.sampled_from(["int8", "uint8"]))
        inputs = {name: codes(draw, *shape, kind=kind) for name in names[:-1]}
        constants: dict[str, Any] = {f"{name}_zero_point": np.asarray(5, kind) for name in names}
        constants |= {f"{name}_scale": f32(draw(st.sampled_from([0.01, 0.03, 0.5]))) for name in names}
        return Given(inputs, constants, {"alpha": draw(st.sampled_from([0.01, 0.3]))})

    return given_for


def moved_codes(draw: Draw) -> Given:
    """An image of codes, and what each of the operators that move needs."""
    kind = draw(st.sampled_from(["int8", "uint8"]))
    n, h, w = draw(SIDE), 2 * draw(SIDE), 2 * draw(SIDE)
    constants: dict[str, Any] = {"x_zero_point": np.asarray(3, kind), "x_scale": f32(0.1)}
    constants |= {name: np.array([value]) for name, value in (("starts", 1), ("ends", 2**62), ("steps", 1))}
    constants |= {"axes": np.array([0]), "indices": np.array([0, -1]), "shape": np.array([1, -1, 4, h, w])}
    attributes: dict[str, Any] = {"blocksize": 2, "axis": 1, "perm": [0, 3, 1, 2]}
    return Given({"x": codes(draw, n, 4, h, w, kind=kind)}, constants, attributes)


def moved(operator: str) -> Callable[[Draw], Given]:
    def given_for(draw: Draw) -> Given:
        found = moved_codes(draw)
        whole = found.inputs["x"]
        x = {"Squeeze": whole[:1], "Expand": whole[:, None]}.get(operator, whole)
        constants = dict(found.constants)
        if operator == "Expand":
            constants["shape"] = np.array([len(whole), 2, *whole.shape[1:]])
        if operator == "Slice":
            constants["axes"] = np.array([draw(st.sampled_from([1, -1]))])
        return Given({"x": x}, constants, found.attributes, opset=21)

    return given_for


def quantised_pieces(draw: Draw) -> Given:
    """Pieces of one shape but along an axis, in steps of their own."""
    found = quantised_pointwise("A", "B", "C", "D", "Y")(draw)
    axis = draw(st.integers(0, found.inputs["A"].ndim - 1))
    inputs = {name: np.repeat(array, draw(SIDE), axis) for name, array in found.inputs.items()}
    axis -= draw(st.sampled_from([0, found.inputs["A"].ndim]))
    return Given(inputs, found.constants, {"axis": axis})


def quantised_image(draw: Draw) -> Given:
    kind = draw(st.sampled_from(["int8", "uint8"]))
    constants = {"x_scale": f32(0.02), "y_scale": f32(0.01)}
    constants |= {f"{name}_zero_point": np.asarray(5, kind) for name in "xy"}
    return Given({"X": codes(draw, *(draw(SIDE) for _ in range(4)), kind=kind)}, constants)


def quantised_gemm(draw: Draw) -> Given:
    m, k, n = draw(SIDE), draw(SIDE), draw(SIDE)
    swap_a, swap_b, columns = (draw(st.integers(0, 1)) for _ in range(3))
    a = codes(draw, *((k, m) if swap_a else (m, k)))
    b = codes(draw, *((n, k) if swap_b else (k, n)), kind="int8")
    scales = np.linspace(0.01, 0.02, n).astype(np.float32) if columns else f32(0.01)
    constants: dict[str, Any] = {"B": b, "b_scale": scales, "b_zero_point": np.zeros(scales.shape, np.int8)}
    constants |= {"a_scale": f32(0.02), "y_scale": f32(0.05)}
    constants |= {f"{name}_zero_point": np.asarray(4, array.dtype) for name, array in (("a", a), ("y", a))}
    constants |= {"C": codes(draw, n, kind="int8").astype(np.int32), "C_scale": scales * np.float32(0.02)}
    constants["C_zero_point"] = np.zeros(scales.shape, np.int32)
    axes = {"b_axis": 0 if swap_b else 1, "C_axis": 0} if columns else {}
    return Given({"A": a}, constants, {"transA": swap_a, "transB": swap_b, **axes})


def integer_product(draw: Draw) -> Given:
    m, k, n = draw(SIDE), draw(SIDE), draw(SIDE)
    columns = draw(st.booleans())
    a, b = codes(draw, m, k, kind="uint8"), codes(draw, k, n)
    zero = np.zeros(n, b.dtype) if columns else np.asarray(0, b.dtype)
    constants = {"B": b, "b_zero_point": zero, "bias": floats(draw, n)}
    constants["b_scale"] = np.linspace(0.1, 0.2, n).astype(np.float32) if columns else f32(0.1)
    inputs = {"A": a, "a_zero_point": np.asarray(7, np.uint8), "a_scale": f32(0.02)}
    return Given(inputs, constants)


def dynamic_product(draw: Draw) -> Given:
    found = integer_product(draw)
    rows, columns = found.inputs["A"].shape
    return Given({"A": floats(draw, rows, columns)}, found.constants)


def narrow_weights(draw: Draw) -> Given:
    block, blocks, n, rows = 16, draw(st.integers(1, 3)), draw(SIDE), draw(SIDE)
    kind = draw(st.sampled_from([ml_dtypes.int4, ml_dtypes.uint4, np.int8, np.uint8]))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    low, high = {"int4": (-8, 8), "uint4": (0, 16), "int8": (-128, 128), "uint8": (0, 256)}[
        np.dtype(kind).name
    ]
    whole, few = rng.integers(low, high, (block * blocks, n)), rng.integers(low, high, (blocks, n))
    steps = (rng.uniform(0.1, 1, (blocks, n)) / high).astype(np.float32)  # weights of about 1, as they are
    constants = {"codes": whole.astype(kind), "zeros": few.astype(kind), "steps": steps}
    attributes: dict[str, Any] = {"axis": 0, "block_size": block}
    is_transposed = draw(st.booleans())
    if is_transposed:
        constants = {name: np.ascontiguousarray(array.T) for name, array in constants.items()}
        attributes |= {"axis": 1, "perm": [1, 0]}
    return Given({"A": floats(draw, rows, block * blocks)}, constants, attributes, pattern=int(is_transposed))


CASES: list[tuple[Fusion, Callable[[Draw], Given]]] = [
    (quantized.qlinear_matmul, quantised_product),
    (quantized.qlinear_conv, quantised_convolution),
    (qlinear.qlinear_add, quantised_pointwise("A", "B", "C")),
    (qlinear.qlinear_mul, quantised_pointwise("A", "B", "C")),
    (qlinear.qlinear_sigmoid, quantised_pointwise("X", "Y")),
    (qlinear.qlinear_leaky_relu, quantised_pointwise("X", "Y")),
    (qlinear.qlinear_concat, quantised_pieces),
    (qlinear.qlinear_global_average_pool, quantised_image),
    (qlinear.q_gemm, quantised_gemm),
    (quantized.matmul_integer_to_float, integer_product),
    (quantized.dynamic_quantize_matmul, dynamic_product),
    (quantized.matmul_n_bits, narrow_weights),
    *((rule, moved(rule.target[1])) for rule in qmoved.RULES),
]
