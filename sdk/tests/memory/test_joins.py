"""A provider agrees that the inputs of its Concat lie in the result: producers write them there."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import epkit
import epkit.backend as ep
from epkit.testing.models import model
from epkit.testing.oracle import assert_same, expected
from epkit.testing.plugins import registry_of

ROWS = 16
"""A row of 16 numbers is 64 bytes, the alignment of the host's memory."""


def like(x: Any, **_: Any) -> Any:
    return [(x.shape, x.dtype)]


def joined(*parts: Any, axis: int) -> Any:
    shape = list(parts[0].shape)
    shape[axis] = sum(part.shape[axis] for part in parts)
    return [(shape, parts[0].dtype)]


@ep.kernel("Relu", shapes=like)
def relu(x: Any, *, out: Any) -> None:
    np.maximum(x, 0, out=out[0])


@ep.kernel("Neg", shapes=like)
def neg(x: Any, *, out: Any) -> None:
    np.negative(x, out=out[0])


class Toy(ep.KernelProvider):
    """Counts the bytes that its Concat copies."""

    name = "toy"
    version = "1"
    copied = 0

    def devices(self) -> ep.Devices:
        return ep.Devices((ep.Device("toy:0", "toy"),))


@ep.kernel("Concat", shapes=joined, joins=True)
def concat(*parts: Any, axis: int, out: Any) -> None:
    start = 0
    for part in parts:
        place = np.moveaxis(out[0], axis, 0)[start : start + part.shape[axis]]
        start += part.shape[axis]
        source = np.moveaxis(part, axis, 0)
        if place.__array_interface__["data"] != source.__array_interface__["data"]:
            place[...] = source
            Toy.copied += part.nbytes


Toy.kernels = (relu, neg, concat)


def copied(session: epkit.Session, graph: Any, **feeds: Any) -> int:
    Toy.copied = 0
    assert_same(session(**feeds), expected(graph, feeds))
    return Toy.copied


def rows(count: int, seed: int = 0) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).standard_normal((count, ROWS)).astype(np.float32)


def test_known_sizes_are_joined_in_the_first_run() -> None:
    graph = model(
        """g (float[8, 16] x, float[4, 16] y) => (float[12, 16] z)
        { a = Neg(x)  b = Relu(y)  c = Concat<axis = 0>(a, b)  z = Neg(c) }"""
    )
    with epkit.load(graph, ["toy"], registry=registry_of(Toy), optimise="none") as session:
        assert copied(session, graph, x=rows(8), y=rows(4)) == 0
        (plan,) = session.memory.plans
        assert (plan.size, plan.lower_bound, plan.unshared) == (12 * 64, 12 * 64, 24 * 64)


@pytest.mark.parametrize(
    ("body", "bytes_copied"),
    [
        ("c = Concat<axis = 1>(a, b)  z = Neg(c)", 2 * 8 * 64),  # rows interleave
        ("c = Concat<axis = 0>(a, a)  z = Neg(c)", 2 * 8 * 64),  # one value in two places
        ("c = Concat<axis = 0>(a, x)  z = Neg(c)", 8 * 64),  # an input of the graph lies where it lies
        ("z = Concat<axis = 0>(a, b)", 2 * 8 * 64),  # results are the caller's
        (
            "c = Concat<axis = 0>(a, b)  d = Concat<axis = 0>(c, b)  z = Neg(d)",
            8 * 64,
        ),  # b is in one place only
        (
            "c = Concat<axis = 0>(a, b)  e = Neg(x)  d = Concat<axis = 0>(e, c)  z = Neg(d)",
            0,
        ),  # one in the other
    ],
)
def test_what_cannot_be_joined_is_copied(body: str, bytes_copied: int) -> None:
    graph = model(f"g (float[8, 16] x) => (float[N, M] z) {{ a = Neg(x)  b = Relu(x)  {body} }}")
    with epkit.load(graph, ["toy"], registry=registry_of(Toy), optimise="none") as session:
        for _ in range(2):
            assert copied(session, graph, x=rows(8)) == bytes_copied


@settings(max_examples=10, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 3), st.integers(1, 3)), min_size=2, max_size=8))
def test_sizes_that_come_with_the_inputs(sizes: list[tuple[int, int]]) -> None:
    """Joined when a shape comes again; right in every run."""
    graph = model(
        """g (float[A, 16] x, float[B, 16] y) => (float[C, 16] z, float[D, 16] w)
        { a = Neg(x)  b = Relu(y)  c = Concat<axis = 0>(a, b)  d = Concat<axis = 0>(c, a)  z = Neg(d)  w = Relu(b) }"""
    )
    with epkit.load(graph, ["toy"], registry=registry_of(Toy), optimise="none") as session:
        seen = set()
        for first, second in sizes:
            found = copied(session, graph, x=rows(first), y=rows(second, 1))
            again = (first, second) in seen
            assert found == 64 * (first if again else 3 * first + 2 * second)  # a is in one place only
            seen.add((first, second))
