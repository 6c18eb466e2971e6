"""What the names stand for in the formulas of normalisation, activations, convolutions and products."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import onnx
from drawn_arrays import SIDE, f32, floats, shape_of
from hypothesis import strategies as st
from rule_instances import Draw, Given

from epkit.optimize.fuse import Fusion
from epkit.optimize.fusions import (
    activation,
    convolution,
    embedding,
    gelu,
    normalization,
)


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


def normalised(draw: Draw) -> Given:
    shape = shape_of(draw, 2, 3)
    scale = {"scale": floats(draw, shape[-1])}
    return Given({"x": floats(draw, *shape)}, scale, {"axis": -1, "epsilon": 1e-3})


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


CASES: list[tuple[Fusion, Callable[[Draw], Given]]] = [
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
    (activation.swish, pointwise),
    (activation.swiglu, gated),
    (activation.quick_gelu, pointwise),
    (activation.bias_softmax, biased_scores),
    (convolution.conv_add_activation, convolved),
    (convolution.conv_activation, convolved),
    (convolution.gemm_activation, multiplied),
    (convolution.scaled_matmul, scaled),
]
