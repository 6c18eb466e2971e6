"""When something fails at run time: the error names provider, partition and node, and the session goes on."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import epkit
from epkit.backend import kernel
from epkit.errors import RunError
from epkit.testing.awkward import awkward, everything
from epkit.testing.device import FakeDevice, device_provider, launch
from epkit.testing.memory import FakeMemory
from epkit.testing.models import model
from epkit.testing.oracle import assert_same
from epkit.testing.plugins import registry_of

X = np.array([1, 2, 3], np.float32)
PICKY = model(
    """
    g (float[N] x) => (float[N] y) { [before] a = Neg(x)  [picky] b = toys.Picky(a)  [after] y = Neg(b) }
    """,
    domains={"toys": 1},
)
"""Picky is for positive numbers only (after a Neg: x must be negative)."""


@kernel("Picky", domain="toys")
def picky(x: Any) -> Any:
    if (x <= 0).any():
        raise ValueError("only positive numbers")
    return x


@kernel("Picky", domain="toys", shapes=lambda x, **_: [(x.shape, x.dtype)])
def picky_later(x: Any, *, context: Any, out: Any) -> None:
    launch(context, picky.function, (x,), out)


class Host(awkward("host", everything)):  # type: ignore[misc]
    @property
    def table(self) -> Any:
        from epkit.backend import KernelTable

        return KernelTable([*super().table, picky])


def test_a_kernel_that_raises() -> None:
    with epkit.load(PICKY, ["host"], registry=registry_of(Host)) as session:
        with pytest.raises(RunError) as caught:
            session(x=X)
        where = caught.value.where
        assert (where.provider, where.partition, where.node) == ("host", "host:0", "picky")
        assert (where.stage, where.model) == ("run", session.name)
        assert "only positive numbers" in caught.value.what
        assert "float32[3]" in caught.value.remedy
        assert isinstance(caught.value.__cause__, ValueError)
        assert_same(session(x=-X)["y"], -X)
        assert session.memory.arenas[0].in_use == 0


@pytest.mark.parametrize("threads", [False, True], ids=["late", "worker"])
def test_a_kernel_that_fails_later(threads: bool) -> None:
    """The device reports it when it is waited for: the node is not known any more, the provider is."""
    device = FakeDevice(threads=threads)
    registry = registry_of(device_provider("device", device, everything, [picky_later]))
    with epkit.load(PICKY, ["device"], registry=registry) as session:
        with pytest.raises(RunError, match="only positive numbers") as caught:
            session(x=X)
        assert caught.value.where.provider == "device"
        assert caught.value.where.value == "b"  # of an unknown type, so the next node runs elsewhere
        assert_same(session(x=-X)["y"], -X)
    device.assert_clean()


@pytest.mark.parametrize("member", ["copy_in", "copy_out", "view"])
def test_a_copy_that_fails(member: str, monkeypatch: pytest.MonkeyPatch) -> None:
    device = FakeDevice()
    graph = model("g (float[N] x) => (float[N] y) { y = Neg(x) }")
    with epkit.load(graph, ["device"], registry=registry_of(device_provider("device", device))) as session:

        def fail(*_: Any) -> None:
            raise OSError("bus error")

        with monkeypatch.context() as patch:
            patch.setattr(FakeMemory, member, fail)
            with pytest.raises(RunError, match="OSError: bus error") as caught:
                session(x=X)
        assert caught.value.where.provider == "device"
        assert caught.value.where.value == ("y" if member == "copy_out" else "x")
        assert_same(session(x=X)["y"], -X)
    device.assert_clean()


def test_inside_a_loop_the_inner_node_is_named() -> None:
    graph = model(
        """
        g (float[N] x) => (float[N] y) <int64 n = {3}, bool yes = {1}> {
            [loop] y = Loop(n, yes, x) <body = step (int64 i, bool go, float[N] s) => (bool on, float[N] t) {
                on = Identity(go)  [inner] t = toys.Picky(s)
            }>
        }""",
        domains={"toys": 1},
    )
    with epkit.load(graph, ["host"], registry=registry_of(Host)) as session:
        with pytest.raises(RunError) as caught:
            session(x=-X)
        assert (caught.value.where.provider, caught.value.where.node) == ("host", "inner")


def test_shapes_that_do_not_go_together() -> None:
    graph = model("g (float[N] x, float[M] z) => (float[K] y) { [sum] y = Add(x, z) }")
    with epkit.load(graph) as session:
        with pytest.raises(RunError) as caught:
            session(x=X, z=X[:2])
        assert (caught.value.where.provider, caught.value.where.node) == ("cpu", "sum")
        assert "float32[3], float32[2]" in caught.value.remedy
        assert_same(session(x=X, z=X)["y"], X + X)


def test_text_cannot_go_to_a_device() -> None:
    @kernel("Identity")
    def identity(x: Any) -> Any:
        return x

    class Careless(device_provider("device", FakeDevice(), everything)):  # type: ignore[misc]
        kernels = (identity,)

    graph = model("g (string[N] x) => (string[N] y) { y = Identity(x) }")
    with epkit.load(graph, ["device"], registry=registry_of(Careless), optimise="none") as session:
        with pytest.raises(RunError, match="cannot be copied to device:0") as caught:
            session(x=["a"])
        assert "refuse" in caught.value.remedy
