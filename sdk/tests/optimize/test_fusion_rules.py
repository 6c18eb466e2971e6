"""Every fusion, on random instances of its own formula: it fires, and the values stay what they were.

The judge of the values is onnxruntime, on the model as it was. After the rule, both what a provider that knows the
operator computes, and the parts inlined again, have to agree with it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from hypothesis import Phase, assume, given, settings
from hypothesis import strategies as st
from rule_instances import Draw, Given, Instance, instance

import epkit
from epkit.model.check import check
from epkit.model.read import read
from epkit.optimize.fuse import Fusion
from epkit.optimize.fusions import (
    RULES,
    activation,
    attention,
    convolution,
    embedding,
    gelu,
    normalization,
    qlinear,
    qmoved,
    quantized,
    rotary,
)
from epkit.optimize.lift_constants import lift_constants
from epkit.optimize.optimise import verify
from epkit.optimize.rule import Ledger, apply_rule, make_scopes
from epkit.partition.claims import inline_nodes
from epkit.testing.oracle import assert_same

SIDE = st.integers(1, 5)


def floats(draw: Draw, *shape: int) -> np.ndarray[Any, Any]:
    rng = np.random.default_rng(draw(st.integers(0, 999)))
    return rng.standard_normal(shape).astype(np.float32)


def f32(value: float) -> np.ndarray[Any, Any]:
    return np.asarray(value, np.float32)


def shape_of(draw: Draw, least: int = 1, most: int = 3) -> tuple[int, ...]:
    return tuple(draw(SIDE) for _ in range(draw(st.integers(least, most))))


# ---- what the names of each formula stand for ----


def pointwise(draw: Draw) -> Given:
    shape = shape_of(draw)
    alpha = draw(st.sampled_from([1.0, 1.702, 0.5]))
    return Given({"x": floats(draw, *shape)}, {"alpha": f32(alpha)}, {"alpha": alpha})


def with_bias(draw: Draw) -> Given:
    shape = shape_of(draw, 2)
    x, bias = floats(draw, *shape), floats(draw, shape[-1])
    return Given({"x": x, "bias": bias, "a": x, "b": bias})


def over_last_axis(draw: Draw, is_layer: bool = True) -> Given:
    """Without variance, tf.keras's formula (the second) subtracts x · scale / √ε from itself: with the epsilon of
    tf.keras and numbers of at most 2 those are below 128, and a rounding of them is below 8e-6."""
    of_keras = is_layer and draw(st.booleans())
    most = 2 if of_keras else np.inf
    shape = shape_of(draw, 2, 4)
    width = shape[-1]
    axes = draw(st.sampled_from([[-1], [len(shape) - 1]]))
    form = draw(st.sampled_from([(width,), (1, width), (1,) * (len(shape) - 1) + (width,)]))
    return Given(
        {"x": floats(draw, *shape).clip(-most, most)},
        {
            "scale": floats(draw, width).clip(-most, most).reshape(form if is_layer else width),
            "bias": floats(draw, width).reshape(form if is_layer else width),
            "epsilon": f32(1e-3 if of_keras else 1e-5),
            "axes": np.array(axes),
        },
        {"axes": axes, "narrow": onnx.TensorProto.FLOAT},
        opset=draw(st.sampled_from([14, 17, 18])),
        without=() if len(shape) == 3 else ("GlobalAveragePool",),
        pattern=int(of_keras) if is_layer else None,
    )


def after_skip(draw: Draw) -> Given:
    shape = shape_of(draw, 2, 3)
    x, skip = floats(draw, *shape), floats(draw, *shape)
    constants = {"gamma": floats(draw, shape[-1]), "beta": floats(draw, shape[-1])}
    return Given({"input": x, "skip": skip}, constants, {"axis": -1, "epsilon": 1e-6})


def embedded(draw: Draw) -> Given:
    batch, length, width = draw(SIDE), draw(SIDE), draw(SIDE)
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    ids = {f"{kind}_numbers": rng.integers(0, 7, (batch, length)) for kind in ("word", "segment")}
    constants = {f"{kind}_embedding": floats(draw, 7, width) for kind in ("word", "segment", "position")}
    constants |= {"gamma": floats(draw, width), "beta": floats(draw, width)}
    constants |= {
        "position_numbers": rng.integers(0, 7, (1, length)),
        "places": floats(draw, 1, length, width),
    }
    return Given(ids, constants, {"axis": -1, "epsilon": 1e-6})


def rotated(batch: int | None) -> Callable[[Draw], Given]:
    def given_for(draw: Draw) -> Given:
        rows, heads, length, half = (draw(SIDE) for _ in range(4))
        angles = {name: floats(draw, batch or rows, length, half) for name in ("cos", "sin")}
        inputs = {"x": floats(draw, rows, heads, length, 2 * half), **angles}
        sizes = {"sizes": np.array([half, half])}
        return Given(inputs, sizes, {"split": 3, "turned": -1, "joined": 2})

    return given_for


def attended(draw: Draw) -> Given:
    batch, shared, length, total, size = (draw(SIDE) for _ in range(5))
    copies = draw(st.integers(1, 3))
    heads = shared * copies
    mask = floats(
        draw, *draw(st.sampled_from([(batch, 1, 1, total), (1, 1, length, total), (length, total)]))
    )
    constants: dict[str, Any] = {
        name: f32(draw(st.sampled_from([1.0, 0.5, 3.0])))
        for name in ("factor", "divisor", "q_factor", "q_divisor", "k_factor")
    }
    inputs = {"query": floats(draw, batch, heads, length, size), "mask": mask}
    for name in ("key", "value"):
        inputs[name] = floats(draw, batch, shared, total, size)
        if copies > 1:
            constants[f"{name}_axes"] = np.array([2])
            constants[f"{name}_expanded"] = np.array([batch, shared, copies, total, size])
            constants[f"{name}_repeated"] = np.array([batch, heads, total, size])
    repeated = ("key", "value") if copies > 1 else ()
    attributes: dict[str, Any] = {"axis": draw(st.sampled_from([-1, 3]))}
    attributes |= {f"{name}_allowzero": draw(st.sampled_from([None, 1])) for name in repeated}
    return Given(inputs, constants, attributes, never_alone=repeated)


def attended_where(draw: Draw) -> Given:
    found = attended(draw)
    *_, length, _ = found.inputs["query"].shape
    total = found.inputs["key"].shape[2]
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    keep = rng.random((1, 1, length, total)) < 0.6
    keep[..., 0] = True
    fill = draw(st.sampled_from([-np.inf, float(np.finfo(np.float32).min)]))
    pattern = draw(st.integers(0, 1))
    mask = {"mask": keep} if pattern == 0 else {"drop": ~keep}
    inputs = {name: array for name, array in found.inputs.items() if name != "mask"}
    constants = {**found.constants, "fill": f32(fill)}
    (inputs if np.isinf(fill) else constants).update(mask)
    return Given(inputs, constants, found.attributes, never_alone=found.never_alone, pattern=pattern)


def with_past(draw: Draw) -> Given:
    batch, heads, length, past, size = (draw(SIDE) for _ in range(5))
    inputs = {name: floats(draw, batch, heads, length, size) for name in ("query", "key", "value")}
    inputs |= {name: floats(draw, batch, heads, past, size) for name in ("past_key", "past_value")}
    inputs["mask"] = floats(draw, 1, 1, length, past + length)
    axes = {f"{name}_joined": draw(st.sampled_from([2, -2])) for name in ("key", "value")}
    return Given(inputs, {}, {"scale": 0.5, **axes})


def shared_heads(draw: Draw) -> Given:
    batch, shared, copies, length, total, size = (draw(SIDE) for _ in range(6))
    inputs = {"query": floats(draw, batch, shared * copies, length, size)}
    inputs |= {name: floats(draw, batch, shared, total, size) for name in ("key", "value")}
    inputs["mask"] = floats(draw, *draw(st.sampled_from([(length, total), (batch, 1, length, total)])))
    constants: dict[str, Any] = {}
    for name in ("key", "value"):
        constants[f"{name}_axes"] = np.array([2])
        constants[f"{name}_expanded"] = np.array([1, 1, copies, 1, 1])
        constants[f"{name}_repeated"] = np.array([batch, shared * copies, total, size])
    attributes = {"scale": draw(st.sampled_from([0.5, None])), "is_causal": draw(st.integers(0, 1))}
    return Given(inputs, constants, attributes | {f"{name}_allowzero": None for name in ("key", "value")})


def normalised(draw: Draw) -> Given:
    shape = shape_of(draw, 2, 3)
    scale = {"scale": floats(draw, shape[-1])}
    return Given({"x": floats(draw, *shape)}, scale, {"axis": -1, "epsilon": 1e-3})


def joined(draw: Draw) -> Given:
    batch, shared, copies, length, past, size = (draw(SIDE) for _ in range(6))
    counts = {"query": shared * copies, "key": shared, "value": shared}
    inputs = {name: floats(draw, batch, length, count * size) for name, count in counts.items()}
    inputs |= {name: floats(draw, batch, shared, past, size) for name in ("past_key", "past_value")}
    constants = {f"{name}_shape": np.array([batch, length, count, size]) for name, count in counts.items()}
    constants["output_shape"] = np.array(draw(st.sampled_from([[0, 0, -1], [batch, length, -1]])))
    pattern = draw(st.integers(0, 1))
    inputs["mask"] = floats(draw, 1, 1, length, length if pattern else past + length)
    return Given(inputs, constants, {"scale": 0.5}, pattern=pattern)


def many_heads(draw: Draw) -> Given:
    batch, heads, length, total, size = (draw(SIDE) for _ in range(5))
    rows, samples = draw(st.sampled_from([1, length])), draw(st.sampled_from([1, batch]))
    inputs = {"query": floats(draw, batch, length, heads * size)}
    inputs["attention_bias"] = floats(draw, samples, 1, rows, total)
    inputs |= {name: floats(draw, batch, total, heads * size) for name in ("key", "value")}
    attributes = {"heads": heads, "kv": heads, "scale": draw(st.sampled_from([0.5, 1 / np.sqrt(size)]))}
    dims: dict[str, tuple[Any, ...]] = dict.fromkeys(("key", "value"), ("N", "T", heads * size))
    dims |= {"query": ("N", "S", heads * size), "attention_bias": (samples, 1, 1, "T")}
    return Given(inputs, {}, attributes, dims if rows == 1 and draw(st.booleans()) else {})


def gated(draw: Draw) -> Given:
    shape = shape_of(draw)
    return Given({"gate": floats(draw, *shape), "up": floats(draw, *shape)})


def biased_scores(draw: Draw) -> Given:
    shape = tuple(draw(SIDE) for _ in range(4))
    lacking = draw(st.sampled_from([(0,), (0, 1), (2,), (1, 2), (0, 1, 2), ()]))
    bias = tuple(1 if axis in lacking else size for axis, size in enumerate(shape))
    return Given(
        {"data": floats(draw, *shape), "bias": floats(draw, *bias)},
        {},
        {"axis": draw(st.sampled_from([-1, 3]))},
    )


CONVOLUTION = {
    "kernel_shape": [2, 2],
    "pads": [1, 0, 1, 0],
    "strides": [1, 2],
    "dilations": [1, 1],
    "group": 1,
}
ACTIVATION = {"alpha": 0.3, "beta": 0.4}


def convolved(draw: Draw) -> Given:
    n, c, m, h, w = draw(SIDE), draw(SIDE), draw(SIDE), draw(SIDE) + 2, draw(SIDE) + 2
    rows, columns = h + 1, (w - 2) // 2 + 1
    inputs = {"X": floats(draw, n, c, h, w), "Z": floats(draw, n, m, rows, columns)}
    constants = {"W": floats(draw, m, c, 2, 2), "B": floats(draw, m), "low": f32(-0.5), "high": f32(0.7)}
    return Given(inputs, constants, CONVOLUTION | ACTIVATION, opset=18)


def multiplied(draw: Draw) -> Given:
    m, k, n = draw(SIDE), draw(SIDE), draw(SIDE)
    swap_a, swap_b = draw(st.integers(0, 1)), draw(st.integers(0, 1))
    a, b = floats(draw, *((k, m) if swap_a else (m, k))), floats(draw, *((n, k) if swap_b else (k, n)))
    attributes = {"gemm_alpha": 0.5, "gemm_beta": 2.0, "transA": swap_a, "transB": swap_b}
    return Given({"A": a}, {"B": b, "C": floats(draw, n)}, attributes | ACTIVATION)


def scaled(draw: Draw) -> Given:
    size = draw(SIDE)
    batch = tuple(draw(SIDE) for _ in range(draw(st.integers(0, 2))))
    perm = [*range(len(batch)), len(batch) + 1, len(batch)]
    inputs = {"A": floats(draw, *batch, size, size), "B": floats(draw, *batch, size, size)}
    return Given(inputs, {"factor": f32(0.3), "divisor": f32(2.5)}, {"perm_a": perm, "perm_b": perm})


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


CASES: dict[str, tuple[Fusion, Callable[[Draw], Given]]] = {
    rule.name: (rule, make)
    for rule, make in [
        (gelu.gelu, pointwise),
        (gelu.gelu_tanh, pointwise),
        (gelu.bias_gelu, with_bias),
        (gelu.gelu_of_microsoft, pointwise),
        (gelu.fast_gelu, with_bias),
        (normalization.layer_normalization, over_last_axis),
        (normalization.simplified_layer_normalization, partial(over_last_axis, is_layer=False)),
        (normalization.skip_layer_normalization, after_skip),
        (normalization.skip_simplified_layer_normalization, after_skip),
        (normalization.rms_normalization, normalised),
        (embedding.embed_layer_normalization, embedded),
        (rotary.rotary_embedding, rotated(None)),
        (rotary.rotary_embedding_of_microsoft, rotated(1)),
        (rotary.rotary_embedding_by_sample, rotated(1)),
        (attention.attention, attended),
        (attention.attention_where, attended_where),
        (attention.attention_of_shared_heads, shared_heads),
        (attention.attention_with_past, with_past),
        (attention.attention_of_joined_heads, joined),
        (attention.multi_head_attention, many_heads),
        (activation.swish, pointwise),
        (activation.swiglu, gated),
        (activation.quick_gelu, pointwise),
        (activation.bias_softmax, biased_scores),
        (convolution.conv_add_activation, convolved),
        (convolution.conv_activation, convolved),
        (convolution.gemm_activation, multiplied),
        (convolution.scaled_matmul, scaled),
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
}


def test_every_fusion_has_a_case() -> None:
    assert {rule.name for rule in RULES if isinstance(rule, Fusion)} == set(CASES)


@pytest.mark.parametrize("name", CASES)
@settings(max_examples=6, deadline=None, database=None, phases=[Phase.generate])
@given(data=st.data())
def test_the_rule_fires_on_its_formula_and_keeps_the_values(name: str, data: st.DataObject) -> None:
    rule, make = CASES[name]
    case = instance(rule, data.draw, make(data.draw))
    wanted = judged(case)
    fused = apply(rule, case.model)
    step = 1 if wanted[0].dtype.kind in "iu" else 0
    agree(run(fused.clone(), case.feeds), wanted, step)
    parts(fused)
    agree(run(fused, case.feeds), wanted, step)


ALONE = {name for name, (rule, _) in CASES.items() if all(len(p.operators) == 1 for p in rule.patterns)}
"""They only give another name: nothing is inside."""


@pytest.mark.parametrize("name", sorted(set(CASES) - ALONE))
@settings(max_examples=3, deadline=None, database=None, phases=[Phase.generate])
@given(data=st.data())
def test_a_value_inside_that_somebody_reads_is_not_swallowed(name: str, data: st.DataObject) -> None:
    """A near miss of every formula: one of its inner values is a result, too. What makes it has to stay."""
    rule, make = CASES[name]
    case = instance(rule, data.draw, make(data.draw))
    results = {output.name for output in case.model.graph.output}
    inner = [value for node in case.model.graph.node for value in node.output if value not in results]
    assume(inner)
    kept = data.draw(st.sampled_from(inner))
    less = onnx.ModelProto()
    less.CopyFrom(case.model)
    case.model.graph.output.append(onnx.helper.make_empty_tensor_value_info(kept))
    maker, is_fused = made_by(rule, case.model, kept)
    if is_fused and not gives_out(rule, maker):  # then what makes it is a smaller instance of the formula
        last = next(at for at, node in enumerate(less.graph.node) if kept in node.output)
        del less.graph.node[last + 1 :], less.graph.output[:]
        less.graph.output.append(onnx.helper.make_empty_tensor_value_info(kept))
        assert made_by(rule, less, kept)[1]


def made_by(rule: Fusion, model: onnx.ModelProto, output: str) -> tuple[ir.Node, bool]:
    """What makes an output once the rule was applied, and whether that is the rule's operator."""
    found = check(read(model), operators=lambda *_: True).model
    lift_constants(found)
    apply_rule(rule, make_scopes(found), Ledger())
    verify(found, rule.name)
    maker = next(value for value in found.graph.outputs if value.name == output).producer()
    assert maker is not None
    return maker, maker.op_identifier() in found.functions


def gives_out(rule: Fusion, maker: ir.Node) -> bool:
    """Whether a value that a rule's operator has as a further output is made by it."""
    return maker.op_identifier()[:2] == rule.target and len(maker.outputs) > 1


@pytest.mark.parametrize("pattern", [0, 1])
@settings(max_examples=10, deadline=None, database=None, phases=[Phase.generate])
@given(data=st.data())
def test_what_does_not_vary_is_normalised_to_exactly_the_bias(pattern: int, data: st.DataObject) -> None:
    """Whatever the formula that was fused would lose to rounding: (x - E x) is 0."""
    rule = normalization.layer_normalization
    rows = data.draw(SIDE)
    scale, bias = floats(data.draw, 1), floats(data.draw, 1)
    constants = {"scale": scale, "bias": bias, "epsilon": f32(1e-5), "axes": np.array([-1])}
    x = {"x": floats(data.draw, rows, 1)}
    case = instance(
        rule,
        data.draw,
        Given(x, constants, {"axes": [-1]}, opset=17, pattern=pattern, without=("GlobalAveragePool",)),
    )
    (found,) = run(apply(rule, case.model), case.feeds)
    has_bias = any(each.name == "bias" for each in case.model.graph.initializer)
    np.testing.assert_array_equal(found, np.broadcast_to(bias if has_bias else f32(0), (rows, 1)))


def judged(case: Instance) -> list[np.ndarray[Any, Any]]:
    """The values by the independent evaluator."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(case.model.SerializeToString(), options)
        return list(session.run(None, case.feeds))
    except Exception:  # it has no kernel for some types of some operators
        from onnx.reference import ReferenceEvaluator

        return list(ReferenceEvaluator(case.model).run(None, case.feeds))


def apply(rule: Fusion, model: onnx.ModelProto) -> ir.Model:
    """The model after the rule, which has to fire."""
    found = check(read(model), operators=lambda *_: True).model
    lift_constants(found)
    ledger = Ledger()
    count = apply_rule(rule, make_scopes(found), ledger)
    assert count == 1, [missed.reason for missed in ledger.missed]
    verify(found, rule.name)
    return found


def parts(model: ir.Model) -> None:
    """Inline the fused operators again."""
    while calls := [node for node in model.graph if node.op_identifier() in model.functions]:
        inline_nodes(model, calls)


def run(model: ir.Model, feeds: dict[str, Any]) -> list[Any]:
    with epkit.load(model, optimise="none") as session:
        return list(session.run(None, feeds).values())


def agree(actual: list[Any], wanted: list[Any], step: int) -> None:
    for one, other in zip(actual, wanted, strict=True):
        if step:
            assert one.dtype == other.dtype and one.shape == other.shape
            assert np.abs(one.astype(np.int32) - other.astype(np.int32)).max(initial=0) <= step
        else:
            assert_same(one, other, rtol=1e-5, atol=2e-5)


def test_the_page_quotes_a_rule_as_it_is() -> None:
    root = Path(__file__).resolve().parents[3]
    quoted = re.findall(r"```python\n(.*?)```", (root / "docs/optimiser.md").read_text("utf-8"), re.S)
    assert quoted and all(text in Path(str(gelu.__file__)).read_text("utf-8") for text in quoted)
