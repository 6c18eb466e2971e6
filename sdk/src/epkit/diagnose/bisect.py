"""The smallest part of a model that a provider gets wrong, as a model of its own.

Every trial runs some of the nodes that the provider was given, on inputs that the fallback computed, so an
error of one node is never blamed on another. Single nodes come first; where none fails alone, the shortest
run of nodes that fails together is looked for, and nodes that it fails without are dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from ..backend.registry import Registry
from ..backend.registry import default as installed
from ..backend.subgraph import describe_node
from ..errors import EpkitError
from ..model.extract import extract
from ..partition.edges import Edges, edges_of
from ..partition.partitions import cut
from ..pipeline import Source
from ..runtime.difference import Difference, difference, tolerance
from ..settings import Settings
from .observe import Observed, all_values, observe
from .verify import Verification, check_observed


@dataclass(frozen=True)
class Failure:
    """The smallest failing model.

    Attributes:
        provider: who gets it wrong.
        nodes: its nodes, as text.
        model: it, with the inputs and outputs of the part.
        feeds: its inputs by name.
        expected: what the fallback computes.
        found: what the provider computes; empty if it raised.
        difference: the largest.
        error: what the provider raised, or "".
        trials: how many parts were tried.
    """

    provider: str
    nodes: tuple[str, ...]
    model: onnx.ModelProto
    feeds: Mapping[str, Any]
    expected: Mapping[str, Any]
    found: Mapping[str, Any]
    difference: Difference
    error: str
    trials: int

    def write(self, folder: Path) -> Path:
        """Write ``model.onnx`` and, as ONNX test data, inputs, expected outputs and those found.

        Returns:
            The path of the model; ``epkit run MODEL --data FOLDER --provider NAME`` repeats the failure.
        """
        data = folder / "test_data_set_0"
        data.mkdir(parents=True, exist_ok=True)
        for kind, values in (("input", self.feeds), ("output", self.expected), ("found", self.found)):
            for index, (name, value) in enumerate(values.items()):
                tensor = onnx.numpy_helper.from_array(np.asarray(value), name)
                (data / f"{kind}_{index}.pb").write_bytes(tensor.SerializeToString())
        path = folder / "model.onnx"
        onnx.save(self.model, path)
        return path

    def __str__(self) -> str:
        told = self.error or str(self.difference)
        listed = "\n".join(f"  {node}" for node in self.nodes)
        return f"{self.provider} gets {len(self.nodes)} node(s) wrong: {told}\n{listed}"


@dataclass(frozen=True)
class Bisection:
    """The verification of the whole model, or what was raised in it; and the smallest failure if there is one."""

    verification: Verification | EpkitError
    failure: Failure | None


def bisect(
    source: Source,
    settings: Settings,
    feeds: Mapping[str, Any],
    *,
    rtol: float | None = None,
    registry: Registry | None = None,
    tell: Callable[[str], None] = lambda text: None,
) -> Bisection:
    """Find the smallest set of nodes that the named providers compute unlike the fallback.

    Args:
        source, settings, feeds, rtol, registry: as for ``verify``.
        tell: called with a line on what is tried.

    Raises:
        EpkitError: if the fallback cannot run the model.
    """
    observed = observe(source, settings, registry or installed)
    expected = all_values(observed, observed.reference, feeds)
    verification: Verification | EpkitError
    try:
        verification = check_observed(observed, feeds, expected, rtol)
    except EpkitError as error:
        verification = error
    search = _Search(observed, expected, rtol, tell)
    return Bisection(verification, search.smallest(verification))


class _Search:
    def __init__(
        self, observed: Observed, expected: Mapping[str, Any], rtol: float | None, tell: Callable[[str], None]
    ) -> None:
        self.observed, self.expected, self.rtol, self.tell = observed, expected, rtol, tell
        self.edges: Edges = edges_of(observed.model.graph)
        self.results = dict.fromkeys(value for value in observed.model.graph.outputs if value is not None)
        self.trials = 0

    def smallest(self, verification: Verification | EpkitError) -> Failure | None:
        """A single node that diverged, else part of the first partition that fails alone."""
        bounds = self.observed.partitioned.bounds
        groups = [
            (bounds[part.provider].name, part.subgraph.nodes)
            for part in self.observed.partitioned.main.partitions
            if part.provider is not None and not bounds[part.provider].fallback
        ]
        checks = verification.nodes if isinstance(verification, Verification) else ()
        suspects = {check.node for check in checks if check.caused_here}
        for provider, nodes in groups:
            for node in nodes:
                if str(node.name) in suspects and (found := self.fails(provider, (node,))):
                    return found
        for provider, nodes in groups:
            if found := self.fails(provider, nodes):
                return self.shrink(provider, nodes, found)
        return None

    def shrink(self, provider: str, nodes: Sequence[ir.Node], found: Failure) -> Failure:
        """Cut from the end, from the beginning, and then node by node, for as long as it fails."""
        kept = list(nodes)
        for from_end in (True, False):
            size = len(kept) // 2
            while size:
                fewer = kept[:-size] if from_end else kept[size:]
                smaller = self.fails(provider, fewer)
                if smaller:
                    kept, found = fewer, smaller
                size = min(size, len(kept) - 1) if smaller else size // 2
        for node in list(kept):
            fewer = [other for other in kept if other is not node]
            if fewer and (smaller := self.fails(provider, fewer)):
                kept, found = fewer, smaller
        return found

    def fails(self, provider: str, nodes: Sequence[ir.Node]) -> Failure | None:
        """Run these nodes alone on the provider."""
        self.trials += 1
        self.tell(f"trial {self.trials}: {len(nodes)} node(s) on {provider}")
        model = self.observed.model
        part = cut("part", self.edges, tuple(nodes), self.results, model.opset_imports, 0)
        proto = extract("part", part.nodes, part.inputs, part.outputs, part.opsets)
        called = {node.op_identifier() for node in nodes}
        for key, function in model.functions.items():
            if key in called:
                proto.functions.append(ir.serde.serialize_function(function))
        feeds = {str(value.name): self.expected[str(value.name)] for value in part.inputs}
        wanted = {str(v.name): self.expected[str(v.name)] for v in part.outputs if v.name in self.expected}
        choice = next(c for c in self.observed.named if (c if isinstance(c, str) else c[0]) == provider)
        found: dict[str, Any] = {}
        error, worst = "", Difference()
        try:
            with self.observed.open(proto, (choice,)) as session:
                found = session.run(tuple(wanted), feeds)
        except EpkitError as raised:
            error = str(raised)
        apart = {name: difference(value, wanted[name]) for name, value in found.items()}
        wrong = [
            name for name, found in apart.items() if not found.within(tolerance(wanted[name], self.rtol))
        ]
        if not wrong and not error:
            return None
        if wrong:
            worst = max((apart[name] for name in wrong), key=lambda item: (bool(item.problem), item.relative))
        lines = tuple(describe_node(node) for node in nodes)
        return Failure(provider, lines, proto, feeds, wanted, found, worst, error, self.trials)
