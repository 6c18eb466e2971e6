"""Results without memory of their own: parts of a Concat, views, results in the place of an input."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import epkit
from epkit.testing.models import model
from epkit.testing.oracle import assert_same, expected
from epkit_cpu.native import chosen_isa

pytestmark = pytest.mark.skipif(not chosen_isa(), reason="the package was built without a compiler")

BYTES = 4 * 64 * 64
SIZES = st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 3))


def array(*shape: int, seed: int = 0) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def twice(graph: onnx.ModelProto, feeds: dict[str, Any]) -> epkit.Session:
    """A session after two runs, whose results were right."""
    session = epkit.load(graph, ["cpu"], optimise="none")
    for _ in range(2):
        assert_same(session(**feeds), expected(graph, feeds))
    return session


def spared(session: epkit.Session) -> int:
    return session.memory.arenas[0].spared


# ---- Concat ----


def test_inputs_of_a_concat_are_written_into_it() -> None:
    graph = model(
        """g (float[64, 64] x, float[128, 64] y) => (float[192, 64] z)
        { a = Softmax(x)  b = Softmax(y)  c = Concat<axis = 0>(a, b)  z = Softmax(c) }"""
    )
    session = twice(graph, {"x": array(64, 64), "y": array(128, 64)})
    assert spared(session) == 3 * BYTES
    report = session.memory.arenas[0]
    assert report.lower_bound < 3 * BYTES + 4096  # without this it would be twice as much


def test_a_concat_of_rows_that_interleave_is_copied() -> None:
    graph = model(
        """g (float[64, 64] x, float[64, 64] y) => (float[64, 128] z)
        { a = Softmax(x)  b = Softmax(y)  c = Concat<axis = 1>(a, b)  z = Softmax(c) }"""
    )
    assert spared(twice(graph, {"x": array(64, 64), "y": array(64, 64, seed=1)})) == 0


def test_the_result_of_a_graph_may_be_such_a_concat() -> None:
    graph = model(
        """g (float[64, 64] x) => (float[128, 64] z)
        { a = Softmax(x)  n = Neg(x) b = Softmax(n)  z = Concat<axis = 0>(a, b) }"""
    )
    session = twice(graph, {"x": array(64, 64)})
    first = session(x=array(64, 64))["z"]
    kept = first.copy()
    session(x=array(64, 64, seed=5))
    np.testing.assert_array_equal(first, kept)  # the caller's, and nobody else's


def test_a_concat_within_a_concat() -> None:
    graph = model(
        """g (float[64, 64] x) => (float[192, 64] z)
        { a = Softmax(x)  n = Neg(x)  b = Softmax(n)  c = Concat<axis = 0>(a, b)  e = Exp(x)  d = Softmax(e)
          f = Concat<axis = 0>(c, d)  z = Softmax(f) }"""
    )
    session = twice(graph, {"x": array(64, 64)})
    assert spared(session) >= 5 * BYTES


def test_the_same_value_twice_and_two_concats_of_one_value() -> None:
    graph = model(
        """g (float[64, 64] x) => (float[128, 64] y, float[128, 64] z)
        { a = Softmax(x)  n = Neg(x)  b = Softmax(n)
          c = Concat<axis = 0>(a, a)  d = Concat<axis = 0>(b, a)  y = Softmax(c)  z = Softmax(d) }"""
    )
    twice(graph, {"x": array(64, 64)}).close()


def test_equal_bytes_in_another_shape_are_copied() -> None:
    """In the first run the inputs follow each other, in the second their rows interleave: the same bytes."""
    graph = model(
        """g (float[N, M] x, float[N, M] y) => (float[N, K] z)
        { a = Softmax(x)  b = Softmax(y)  c = Concat<axis = 1>(a, b)  z = Softmax(c) }"""
    )
    with epkit.load(graph, ["cpu"], optimise="none") as session:
        for shape in ((1, 4096), (1, 4096), (64, 64), (1, 4096), (1, 4096)):
            feeds = {"x": array(*shape), "y": array(*shape, seed=1)}
            assert_same(session(**feeds), expected(graph, feeds))


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(SIZES, st.integers(1, 4)), min_size=2, max_size=5))
def test_sizes_that_change_from_run_to_run(runs: list[tuple[tuple[int, int, int], int]]) -> None:
    """After equal runs there is a plan, which the next sizes leave."""
    graph = model(
        """g (float[A, 32] x, float[B, 32] y, float[C, 32] w) => (float[D, 32] z, float[E, 32] r)
        { a = Softmax(x)  b = Softmax(y)  c = Softmax(w)  i = Concat<axis = 0>(a, b)  j = Concat<axis = 0>(i, c)
          k = Relu(a)  l = Softmax(k)  r = Concat<axis = 0>(l, i)  m = Relu(j)  z = Softmax(m) }"""
    )
    with epkit.load(graph, ["cpu"], optimise="none") as session:
        for sizes, times in runs:
            feeds = {name: array(16 * size, 32, seed=size) for name, size in zip("xyw", sizes, strict=True)}
            wanted = expected(graph, feeds)
            for _ in range(times):
                assert_same(session(**feeds), wanted)


# ---- views ----


def test_parts_of_a_leading_dimension_are_views() -> None:
    graph = model(
        """g (float[128, 64] x) => (float[64, 64] y, float[64, 64] z)
        <int64[2] at = {64, 64}> { s = Softmax(x)  a, b = Split<axis = 0>(s, at)  y = Softmax(a)  z = Softmax(b) }"""
    )
    assert spared(twice(graph, {"x": array(128, 64)})) == 2 * BYTES


def test_a_slice_in_one_piece_is_a_view_and_survives_what_it_was_cut_from() -> None:
    graph = model(
        """g (float[128, 64] x) => (float[64, 64] y)
        <int64[1] from = {64}, int64[1] to = {128}, int64[1] axis = {0}>
        { s = Softmax(x)  a = Slice(s, from, to, axis)  b = Softmax(a)  c = Softmax(b)  d = MatMul(a, c)  y = Add(d, a) }"""
    )
    assert spared(twice(graph, {"x": array(128, 64)})) >= BYTES


def test_results_that_are_parts_are_the_callers_own() -> None:
    graph = model(
        """g (float[128, 64] x) => (float[64, 64] a, float[64, 64] b)
        <int64[2] at = {64, 64}> { s = Softmax(x)  a, b = Split<axis = 0>(s, at) }"""
    )
    results = twice(graph, {"x": array(128, 64)})(x=array(128, 64))
    results["a"][:] = 0
    assert results["b"].any()
    assert not np.may_share_memory(results["a"], results["b"])


# ---- in place ----


def test_a_chain_takes_the_place_of_an_input_that_nobody_else_needs() -> None:
    graph = model(
        "g (float[64, 64] x) => (float[64, 64] y) { a = Softmax(x)  b = Exp(a)  c = Softmax(b)  y = Identity(c) }"
    )
    assert spared(twice(graph, {"x": array(64, 64)})) == BYTES


def test_inputs_that_are_needed_again_keep_their_place() -> None:
    graph = model(
        """g (float[64, 64] x, float[64] v) => (float[64, 64] y, float[64, 64] z)
        <int64[2] shape = {64, 64}> { a = Softmax(x)  b = Mul(a, v)  c = Softmax(b)  d = MatMul(c, a)  e = Exp(d)  f = Add(e, d)  g = Sub(f, v)
          y = Softmax(g)  r = Reshape(a, shape)  h = Neg(r)  z = Softmax(h) }"""
    )
    twice(graph, {"x": array(64, 64), "v": array(64)}).close()


# ---- the plan ----


def test_the_same_runs_come_down_to_the_lower_bound() -> None:
    """Taken as it comes, the large value finds no gap among the small ones that are left."""
    lines = " ".join(f"a{i} = Softmax(x)  b{i} = Concat<axis = 0>(a{i}, a{i})" for i in range(6))
    odd = "o = Concat<axis = 0>(b1, b3, b5)  p = Softmax(o)  q = Concat<axis = 0>(b0, b2, b4, p)  y = Softmax(q)"
    graph = model(f"g (float[64, 64] x) => (float[768, 64] y) {{ {lines} {odd} }}")
    with epkit.load(graph, ["cpu"], optimise="none") as session:
        for _ in range(4):
            assert_same(session(x=array(64, 64)), expected(graph, {"x": array(64, 64)}))
        report = session.memory.arenas[0]
    assert report.lower_bound <= report.held <= 1.02 * report.lower_bound


OPERATORS = ("Relu", "Tanh", "Add", "Mul", "Softmax", "Transpose", "Concat", "Split", "Reshape", "Slice")


@st.composite
def graphs(draw: st.DrawFn) -> onnx.ModelProto:
    """Random graphs over matrices [64, 64]: every node keeps the shape, through a Concat and a Split if need be."""
    lines, values = [], ["x"]
    for number in range(draw(st.integers(3, 12))):
        name, op = f"v{number}", draw(st.sampled_from(OPERATORS))
        first, second = draw(st.sampled_from(values)), draw(st.sampled_from(values))
        if op in ("Add", "Mul"):
            lines.append(f"{name} = {op}({first}, {second})")
        elif op == "Concat":
            lines.append(
                f"{name}c = Concat<axis = 0>({first}, {second})  {name}a, {name}b = Split<axis = 0>({name}c, at)"
            )
            lines.append(f"{name} = Sub({name}b, {name}a)")
        elif op == "Split":
            lines.append(f"{name}a, {name}b = Split<axis = 0>({first}, half)  {name}r = Relu({name}a)")
            lines.append(f"{name} = Concat<axis = 0>({name}b, {name}r)")
        elif op == "Slice":
            lines.append(
                f"{name}s = Slice({first}, middle, all, zero)  {name} = Concat<axis = 0>({name}s, {name}s)"
            )
        elif op == "Transpose":
            lines.append(f"{name} = Transpose<perm = [1, 0]>({first})")
        elif op == "Reshape":
            lines.append(f"{name} = Reshape({first}, at)")
        else:
            lines.append(f"{name} = {op}({first})")
        values.append(name)
    results = draw(st.lists(st.sampled_from(values[1:]), min_size=1, max_size=2, unique=True))
    outputs = ", ".join(f"float[64, 64] {name}" for name in results)
    constants = "int64[2] at = {64, 64}, int64[2] half = {32, 32}"
    constants += ", int64[1] middle = {32}, int64[1] all = {64}, int64[1] zero = {0}"
    return model(f"g (float[64, 64] x) => ({outputs}) <{constants}> {{ {' '.join(lines)} }}")


@settings(max_examples=25, deadline=None)
@given(graphs())
def test_random_graphs_keep_their_values(graph: onnx.ModelProto) -> None:
    with epkit.load(graph, ["cpu"], optimise="none") as session:
        for seed in range(3):
            feeds = {"x": array(64, 64, seed=seed) / 8}
            assert_same(session(**feeds), expected(graph, feeds))
