"""Near misses of the rules of the basic level: the rule, why it refuses, and the graph; then those that are none of its business."""

from __future__ import annotations

import pytest

REFUSED = (
    pytest.param(
        "transpose_of_product",
        "factors of other ranks",
        """g (float[2, 3, 4] x, float[5, 4] z) => (float[3, 5, 2] y) {
               t = Transpose <perm = [1, 0, 2]> (x)  u = Transpose <perm = [1, 0]> (z)  p = MatMul(t, u)
               y = Transpose <perm = [0, 2, 1]> (p) }""",
        id="a matrix for all samples",
    ),
    pytest.param(
        "drop_allowzero",
        "zeros that are meant",
        """g (float[N, 4] x) => (float[0, 4] y) <int64[2] s = {0, 4}> { y = Reshape <allowzero = 1> (x, s) }""",
        id="a dimension of zero",
    ),
    pytest.param(
        "fold_affine",
        "varies along other axes",
        """g (float[1, 1, 2, 2] x) => (float[1, 1, 2, 2] y) <float[1, 1, 1, 1] w = {2}, float[2, 1] s = {1, 2}> {
               c = Conv(x, w)  y = Mul(c, s) }""",
        id="the factor varies along the rows",
    ),
    pytest.param(
        "fold_affine",
        "not finite in float16",
        """g (float16[1, 1, 2, 2] x) => (float16[1, 1, 2, 2] y) <float16[1, 1, 1, 1] w = {31743}, float16 s = {17408}> {
               c = Conv(x, w)  y = Mul(c, s) }""",
        id="the new weights overflow (65504 times 4, as bits)",
    ),
    pytest.param(
        "remove_neutral",
        "may widen",
        "g (float[N] x) => (float[3, N] y) <float[3, 1] one = {1, 1, 1}> { y = Mul(x, one) }",
        id="the ones broadcast",
    ),
    pytest.param(
        "merge_casts",
        "does not hold every value",
        "g (float[3] x) => (int64[3] y) { i = Cast <to = 6> (x)  y = Cast <to = 7> (i) }",
        id="the first cast rounds",
    ),
    pytest.param(
        "cancel_unsqueeze",
        "is over the axes",
        """g (float[1, 3] x) => (float[3, 1] y) <int64[1] two = {2}, int64[1] zero = {0}> {
               u = Unsqueeze(x, two)  y = Squeeze(u, zero) }""",
        id="other axes are squeezed",
    ),
    pytest.param(
        "slices_to_split",
        "not all of 0..4",
        """g (float[2, 4] x) => (float[2, 2] y, float[2, 1] z) <int64[1] a = {0}, int64[1] b = {2}, int64[1] c = {3}, int64[1] n = {4}, int64[1] ax = {1}> {
               y = Slice(x, a, b, ax)  z = Slice(x, c, n, ax) }""",
        id="the slices leave a gap",
    ),
    pytest.param(
        "requantize",
        "scale of",
        """g (int8[3] x) => (int8[3] y) <float s = {0.5}, float t = {0.25}, int8 z = {0}> {
               d = DequantizeLinear(x, s, z)  y = QuantizeLinear(d, t, z) }""",
        id="another scale",
    ),
    pytest.param(
        "fix_reshape_target",
        "is not that of",
        """g (float[N, 4] x, float[M, 2] z) => (float[M, K] y) <int64[1] last = {-1}> {
               s = Shape <start = 0, end = 1> (z)  t = Concat <axis = 0> (s, last)  y = Reshape(x, t) }""",
        id="a dimension of another value",
    ),
    pytest.param(
        "transpose_in_batches",
        "is not certain to be",
        """g (float[N, 2, 3, 4] x) => (float[P, 2, 4, 3] y) <int64[3] a = {-1, 3, 4}, int64[4] b = {2, -1, 4, 3}> {
               r = Reshape(x, a)  t = Transpose <perm = [0, 2, 1]> (r)  y = Reshape(t, b) }""",
        id="the batches are split otherwise than before",
    ),
    pytest.param(
        "matmul_in_batches",
        "is not certain to have the batches",
        """g (float[2, 6, 3, 4] x, float[2, 6, 4, 5] z) => (float[3, 4, 3, 5] y)
               <int64[3] a = {-1, 3, 4}, int64[3] b = {-1, 4, 5}, int64[4] c = {3, 4, 3, 5}> {
               r = Reshape(x, a)  s = Reshape(z, b)  p = MatMul(r, s)  y = Reshape(p, c) }""",
        id="the product's batches are split otherwise than the factors'",
    ),
    pytest.param(
        "merge_reshapes",
        "copies a dimension",
        """g (float[2, 6] x) => (float[3, 4] y) <int64[2] a = {3, 4}, int64[2] b = {0, -1}> {
               r = Reshape(x, a)  y = Reshape(r, b) }""",
        id="the second copies what the first has made",
    ),
    pytest.param(
        "reshape_whole",
        "more than one dimension that is not known",
        """g (float[N, M] x, int64[3] s) => (float[P, Q, K, 1] y) <int64[1] last = {3}> {
               r = Reshape(x, s)  y = Unsqueeze(r, last) }""",
        id="the shape is given from outside",
    ),
    pytest.param(
        "tile_as_expand",
        "not along axes of one element only",
        """g (float[2, 1, 3] x) => (float[4, 2, 3] y) <int64[3] r = {2, 2, 1}> { y = Tile(x, r) }""",
        id="two rows are repeated",
    ),
    pytest.param(
        "add_before_split",
        "by another form",
        """g (float[2, 3, 8] x) => (float[2, 3, 2, 4] y) <int64[4] s = {2, 3, 2, 4}, float[2, 1] c = {1, 2}> {
               r = Reshape(x, s)  y = Add(r, c) }""",
        id="one number for each head",
    ),
    pytest.param(
        "saturate",
        "stand for numbers that",
        """g (float[3] x) => (int8[3] y) <float s = {0.5}, int8 z = {0}> { r = Relu(x)  y = QuantizeLinear(r, s, z) }""",
        id="half of the codes are below zero",
    ),
    pytest.param(
        "saturate",
        "stand for numbers that",
        """g (float[3] x) => (uint8[3] y) <float s = {0.5}, uint8 z = {0}, float low = {0}, float high = {6}> {
               r = Clip(x, low, high)  y = QuantizeLinear(r, s, z) }""",
        id="codes above the upper bound",
    ),
    pytest.param(
        "dims_of_inputs",
        "no input has the dimensions",
        """g (float[N, 3] x, int64[2] n) => (int64[1] y) <int64[1] a = {0}, int64[1] b = {1}> {
               z = Expand(x, n)  s = Shape(z)  y = Slice(s, a, b) }""",
        id="the dimension of an expansion",
    ),
    pytest.param(
        "einsum_as_product",
        "sums over an axis of one operand",
        """g (float[2, 3, 4] x, float[4, 5] z) => (float[2, 5] y) { y = Einsum <equation = "abc,cd->ad"> (x, z) }""",
        id="an axis is summed that only one has",
    ),
    pytest.param(
        "einsum_as_product",
        "has a letter twice",
        """g (float[3, 3, 4] x, float[4, 5] z) => (float[3, 5] y) { y = Einsum <equation = "aac,cd->ad"> (x, z) }""",
        id="the diagonal of an operand",
    ),
    pytest.param(
        "matmul_add",
        "is no row of",
        """g (float[2, 3] x, float[3, 4] z, float[2, 1] c) => (float[2, 4] y) { p = MatMul(x, z)  y = Add(p, c) }""",
        id="a column is added",
    ),
)

LEFT_ALONE = (
    pytest.param(
        "merge_transposes",
        """g (float[2, 3] x) => (float[3, 2] y, float[3, 2] z) { t = Transpose <perm = [1, 0]> (x)  y = Neg(t)  z = Transpose <perm = [0, 1]> (y) }""",
        id="something is between the transpositions",
    ),
    pytest.param(
        "unsqueeze_last",
        """g (float[2, 3] x) => (float[3, 1, 2] y, float[2, 1, 3] z) <int64[1] one = {1}> {
           u = Unsqueeze(x, one)  y = Transpose <perm = [2, 1, 0]> (u)  z = Neg(u) }""",
        id="the wider value has another reader",
    ),
    pytest.param(
        "merge_unsqueezes",
        """g (float[2, 3] x) => (float[1, 2, 1, 3] y) <int64[1] zero = {0}, int64[1] two = {2}> {
           u = Unsqueeze(x, zero)  n = Neg(u)  y = Unsqueeze(n, two) }""",
        id="something is between them",
    ),
    pytest.param(
        "remove_reshape",
        """g (float[2, 3] x) => (float[3, 2] y) <int64[2] s = {3, 2}> { y = Reshape(x, s) }""",
        id="another shape of as many elements",
    ),
    pytest.param(
        "remove_idle",
        """g (float[4] x) => (float[4] y) <int64[1] a = {-1}, int64[1] b = {-99}, int64[1] ax = {0}, int64[1] st = {-1}> {
           y = Slice(x, a, b, ax, st) }""",
        id="all elements, backwards",
    ),
    pytest.param(
        "transposed_gemm",
        """g (float[2, 3] x, float[3, 4] w) => (float[2, 4] y) { t = Transpose <perm = [0, 1]> (x)  n = Neg(t)  y = Gemm(n, w) }""",
        id="what is multiplied is no transposition",
    ),
)
