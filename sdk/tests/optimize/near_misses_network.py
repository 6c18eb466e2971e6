"""Near misses of normalisation, activations, convolutions and the layout: the rule, why it refuses, and the graph; then those that are none of its business."""

from __future__ import annotations

import pytest

from epkit.optimize.layouts import LAYOUTS

HALVES = "half = Constant <value_float = 0.5> ()  one = Constant <value_float = 1.0> ()"
GELU = "d = Div(x, r)  e = Erf(d)  s = Add(e, one)  h = Mul(x, half)"

REFUSED = (
    pytest.param(
        "gelu",
        "e is read by",
        f"g (float[2, 3] x) => (float[2, 3] y, float[2, 3] z) {{ {HALVES} r = Constant <value_float = 1.4142135> () {GELU} y = Mul(h, s)  z = Neg(e) }}",
        id="a value inside has another reader",
    ),
    pytest.param(
        "gelu",
        "e is a result",
        f"g (float[2, 3] x) => (float[2, 3] y, float[2, 3] e) {{ {HALVES} r = Constant <value_float = 1.4142135> () {GELU} y = Mul(h, s) }}",
        id="a value inside is a result",
    ),
    pytest.param(
        "layer_normalization",
        "over the axes [1]",
        """g (float[2, 3, 4] x) => (float[2, 3, 4] y) <float[4] scale = {1, 2, 3, 4}, float e = {0.1}, int64[1] a = {1}> {
               m = ReduceMean(x, a)  d = Sub(x, m)  q = Mul(d, d)  v = ReduceMean(q, a)  w = Add(v, e)  r = Sqrt(w)
               n = Div(d, r)  y = Mul(n, scale) }""",
        id="the mean is over another axis",
    ),
    pytest.param(
        "layer_normalization",
        "is no vector along the last axis",
        """g (float[4, 4] x, float[4, 1] scale) => (float[4, 4] y) <float e = {0.1}, int64[1] a = {-1}> {
               m = ReduceMean(x, a)  d = Sub(x, m)  q = Mul(d, d)  v = ReduceMean(q, a)  w = Add(v, e)  r = Sqrt(w)
               n = Div(d, r)  y = Mul(n, scale) }""",
        id="the scale is a column",
    ),
    pytest.param(
        "skip_layer_normalization",
        "do not have one shape for certain",
        """g (float[N, M, 4] x, float[K, M, 4] z) => (float[P, M, 4] y) <float[4] s = {1, 2, 3, 4}> {
               t = Add(x, z)  y = LayerNormalization <axis = -1> (t, s) }""",
        id="the skip may broadcast",
    ),
    pytest.param(
        "skip_layer_normalization",
        "not at the last",
        """g (float[2, 3, 4] x, float[2, 3, 4] z) => (float[2, 3, 4] y) <float[4] s = {1, 2, 3, 4}> {
               t = Add(x, z)  y = LayerNormalization <axis = 1> (t, s) }""",
        id="two axes are normalised",
    ),
    pytest.param(
        "conv_add_activation",
        "may not have the shape",
        """g (float[1, 1, 4, 4] x, float[1, 1, 1, 1] z) => (float[1, 1, 4, 4] y) <float[1, 1, 1, 1] w = {2}> {
               c = Conv(x, w)  t = Add(c, z)  y = Relu(t) }""",
        id="what is added broadcasts",
    ),
    pytest.param(
        "scaled_matmul",
        "not in its last two axes",
        """g (float[3, 2, 3] a, float[3, 2, 3] b) => (float[2, 3, 3] y) {
               t = Transpose <perm = [1, 0, 2]> (a)  u = Transpose <perm = [1, 2, 0]> (b)  y = MatMul(t, u) }""",
        id="other axes are exchanged",
    ),
    pytest.param(
        "swiglu",
        "may have different shapes",
        """g (float[N, 4] x, float[M, 4] u) => (float[P, 4] y) { s = Sigmoid(x)  g2 = Mul(x, s)  y = Mul(u, g2) }""",
        id="the gate may broadcast",
    ),
    pytest.param(
        "bias_softmax",
        "on one side only",
        """g (float[2, 3, 4, 5] x, float[2, 1, 4, 5] b) => (float[2, 3, 4, 5] y) {
               s = Add(x, b)  y = Softmax <axis = -1> (s) }""",
        id="the bias lacks an axis between two that it has",
    ),
    *(
        pytest.param(
            f"{layout.name}_{operator}",
            "the number of axes",
            f"g (float[2, 3, 4, 4] i, float[3, 3, 2, 2] w, int64[K] s) => (float[P] y) {{\n"
            f"x = Reshape(i, s)  {made} }}",
            id=f"{operator} of an unknown number of axes, {layout.name}",
        )
        for layout in LAYOUTS
        for operator, made in (
            ("Conv", "y = Conv(x, w)"),
            ("ConvTranspose", "y = ConvTranspose(x, w)"),
            ("MaxPool", "y = MaxPool <kernel_shape = [2, 2]>(x)"),
            ("AveragePool", "y = AveragePool <kernel_shape = [2, 2]>(x)"),
            ("GlobalAveragePool", "y = GlobalAveragePool(x)"),
            ("GlobalMaxPool", "y = GlobalMaxPool(x)"),
            ("FusedConv", "c = Conv(x, w)  y = Relu(c)"),
        )
    ),
    pytest.param(
        "sink_below_split",
        "are not known",
        """g (float[1, 2, H, 4] x) => (float[1, 3, A, 4] y, float[1, 3, B, 4] z) <float[3, 2, 1, 1] w = {1, 2, 3, 4, 5, 6}> {
               c = Conv(x, w)  y, z = Split <axis = 2, num_outputs = 2> (c) }""",
        id="pieces of an open dimension",
    ),
    pytest.param(
        "sink_below_binary",
        "has its channels in front",
        """g (float[1, 2, 4, 4] x, float[1, 3, 4, 4] z) => (float[1, 3, 4, 4] y) <float[3, 2, 1, 1] w = {1, 2, 3, 4, 5, 6}> {
               c = Conv(x, w)  y = Add(c, z) }""",
        id="a sum with something that is not turned",
    ),
)

LEFT_ALONE = (
    pytest.param(
        "gelu_of_microsoft",
        """g (float[3] x) => (float[3] y) { y = Gelu <approximate = "tanh"> (x) }""",
        id="the other formula",
    ),
    pytest.param(
        "quick_gelu",
        """g (float[3] x) => (float[3] y) { s = Sigmoid(x)  m = Neg(x)  y = Mul(m, s) }""",
        id="-x times the sigmoid of x",
    ),
    pytest.param(
        "rms_normalization",
        """g (float[2, 3, 4] x) => (float[2, 3, 4] y) <float[3] s = {1, 2, 3}, float e = {0.1}, int64[1] a = {1}> {
           q = Mul(x, x)  v = ReduceMean(q, a)  w = Add(v, e)  r = Sqrt(w)  n = Div(x, r)
           t = Transpose <perm = [0, 2, 1]> (n)  y = Mul(t, s) }""",
        id="the mean is over another axis",
    ),
    pytest.param(
        "sink_below_unary",
        """g (float[1, 4, 4, 2] x) => (float[1, 2, 4, 4] y) { t = Transpose <perm = [0, 3, 2, 1]> (x)  y = Relu(t) }""",
        id="a transposition that is none of the layout",
    ),
    pytest.param(
        "sink_below_concat",
        """g (float[1, 2, 4, 4] x) => (float[1, 4, 4, 4] y) <float[2, 2, 1, 1] w = {1, 2, 3, 4}> {
           c = Conv(x, w)  y = Concat <axis = 1> (c, x) }""",
        id="one of the two is not turned",
    ),
    pytest.param(
        "channels_last_FusedConv",
        """g (float[1, 2, 4, 4] x) => (float[1, 2, 4, 4] y) <float[2, 2, 1, 1] w = {1, 2, 3, 4}> {
           c = Conv(x, w)  y = Tan(c) }""",
        id="a function that no convolution has",
    ),
)
