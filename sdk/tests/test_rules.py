"""The rules of the design that a test can hold, each named by its number; 1 and 2: test_floors.py, 9: test_fused_operators.py."""

from __future__ import annotations

import dataclasses
import random
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx.inliner
import pytest

import epkit
import epkit.backend as ep
from epkit.partition.claims import Claims
from epkit.partition.placement import Placement
from epkit.pipeline import STAGES
from epkit.pipeline import stages as pipeline_stages
from epkit.settings import Settings
from epkit.testing.awkward import awkward, by_chance, every_other, groups_by_chance
from epkit.testing.broken import ZOO
from epkit.testing.models import model, random_feeds, random_model
from epkit.testing.oracle import assert_same, expected
from epkit.testing.plugins import entry_points_of, registry_of

SOURCE = Path(epkit.__file__).parent

# ---- rule 3: five members make a provider ----


def test_rule_3_five_members_are_a_whole_provider() -> None:
    class Five(ep.Provider):
        name = "five"
        version = "1.0"

        def devices(self) -> ep.Devices:
            return ep.Devices((ep.Device("five:0", "toy"),))

        def claim(self, graph: ep.Subgraph) -> list[ep.Claim]:
            return [ep.Claim((node,)) for node in graph.nodes if node.op_type == "Neg"]

        def compile(self, subgraph: ep.Subgraph) -> ep.Program:
            class Negate(ep.Program):
                def run(self, context: ep.RunContext, inputs: Sequence[Any]) -> list[Any]:
                    return [-inputs[0]]

            return Negate()

    assert ep.Provider.__abstractmethods__ == {"devices", "claim", "compile"}
    assert ep.Program.__abstractmethods__ == {"run"}
    graph = model("g (float[N] x) => (float[N] y) { a = Neg(x)  y = Abs(a) }")
    with epkit.load(graph, ["five"], registry=registry_of(Five)) as session:
        assert_same(session(x=np.ones(2, np.float32))["y"], np.ones(2, np.float32))
        assert session.placement.counts() == {"five": 1, "cpu": 1}


# ---- rule 4: every "no" has a reason ----


def through_all_stages(graph: onnx.ModelProto, *providers: type[ep.Provider]) -> dict[str, Any]:
    wanted = Settings(tuple(provider.name for provider in providers), "cpu", "none")
    return dict(pipeline_stages(graph, wanted, registry_of(*providers)))


@pytest.mark.parametrize("seed", range(6))
def test_rule_4_every_no_has_a_reason(seed: int) -> None:
    providers = (
        awkward("one", groups_by_chance(seed)),
        awkward("two", by_chance(seed)),
        awkward("odd", every_other(1)),
    )
    found = through_all_stages(random_model(random.Random(seed), 14, 2), *providers)
    claims: Claims = found["claim"]
    placement: Placement = found["plan"].placement
    claimed = {
        (str(node.name), bound.name)
        for offers in claims.offers.values()
        for bound, offer in zip(claims.bounds, offers, strict=True)
        for node in offer.claimed
    }
    for node in placement.nodes:
        reasons = {reason.provider: reason for reason in node.refused}
        for rank, name in enumerate(placement.providers):
            before = node.provider not in placement.providers[: rank + 1]
            if (node.node, name) not in claimed or before:
                assert name in reasons, f"{node.node} on {node.provider}: {name} gives no reason"
                assert reasons[name].code in ep.REFUSAL_CODES
                assert reasons[name].reason.strip()


# ---- rule 6: one broken plugin never breaks another, nor `import epkit` ----


def test_rule_6_nobody_suffers_from_the_whole_zoo() -> None:
    registry = registry_of(entry_points=entry_points_of({specimen.name: specimen.body for specimen in ZOO}))
    states = {state.name: state for state in registry.states()}
    assert {specimen.name for specimen in ZOO} <= states.keys()
    for state in states.values():
        assert state.state in ("ready", "absent", "incompatible", "broken")
        assert state.state in ("ready", "absent") or (state.reason and state.remedy), state
    with epkit.load(random_model(random.Random(1)), ["null"], registry=registry) as session:
        assert_same(
            session.run(None, random_feeds()), expected(random_model(random.Random(1)), random_feeds())
        )


HEAVY = ("numpy", "onnx", "onnx_ir", "ml_dtypes", "pluggy", "typer", "rich")


def test_rule_6_importing_epkit_imports_no_plugin_and_nothing_heavy() -> None:
    code = f"""
import sys
before = set(sys.modules)
import epkit
dir(epkit), epkit.__version__, epkit.EpkitError
new = set(sys.modules) - before
print(sorted(name for name in new if name.partition(".")[0] in {HEAVY!r} or name.startswith("epkit_")))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "[]"


# ---- rule 8: stages are plain values ----


def test_rule_8_stages_are_plain_values() -> None:
    found = through_all_stages(random_model(random.Random(3), 10, 2), awkward("one", by_chance(3)))
    assert tuple(found) == STAGES
    for name, value in found.items():
        assert dataclasses.is_dataclass(value), name
        assert type(value).__dataclass_params__.frozen, name  # type: ignore[attr-defined]
        assert "__str__" in vars(type(value)), f"the value of {name} has no text of its own"
        text = str(value)
        assert text and not re.search(r" at 0x[0-9a-f]+|<[\w.]+ object", text), f"{name}:\n{text}"
    for name in ("optimise", "claim", "partition", "plan"):
        assert "tanh" in str(found[name]), f"{name} does not name the nodes"
