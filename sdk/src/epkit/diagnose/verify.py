"""A provider against the fallback: the same inputs, every intermediate value compared."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir

from ..backend.registry import Registry
from ..backend.registry import default as installed
from ..backend.subgraph import operator_name
from ..pipeline import Source
from ..runtime.difference import Difference, difference, tolerance
from ..settings import Settings
from .observe import Observed, all_values, is_constant, observe


@dataclass(frozen=True)
class NodeCheck:
    """One node's outputs, compared.

    Attributes:
        agrees: they are within the tolerance.
        caused_here: they are not, although all that the node reads is.
    """

    node: str
    operator: str
    provider: str
    difference: Difference
    agrees: bool
    caused_here: bool


@dataclass(frozen=True)
class Verification:
    """How a model's values compare under the named providers and under the fallback.

    Attributes:
        outputs: the model's outputs as an ordinary session computes them, by name.
        nodes: each node of the main graph, in order, in a session that gives every value out.
        failed: names of outputs beyond the tolerance.
    """

    model: str
    outputs: Mapping[str, Difference]
    nodes: tuple[NodeCheck, ...]
    failed: tuple[str, ...]

    @property
    def first(self) -> NodeCheck | None:
        """The first node that diverges: its inputs agree, its outputs do not."""
        return next((check for check in self.nodes if check.caused_here), None)

    @property
    def passed(self) -> bool:
        """True if all outputs and all intermediate values agree."""
        return not self.failed and self.first is None

    def __str__(self) -> str:
        wrong = sum(not check.agrees for check in self.nodes)
        lines = [f"{self.model}: {len(self.nodes)} nodes compared, {wrong} differ"]
        lines += [
            f"  output {name}: {found}{' FAILED' if name in self.failed else ''}"
            for name, found in self.outputs.items()
        ]
        if self.first is not None:
            first = self.first
            lines.append(
                f"  first to diverge: {first.operator} {first.node} on {first.provider}: {first.difference}"
            )
        elif self.failed:
            lines.append("  no node diverges while it is observed: the fault lies in how nodes are combined")
        return "\n".join(lines)


def verify(
    source: Source,
    settings: Settings,
    feeds: Mapping[str, Any],
    *,
    rtol: float | None = None,
    registry: Registry | None = None,
) -> Verification:
    """Run a model on its providers and on the fallback alone, and compare every value of the main graph.

    Args:
        source: the model.
        settings: of the load; ``settings.fallback`` is what the named providers are compared with.
        feeds: inputs by name.
        rtol: tolerated difference relative to the largest magnitude of each tensor; by default 1e-3,
            and 2e-2 for elements of 16 bits and fewer.
        registry: the plugins; by default those installed.

    Raises:
        EpkitError: if either cannot load or run the model.
    """
    observed = observe(source, settings, registry or installed)
    return check_observed(observed, feeds, all_values(observed, observed.reference, feeds), rtol)


def check_observed(
    observed: Observed, feeds: Mapping[str, Any], expected: Mapping[str, Any], rtol: float | None
) -> Verification:
    """The same, for a model that is loaded and whose reference values are known."""
    found = all_values(observed, observed.named, feeds)
    with observed.open(observed.model, observed.named) as session:
        final = session.run(None, feeds)
    outputs = {name: difference(value, expected[name]) for name, value in final.items()}
    failed = tuple(
        name for name, apart in outputs.items() if not apart.within(tolerance(expected[name], rtol))
    )
    model = observed.model.graph.name or "model"
    return Verification(model, outputs, tuple(_checks(observed, found, expected, rtol)), failed)


def _checks(
    observed: Observed, found: Mapping[str, Any], expected: Mapping[str, Any], rtol: float | None
) -> Iterator[NodeCheck]:
    wrong: set[ir.Value] = set()
    runs = {
        node: "runtime" if part.provider is None else observed.partitioned.bounds[part.provider].name
        for part in observed.partitioned.main.partitions
        for node in part.subgraph.nodes
    }
    for node in observed.model.graph:
        worst, agrees = Difference(), True
        for value in node.outputs:
            name = str(value.name)
            if name in found and name in expected:
                apart = difference(found[name], expected[name])
                if not apart.within(tolerance(expected[name], rtol)):
                    agrees = False
                    wrong.add(value)
                if apart.problem or apart.relative >= worst.relative:
                    worst = apart
        cause = not agrees and not any(
            value in wrong for value in node.inputs if value is not None and not is_constant(value)
        )
        yield NodeCheck(str(node.name), operator_name(node), runs[node], worst, agrees, cause)
