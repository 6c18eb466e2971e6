"""A fused node tells which of the model's nodes it stands for: in errors, in the placement, in the profile."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import epkit
import epkit.backend as ep
from epkit.errors import RunError
from epkit.runtime.options import RunOptions
from epkit.runtime.profile import Profile
from epkit.testing.models import model
from epkit.testing.plugins import registry_of

PARTS = ("sum", "root", "erf", "one", "half", "times")
GELU = model(
    """g (float[2, 4] x, float[2, 4] s) => (float[2, 4] y)
    <float r = {1.4142135}, float o = {1.0}, float h = {0.5}>
    { [sum] a = Add(x, s)  [root] b = Div(a, r)  [erf] c = Erf(b)  [one] d = Add(c, o)  [half] e = Mul(a, d)
      [times] y = Mul(e, h) }"""
)
X = np.zeros((2, 4), np.float32)


class Toy(ep.KernelProvider):
    """Knows Gelu only, and fails at it where it is told to."""

    name = "toy"
    version = "1"
    fails = True

    def devices(self) -> ep.Devices:
        return ep.Devices((ep.Device("toy:0", "toy"),))


@ep.kernel("Gelu", since=20)
def gelu(x: Any, *, approximate: str = "none") -> Any:
    if Toy.fails:
        raise ValueError("no")
    return x


Toy.kernels = (gelu,)


def test_a_fused_node_names_its_parts() -> None:
    with epkit.load(GELU, ["toy"], registry=registry_of(Toy)) as session:
        (fused,) = (node for node in session.placement.nodes if node.provider == "toy")
        assert (fused.node, set(fused.parts)) == ("times", set(PARTS[1:]))
        assert [node.parts for node in session.placement.nodes if node.node == "sum"] == [()]
        with pytest.raises(RunError) as caught:
            session(x=X, s=X)
        assert caught.value.where.node == "times"
        assert set(caught.value.where.parts.split(", ")) == set(PARTS[1:])
        assert "parts root, " in str(caught.value)


def test_the_profile_names_them_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Toy, "fails", False)
    profile = Profile()
    with epkit.load(GELU, ["toy"], registry=registry_of(Toy)) as session:
        session.run(None, {"x": X, "s": X}, RunOptions(profile=profile))
    parts = {
        event.name: event.details.get("parts")
        for event in profile.recorder.events
        if event.category == "node"
    }
    assert isinstance(parts["times"], tuple)
    assert set(parts["times"]) == set(PARTS[1:])
    assert parts["sum"] is None


def test_nodes_that_the_engine_runs_as_one_are_all_named() -> None:
    """An integer division by zero in the middle of a chain."""
    graph = model(
        """g (int32[N] x, int32[N] d) => (int32[N] y)
        { [first] a = Neg(x)  [second] b = Div(a, d)  [third] y = Abs(b) }"""
    )
    with epkit.load(graph, ["cpu"]) as session, pytest.raises(RunError) as caught:
        session(x=np.ones(3, np.int32), d=np.zeros(3, np.int32))
    where = caught.value.where
    assert (where.node, where.parts) in [("third", "first, second, third"), ("second", "")]  # or node by node
