"""The contract with plugins is frozen: it may grow within a version, and change only with a new one."""

from __future__ import annotations

from contract_surface import frozen_file, surface

import epkit.backend
from epkit.backend import CONTRACT_VERSION, Provider
from epkit.testing.models import model


def test_nothing_that_a_plugin_relies_on_has_changed() -> None:
    frozen = frozen_file(CONTRACT_VERSION).read_text(encoding="utf-8").splitlines()
    gone = sorted(set(frozen) - set(surface()))
    assert not gone, (
        "these parts of the contract are gone or different; keep them, or raise CONTRACT_VERSION and freeze "
        "the new surface with `python sdk/tests/backend/contract_surface.py`:\n" + "\n".join(gone)
    )


def test_what_was_added_is_frozen_too() -> None:
    frozen = frozen_file(CONTRACT_VERSION).read_text(encoding="utf-8").splitlines()
    new = sorted(set(surface()) - set(frozen))
    assert not new, (
        "these parts of the contract are new; if plugins may rely on them from now on, freeze them with "
        "`python sdk/tests/backend/contract_surface.py`:\n" + "\n".join(new)
    )


def test_the_present_version_is_among_those_that_a_provider_supports_by_default() -> None:
    assert Provider.contract == (CONTRACT_VERSION, CONTRACT_VERSION)


def test_a_subgraph_reads_well_and_makes_a_model() -> None:
    """What claim and compile are given: text for people, ONNX for compilers, constants as read-only arrays."""
    seen: list[epkit.backend.Subgraph] = []

    class Looking(epkit.backend.Provider):
        name = "looking"
        version = "1.0"

        def devices(self) -> epkit.backend.Devices:
            return epkit.backend.Devices((epkit.backend.Device("looking:0", "toy"),))

        def claim(self, graph: epkit.backend.Subgraph) -> list[epkit.backend.Claim | epkit.backend.Refusal]:
            seen.append(graph)
            return []

        def compile(self, subgraph: epkit.backend.Subgraph) -> epkit.backend.Program:
            raise NotImplementedError

    from epkit.testing.plugins import registry_of

    graph = model(
        "g (float[N, 2] x) => (float[N, 2] y) <float[2] w = {1, 2}> { [sum] a = Add(x, w)  [neg] y = Neg(a) }"
    )
    epkit.load(graph, ["looking"], registry=registry_of(Looking)).close()
    (view,) = seen
    assert str(view).splitlines() == [
        "subgraph g: 2 nodes",
        "  in  x: float32[N, 2]",
        "  sum: a = Add(x, w)",
        "  neg: y = Neg(a)",
        "  out y: float32[N, 2]",
    ]
    weight = view.constant(view.nodes[0].inputs[1])
    assert weight is not None
    assert weight.tolist() == [1, 2]
    assert not weight.flags.writeable
    assert view.constant(view.nodes[0].inputs[0]) is None
    assert view.constant(None) is None
    assert view.opset(view.nodes[0]) == 18
    exported = view.to_model()
    assert [i.name for i in exported.graph.input] == ["x"]
    assert [t.name for t in exported.graph.initializer] == ["w"]
