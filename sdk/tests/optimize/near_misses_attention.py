"""Near misses of attention and rotary embedding: the rule, why it refuses, and the graph; then those that are none of its business."""

from __future__ import annotations

import pytest

ROTATED = """g (float[N, 2, 3, 4] x, float[M, 3, 2] c, float[M, 3, 2] s) => (float[P, 2, 3, 4] y)
   <int64[1] one = {1}, int64[2] half = {2, 2}> {
   c2 = Concat <axis = -1> (c, c)  s2 = Concat <axis = -1> (s, s)  cc = Unsqueeze(c2, one)  ss = Unsqueeze(s2, one)  l, h = Split <axis = -1> (x, half)
   n = Neg(h)  t = Concat <axis = -1> (n, l)  a = Mul(x, cc)  b = Mul(t, ss)  y = Add(a, b) }"""

REFUSED = (
    pytest.param(
        "attention",
        "may have different batches",
        """g (float[1, 2, 3, 4] q, float[2, 2, 3, 4] k, float[2, 2, 3, 4] v) => (float[2, 2, 3, 4] y) {
               t = Transpose <perm = [0, 1, 3, 2]> (k)  p = MatMul(q, t)  w = Softmax <axis = -1> (p)  y = MatMul(w, v) }""",
        id="one sample of queries for several of keys",
    ),
    pytest.param(
        "attention",
        "evenly",
        """g (float[2, 1, 3, 4] q, float[2, 2, 3, 4] k, float[2, 2, 3, 4] v) => (float[2, 2, 3, 4] y) {
               t = Transpose <perm = [0, 1, 3, 2]> (k)  p = MatMul(q, t)  w = Softmax <axis = -1> (p)  y = MatMul(w, v) }""",
        id="one head of queries for several of keys",
    ),
    pytest.param(
        "attention",
        "before",
        """g (float[2, 2, 3, 4] q, float[2, 2, 3, 4] k, float[2, 2, 3, 4] z) => (float[2, 2, 3, 4] y) {
               t = Transpose <perm = [0, 1, 3, 2]> (k)  p = MatMul(q, t)  w = Softmax <axis = -1> (p)
               m = ReduceMax(w)  v = Mul(z, m)  y = MatMul(w, v) }""",
        id="the values are made from the weights",
    ),
    pytest.param(
        "choose_by_product",
        "not known to be one number",
        """g (float[2, 2, 3, 4] q, float[2, 2, 3, 4] k, float[2, 2, 3, 4] v, bool[2, 1, 1, 3] m, float[3, 3] r) => (float[2, 2, 3, 4] y) {
               t = Transpose <perm = [0, 1, 3, 2]> (k)  p = MatMul(q, t)  n = Not(m)  c = Cast <to = 1> (m)  d = Cast <to = 1> (n)
               a = Mul(c, p)  b = Mul(d, r)  s = Add(a, b)  w = Softmax <axis = -1> (s)  y = MatMul(w, v) }""",
        id="other numbers from place to place",
    ),
    pytest.param(
        "choose_by_product",
        "not known to be one number",
        """g (float[2, 2, 3, 4] q, float[2, 2, 3, 4] k, float[2, 2, 3, 4] v, bool[2, 1, 1, 3] m, bool[2, 1, 1, 3] l) => (float[2, 2, 3, 4] y) <float f = {-1e38}> {
               t = Transpose <perm = [0, 1, 3, 2]> (k)  p = MatMul(q, t)  n = Not(l)  c = Cast <to = 1> (m)  d = Cast <to = 1> (n)
               a = Mul(c, p)  b = Mul(d, f)  s = Add(a, b)  w = Softmax <axis = -1> (s)  y = MatMul(w, v) }""",
        id="two masks",
    ),
    pytest.param(
        "attention_where",
        "might be masked whole",
        """g (float[1, 2, 3, 4] q, float[1, 2, 3, 4] v, bool[1, 1, 3, 3] m) => (float[1, 2, 3, 4] y) <float f = {-1e9}> {
               t = Transpose <perm = [0, 1, 3, 2]> (v)  p = MatMul(q, t)  w = Where(m, p, f)  x = Softmax(w)  y = MatMul(x, v) }""",
        id="beside which scores are not lost",
    ),
    pytest.param(
        "rows_as_batches",
        "may have other rows",
        """g (float[4, 3, 2] q, float[4, 3, 2] k, float[M, 3, 2] v) => (float[4, 3, 2] y) {
               t = Transpose <perm = [0, 2, 1]> (k)  p = MatMul(q, t)  w = Softmax <axis = -1> (p)  y = MatMul(w, v) }""",
        id="values of which the rows may be one",
    ),
    pytest.param(
        "attention",
        "may widen the scores",
        """g (float[B, 2, S, 4] q, float[B, 2, S, 4] k, float[B, 2, S, 4] v, float[M, 1, S, S] m) => (float[P, 2, S, 4] y) {
               t = Transpose <perm = [0, 1, 3, 2]> (k)  p = MatMul(q, t)  b = Add(p, m)  w = Softmax <axis = -1> (b)
               y = MatMul(w, v) }""",
        id="the mask has a batch of its own",
    ),
    pytest.param(
        "attention",
        "is repeated along the axes [1]",
        """g (float[1, 4, 3, 2] q, float[1, 2, 3, 2] k, float[1, 4, 3, 2] v) => (float[1, 4, 3, 2] y)
               <int64[1] one = {1}, int64[5] e = {1, 2, 2, 3, 2}, int64[4] r = {1, 4, 3, 2}> {
               u = Unsqueeze(k, one)  x = Expand(u, e)  h = Reshape <allowzero = 1> (x, r)
               t = Transpose <perm = [0, 1, 3, 2]> (h)  p = MatMul(q, t)  w = Softmax <axis = -1> (p)  y = MatMul(w, v) }""",
        id="the heads of keys follow each other as a whole, twice",
    ),
    pytest.param(
        "attention",
        "is not only copies of",
        """g (float[1, 4, 3, 2] q, float[1, 2, S, 2] k, float[1, 4, T, 2] v) => (float[1, 4, 3, 2] y)
               <int64[1] two = {2}, int64[5] e = {1, 1, 2, 3, 1}, int64[4] r = {1, 4, 3, 2}> {
               u = Unsqueeze(k, two)  x = Expand(u, e)  h = Reshape(x, r)
               t = Transpose <perm = [0, 1, 3, 2]> (h)  p = MatMul(q, t)  w = Softmax <axis = -1> (p)  y = MatMul(w, v) }""",
        id="the keys may be repeated along the length too",
    ),
    pytest.param(
        "attention_with_past",
        "is joined along the axis 3",
        """g (float[1, 2, 3, 4] q, float[1, 2, 3, 2] k, float[1, 2, 3, 2] a, float[1, 2, 3, 2] v, float[1, 2, 3, 2] c)
               => (float[1, 2, 3, 4] y) {
               j = Concat <axis = 3> (a, k)  l = Concat <axis = 3> (c, v)
               t = Transpose <perm = [0, 1, 3, 2]> (j)  p = MatMul(q, t)  w = Softmax <axis = -1> (p)  y = MatMul(w, l) }""",
        id="the past widens the heads",
    ),
    pytest.param(
        "join_heads",
        "does not join the heads",
        """g (float[2, 2, 3, 4] q, float[2, 2, 5, 4] k, float[2, 2, 5, 4] v) => (float[4, 12] y) <int64[2] s = {4, 12}> {
               t = Transpose <perm = [0, 1, 3, 2]> (k)  p = MatMul(q, t)  w = Softmax <axis = -1> (p)  a = MatMul(w, v)
               b = Transpose <perm = [0, 2, 1, 3]> (a)  y = Reshape(b, s) }""",
        id="rows of another width",
    ),
    pytest.param(
        "attention_of_shared_heads",
        "different heads",
        """g (float[1, 4, 3, 2] q, float[1, 2, 3, 2] k, float[1, 1, 3, 2] v) => (float[1, 4, 3, 2] y)
               <int64[1] ax = {2}, int64[5] e = {1, 2, 2, 3, 2}, int64[5] f = {1, 1, 4, 3, 2}, int64[4] r = {1, 4, 3, 2}> {
               u = Unsqueeze(k, ax)  x = Expand(u, e)  h = Reshape(x, r)
               s = Unsqueeze(v, ax)  z = Expand(s, f)  i = Reshape(z, r)
               y = Attention <is_causal = 1> (q, h, i) }""",
        id="two heads of keys, and one of values",
    ),
    pytest.param(
        "multi_head_attention",
        "heads share",
        """g (float[2, 3, 8] q, float[2, 3, 4] k, float[2, 3, 4] v) => (float[2, 3, 8] y) {
               y = Attention <q_num_heads = 4, kv_num_heads = 2> (q, k, v) }""",
        id="several heads have the same keys",
    ),
    pytest.param(
        "rotary_embedding_by_sample",
        "differ from sample to sample",
        ROTATED,
        id="angles for each sample",
    ),
)

LEFT_ALONE = (
    pytest.param(
        "turn_scores",
        """g (float[2, 2, 3, 4] q, float[2, 2, 3, 4] k, float[2, 2, 3, 4] v) => (float[2, 2, 3, 4] y) {
           t = Transpose <perm = [0, 1, 3, 2]> (q)  p = MatMul(k, t)  w = Softmax <axis = 1> (p)
           u = Transpose <perm = [0, 1, 3, 2]> (w)  y = MatMul(u, v) }""",
        id="a softmax over the heads",
    ),
    pytest.param(
        "turn_scores",
        """g (float[2, 2, 3, 4] q, float[2, 2, 3, 4] k, float[2, 2, 3, 4] v) => (float[2, 2, 3, 4] y, float[2, 2, 3, 3] z) {
           t = Transpose <perm = [0, 1, 3, 2]> (q)  p = MatMul(k, t)  w = Softmax <axis = 2> (p)
           u = Transpose <perm = [0, 1, 3, 2]> (w)  y = MatMul(u, v)  z = Neg(w) }""",
        id="weights that are read in columns, too",
    ),
    pytest.param(
        "rows_as_batches",
        """g (float[4, 3, 2] q, float[4, 3, 2] k, float[4, 3, 2] v) => (float[4, 3, 2] y) {
           t = Transpose <perm = [0, 2, 1]> (k)  p = MatMul(q, t)  w = Sigmoid(p)  y = MatMul(w, v) }""",
        id="rows that no softmax weighs",
    ),
    pytest.param(
        "halve_angles",
        """g (float[3, 2] a, float[3, 2] b, float[2, 2, 3, 4] x) => (float[2, 2, 3, 4] y) {
           j = Concat <axis = -1> (a, b)  c = Cos(j)  y = Mul(x, c) }""",
        id="two different halves",
    ),
    pytest.param(
        "halve_angles",
        """g (float[3, 2] a, float[2, 2, 6, 2] x) => (float[2, 2, 6, 2] y) {
           j = Concat <axis = 0> (a, a)  c = Cos(j)  y = Mul(x, c) }""",
        id="equal halves, of the rows",
    ),
    pytest.param(
        "spell_out_angles",
        """g (float[2, 2, 1, 4] x) => (float[2, 2, 1, 4] y) <float[1, 4] c = {1, 2, 1, 2}, float[1, 4] s = {3, 4, 3, 5}, int64[2] half = {2, 2}> {
           l, h = Split <axis = 3> (x, half)  t = Concat <axis = 3> (h, l)  a = Mul(x, c)  b = Mul(t, s)  y = Add(a, b) }""",
        id="the halves are exchanged, not turned",
    ),
    pytest.param(
        "lift_angles",
        """g (float[3, 2] a, float[2, 2, 3, 4] x) => (float[2, 2, 3, 4] y, float[3, 4] z) {
           c = Cos(a)  j = Concat <axis = -1> (c, c)  y = Mul(x, j)  z = Neg(j) }""",
        id="somebody else reads the angles",
    ),
    pytest.param(
        "expose_keys",
        """g (float[2, 3, 2, 4] k, float[2, 2, 3, 4] q) => (float[2, 2, 3, 3] y) {
           t = Transpose <perm = [0, 2, 3, 1]> (k)  y = MatMul(q, t) }""",
        id="no softmax follows",
    ),
)
