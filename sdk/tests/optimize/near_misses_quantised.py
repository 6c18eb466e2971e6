"""Near misses of quantised operators: the rule, why it refuses, and the graph; then those that are none of its business."""

from __future__ import annotations

import pytest

REFUSED = (
    pytest.param(
        "qlinear_add",
        "several types",
        """g (int8[3] a, uint8[3] b) => (int8[3] y) <float s = {0.5}, int8 z = {0}, uint8 u = {0}> {
               d = DequantizeLinear(a, s, z)  e = DequantizeLinear(b, s, u)  c = Add(d, e)  y = QuantizeLinear(c, s, z) }""",
        id="codes of several types",
    ),
    pytest.param(
        "qlinear_concat",
        "not one number",
        """g (int8[2, 3] a, int8[2, 3] b) => (int8[4, 3] y)
               <float s = {0.5}, int8 z = {0}, float[2] t = {0.5, 0.25}, int8[2] v = {0, 0}> {
               d = DequantizeLinear(a, s, z)  e = DequantizeLinear <axis = 0> (b, t, v)
               c = Concat <axis = 0> (d, e)  y = QuantizeLinear(c, s, z) }""",
        id="a scale for each row of a piece",
    ),
    pytest.param(
        "matmul_integer_to_float",
        "no matrix",
        """g (uint8[2, 3, 4] a, uint8[2, 4, 5] b, float s, float t, uint8 z) => (float[2, 3, 5] y) {
               p = MatMulInteger(a, b, z)  f = Cast <to = 1> (p)  c = Mul(s, t)  y = Mul(f, c) }""",
        id="the weights differ from sample to sample",
    ),
    pytest.param(
        "qlinear_matmul",
        "one for each column",
        """g (int8[3, 2] a) => (int8[3, 2] y)
               <float s = {0.5}, int8 z = {0}, int8[2, 2] b = {1, 2, 3, 4}, float[2] t = {0.5, 0.25}, int8[2] v = {0, 0}> {
               d = DequantizeLinear(a, s, z)  e = DequantizeLinear <axis = 0> (b, t, v)
               c = MatMul(d, e)  y = QuantizeLinear(c, s, z) }""",
        id="a scale for each row of the weights",
    ),
    pytest.param(
        "q_gemm",
        "not the product",
        """g (int8[3, 2] a) => (int8[3, 2] y)
               <float s = {0.5}, int8 z = {0}, int8[2, 2] b = {1, 2, 3, 4}, int32[2] i = {1, 2}, float t = {0.5}> {
               d = DequantizeLinear(a, s, z)  e = DequantizeLinear(b, s, z)  f = DequantizeLinear(i, t)
               c = Gemm(d, e, f)  y = QuantizeLinear(c, s, z) }""",
        id="a bias in other steps",
    ),
)

LEFT_ALONE = ()
