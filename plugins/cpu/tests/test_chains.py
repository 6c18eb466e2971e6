"""Elementwise chains: what looks alike is packed once, and a node that does not fit leaves no trace."""

from __future__ import annotations

import numpy as np
import pytest

import epkit
from epkit.testing.models import model
from epkit_cpu.native import chosen_isa
from epkit_cpu.prepared import Prepared

native = pytest.mark.skipif(not chosen_isa(), reason="the package was built without a compiler")
X = np.array([-4.0, -1.0, 0.0, 2.0, 5.0], np.float32)


@native
def test_chains_that_differ_in_a_number_only() -> None:
    graph = model(
        """g (float[5] x) => (float[5] a, float[5] b, float[5] c, float[5] d)
        { a = HardSigmoid<alpha = 0.5>(x)  b = HardSigmoid<alpha = 0.25>(x)
          c = LeakyRelu<alpha = 0.0>(x)  d = LeakyRelu<alpha = -0.0>(x) }"""
    )
    with epkit.load(graph, ["cpu"], optimise="none") as session:
        found = session(x=X)
    np.testing.assert_array_equal(found["a"], (0.5 * X + 0.5).clip(0, 1))
    np.testing.assert_array_equal(found["b"], (0.25 * X + 0.5).clip(0, 1))
    assert list(np.signbit(found["c"][:2])) == [True, True]  # -4 · 0
    assert list(np.signbit(found["d"][:2])) == [False, False]  # -4 · -0


@native
def test_equal_chains_of_different_values() -> None:
    graph = model(
        """g (float[5] x, float[5] y) => (float[5] a, float[5] b)
        { t = Tanh(x)  a = Mul(t, y)  u = Tanh(y)  b = Mul(u, x) }"""
    )
    with epkit.load(graph, ["cpu"], optimise="none") as session:
        found = session(x=X, y=X[::-1].copy())
    np.testing.assert_allclose(found["a"], np.tanh(X) * X[::-1], rtol=1e-6)
    np.testing.assert_allclose(found["b"], np.tanh(X[::-1]) * X, rtol=1e-6)


@native
@pytest.mark.parametrize("length", [47, 48, 49, 130])
def test_chains_longer_than_one_may_be(length: int) -> None:
    nodes = " ".join(f"v{i + 1} = Add(v{i}, {'x' if i % 2 else 'one'})" for i in range(length))
    graph = model(
        f"g (float[5] x) => (float[5] y) <float one = {{1}}> {{ v0 = Neg(x) {nodes} y = Neg(v{length}) }}"
    )
    with epkit.load(graph, ["cpu"], optimise="none") as session:
        np.testing.assert_array_equal(session(x=X)["y"], X - (length // 2) * X - (length + 1) // 2)


@native
def test_a_node_that_two_chains_meet_in() -> None:
    """The second chain is too long to join the first: it stays one of its own, and both are right."""
    long = " ".join(f"w{i + 1} = Add(w{i}, x)" for i in range(45))
    graph = model(
        f"""g (float[5] x) => (float[5] y, float[5] z)
        {{ a = Neg(x) b = Abs(a) c = Sub(b, x) d = Mul(c, c) w0 = Abs(x) {long} y = Add(d, w45) z = Add(y, c) }}"""
    )
    with epkit.load(graph, ["cpu"], optimise="none") as session:
        found = session(x=X)
    c = np.abs(X) - X
    np.testing.assert_array_equal(found["y"], c * c + np.abs(X) + 45 * X)
    np.testing.assert_array_equal(found["z"], c * c + np.abs(X) + 45 * X + c)


def test_what_is_asked_for_again_is_made_once_and_kept_twice() -> None:
    made: list[np.ndarray] = []

    def make() -> np.ndarray:
        made.append(np.full(8, len(made), np.uint8))
        return made[-1]

    weight, prepared = np.ones(4, np.float32), Prepared()
    first = prepared.get("pack", b"a", [weight, None], make)
    assert prepared.get("pack", b"a", [weight, None], make) is first
    assert prepared.get("pack", b"b", [weight, None], make) is not first
    assert prepared.get("pack", b"a", [None, weight], make) is not first
    assert len(made) == 3
    again = Prepared(b"".join(bytes(piece) for piece in prepared.pieces()))
    for attributes, arrays, number in (
        (b"a", [weight, None], 0),
        (b"a", [weight, None], 0),
        (b"b", [weight, None], 1),
        (b"a", [None, weight], 2),
    ):
        np.testing.assert_array_equal(again.get("pack", attributes, arrays, make), number)
    assert len(made) == 3


@native
@pytest.mark.parametrize("count", [22, 23, 24, 25, 60])
def test_chains_of_more_inputs_than_one_may_have(count: int) -> None:
    names = [f"x{i}" for i in range(count)]
    given = ", ".join(f"float[5] {name}" for name in names)
    nodes = " ".join(f"v{i + 1} = Add(v{i}, x{i})" for i in range(1, count))
    graph = model(f"g ({given}) => (float[5] y) {{ v1 = Neg(x0) {nodes} y = Relu(v{count}) }}")
    with epkit.load(graph, ["cpu"], optimise="none") as session:
        found = session(**{name: X + i for i, name in enumerate(names)})
    expected = -X + sum(X + i for i in range(1, count))
    np.testing.assert_allclose(found["y"], np.maximum(expected, 0), rtol=1e-6)


@native
def test_the_same_operator_of_values_and_of_one_value_twice() -> None:
    """Nodes that look alike are tried once: x + x is no x + y."""
    graph = model(
        """g (float[5] x, float[5] y) => (float[5] a, float[5] b, float[5] c)
        { s = Add(x, y)  a = Neg(s)  t = Add(x, x)  b = Neg(t)  u = Add(y, x)  c = Neg(u) }"""
    )
    y = np.arange(5, dtype=np.float32)
    with epkit.load(graph, ["cpu"], optimise="none") as session:
        found = session(x=X, y=y)
    np.testing.assert_array_equal(found["a"], -(X + y))
    np.testing.assert_array_equal(found["b"], -(X + X))
    np.testing.assert_array_equal(found["c"], -(y + X))
