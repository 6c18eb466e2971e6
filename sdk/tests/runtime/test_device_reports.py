"""What a device says of its own work goes into the profile; Session.reset starts devices again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

import epkit
import epkit.backend as ep
from epkit.backend.null import NullProgram, NullProvider
from epkit.errors import BrokenProviderError, RunError
from epkit.testing.models import model
from epkit.testing.plugins import registry_of

CHAIN = "g (float[2] x) => (float[2] y) { [first] a = Relu(x)  [second] y = Neg(a) }"


class Counting(NullProvider):
    """Counts cycles and draws two parts of its device."""

    name = "counting"

    def compile(self, subgraph: ep.Subgraph) -> ep.Program:
        return CountingProgram(subgraph)


class CountingProgram(NullProgram):
    def run(self, context: ep.RunContext, inputs: Sequence[Any]) -> Sequence[Any]:
        for number, node in enumerate(self.subgraph.nodes, 1):
            context.begin(node)
            context.measure(cycles=100 * number, bytes=8, macs=number, peak_macs=4)
            context.event("step", f"engine {number}", 1000 * number, 500, node=str(node.name))
            context.end(node)
        return super().run(context, inputs)


def profiled(runs: int) -> epkit.Profile:
    profile = epkit.Profile()
    with epkit.load(model(CHAIN), ["counting"], registry=registry_of(Counting)) as session:
        for _ in range(runs):
            session.run(None, {"x": np.ones(2, np.float32)}, epkit.RunOptions(profile=profile))
    return profile


def test_counters_are_summed_over_calls_and_shown() -> None:
    profile = profiled(3)
    counted = {row.operator: row.counters for row in profile.rows()}
    assert counted["Neg"] == {"cycles": 600, "bytes": 24, "macs": 6, "peak_macs": 12}
    table = profile.table()
    assert "utilisation" in table.splitlines()[0]
    (neg,) = [line for line in table.splitlines() if line.endswith("Neg")]
    assert neg.split()[:3] == ["600", "50.0%", "24"]


def test_a_profile_without_counters_has_no_columns_for_them() -> None:
    profile = epkit.Profile()
    with epkit.load(model(CHAIN), ["cpu"]) as session:
        session.run(None, {"x": np.ones(2, np.float32)}, epkit.RunOptions(profile=profile))
    assert "cycles" not in profile.table()


def test_the_trace_has_a_row_for_each_part_of_a_device() -> None:
    events = json.loads(profiled(1).recorder.chrome_trace())["traceEvents"]
    rows = {event["tid"]: event["args"]["name"] for event in events if event["ph"] == "M"}
    drawn = {rows[event["tid"]]: event for event in events if event["name"] == "step"}
    assert set(drawn) == {"engine 1", "engine 2"}
    assert (drawn["engine 2"]["dur"], drawn["engine 2"]["args"]["node"]) == (0.5, "second")


class Resettable(NullProvider):
    name = "resettable"
    resets = 0

    def reset(self) -> None:
        type(self).resets += 1
        if self.resets == 2:
            raise OSError("the driver does not answer")


def test_reset_asks_every_provider_and_names_the_one_that_fails() -> None:
    with epkit.load(model(CHAIN), ["resettable"], registry=registry_of(Resettable)) as session:
        session.reset()
        assert Resettable.resets == 1
        with pytest.raises(BrokenProviderError, match=r"'resettable' failed in reset: OSError: the driver"):
            session.reset()
        assert session(x=np.ones(2, np.float32))["y"].tolist() == [-1, -1]


def test_reset_is_refused_while_something_runs() -> None:
    class Impatient(NullProvider):
        name = "impatient"

        def compile(self, subgraph: ep.Subgraph) -> ep.Program:
            class Resets(NullProgram):
                def run(self, context: ep.RunContext, inputs: Sequence[Any]) -> Sequence[Any]:
                    with pytest.raises(RunError, match=r"1 run\(s\) are under way"):
                        session.reset()
                    return super().run(context, inputs)

            return Resets(subgraph)

    with epkit.load(model(CHAIN), ["impatient"], registry=registry_of(Impatient)) as session:
        assert session(x=np.ones(2, np.float32))["y"].tolist() == [-1, -1]
