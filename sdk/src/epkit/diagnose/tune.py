"""Measuring what each node costs on each provider, and what copies cost, for the cost policy.

Every distinct node (operator, version, attributes, types and shapes) is run alone, on inputs that the
fallback computed for it. What a run costs apart from the node, copies and the runtime's own work, is taken off.
Then the model is run as a whole: on each provider alone, by which the times of nodes are scaled, and as the cost policy
would divide it; of these, a later load takes what was fastest.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from .. import knobs
from ..backend.bound import Bound
from ..backend.registry import Registry
from ..backend.registry import default as installed
from ..binding import labelled
from ..errors import EpkitError
from ..model.extract import extract
from ..partition.claims import Claims
from ..partition.cost_policy import divisions
from ..partition.costs import Costs, CostStore, CostTable, Link, device_key, signature
from ..partition.edges import edges_of
from ..partition.partitions import cut
from ..partition.pins import Pins
from ..pipeline import Source, build, stages
from ..runtime.options import RunOptions
from ..runtime.profile import Profile
from ..runtime.session import Session
from ..settings import ProviderChoice, Settings
from ..trace import Recorder
from .observe import all_values, observe

REPEATS, FEWEST, PATIENCE = 15, 3, 0.3
"""Runs for one time; the fewest, and the seconds after which they are enough."""
FLOOR = 1e-7
SIZES = (256, 4 << 20)
"""Bytes of the copies by which a link is measured."""


@dataclass(frozen=True)
class Tuned:
    """What was measured on one provider's device.

    Attributes:
        provider: its name.
        measured: number of distinct nodes.
        failed: those that could not run alone, with the reason.
        table: all that is known of the device now.
    """

    provider: str
    measured: int
    failed: Mapping[str, str]
    table: CostTable


def tune(
    source: Source,
    settings: Settings,
    feeds: Mapping[str, Any],
    *,
    registry: Registry | None = None,
    tell: Callable[[int, int, str], None] = lambda done, total, what: None,
) -> tuple[Tuned, ...]:
    """Measure a model's nodes on all providers of the settings, and keep the times for later loads.

    Args:
        source: the model.
        settings: of the load.
        feeds: inputs by name.
        registry: the plugins; by default those installed.
        tell: called with done, total and what is measured next.

    Raises:
        EpkitError: if the fallback cannot run the model.
    """
    registry = registry or installed
    expected = _expected(source, settings, registry, feeds)
    store = CostStore(knobs.CACHE_DIR.get())
    with closing(stages(source, settings, registry)) as steps:
        claims = next(value for name, value in steps if name == "claim")
        assert isinstance(claims, Claims)
        tables = [_table(store, bound) for bound in claims.bounds]
        jobs = list(_jobs(claims))
        counts, failures = [0] * len(tables), [dict[str, str]() for _ in tables]
        bench = _Bench(observe(source, settings, registry).open, claims, settings, expected)
        for done, (node, ranks) in enumerate(jobs):
            tell(done, len(jobs), f"{node.op_type} {node.name}")
            key = signature(node, node.version or claims.model.opset_imports.get(node.domain, 1))
            for rank in ranks:
                try:
                    tables[rank].seconds[key] = bench.seconds(node, rank, tables[rank])
                    counts[rank] += 1
                except EpkitError as error:
                    failures[rank][str(node.name)] = error.what
        _measure_divisions(claims, tables, settings, registry, feeds, tell)
    for table in tables:
        store.save(table)
    return tuple(
        Tuned(bound.name, count, failed, table)
        for bound, count, failed, table in zip(claims.bounds, counts, failures, tables, strict=True)
    )


def _measure_divisions(
    claims: Claims,
    tables: list[CostTable],
    settings: Settings,
    registry: Registry,
    feeds: Mapping[str, Any],
    tell: Callable[[int, int, str], None],
) -> None:
    """Time whole runs: on one provider each, then of what these times lead to."""
    graph, bounds = claims.model.graph, claims.bounds
    costs = Costs(dict(enumerate(tables)), claims.model.opset_imports)
    arguments = edges_of(graph), claims.offers[graph], bounds, costs
    for table in tables:  # of an earlier time, under other conditions
        for division in divisions(*arguments):
            table.divisions.pop(costs.division_key(division.labels) or "", None)
    for only_pure in (True, False):
        found = [d for d in divisions(*arguments) if d.measured is None and (d.is_pure or not only_pure)]
        for done, division in enumerate(found):
            tell(done, len(found), "the whole model")
            key = costs.division_key(division.labels)
            pins = Pins({str(node.name): bounds[rank].name for node, rank in division.labels.items()})
            chosen = replace(settings, optimise="none", fix={}, cache=None, pins=pins, policy="cost")
            recorder = Recorder()
            compiled = build(claims.model.clone(), chosen, registry, recorder)
            with Session(compiled, registry, recorder) as session, suppress(EpkitError):
                seconds = _median(partial(session.run, None, feeds))
                for rank in set(division.labels.values()):
                    tables[rank].divisions[key or ""] = seconds


def _expected(
    source: Source, settings: Settings, registry: Registry, feeds: Mapping[str, Any]
) -> dict[str, Any]:
    observed = observe(source, settings, registry)
    return all_values(observed, observed.reference, feeds)


def _jobs(claims: Claims) -> Iterator[tuple[ir.Node, list[int]]]:
    """One node of each signature, and who claims it by itself."""
    graph = claims.model.graph
    seen = set()
    alone = [
        {claim.nodes[0] for claim in offer.claims if len(claim.nodes) == 1} for offer in claims.offers[graph]
    ]
    for node in graph:
        key = signature(node, node.version or claims.model.opset_imports.get(node.domain, 1))
        ranks = [rank for rank, nodes in enumerate(alone) if node in nodes]
        if ranks and key not in seen:
            seen.add(key)
            yield node, ranks


def _table(store: CostStore, bound: Bound) -> CostTable:
    known: CostTable | None = None
    with suppress(EpkitError):  # a damaged file is measured anew
        known = store.load(bound)
    table = known or CostTable(device_key(bound))
    if not bound.device.host_memory:
        table.to_device, table.to_host = _links(bound)
    return table


def _links(bound: Bound) -> tuple[Link, Link]:
    """Time small and large copies in both directions."""
    times: list[list[float]] = [[], []]
    stream = bound.provider.stream(bound.device)
    try:
        for size in SIZES:
            host = np.ones(size, np.uint8)
            buffer = bound.allocator.allocate(size)
            try:
                tensor = bound.allocator.view(buffer, 0, (size,), host.dtype)

                def there(host: Any = host, tensor: Any = tensor) -> None:
                    bound.allocator.copy_in(host, tensor, stream)
                    stream.synchronize()

                def back(host: Any = host, tensor: Any = tensor) -> None:
                    bound.allocator.copy_out(tensor, host, stream)
                    stream.synchronize()

                times[0].append(_median(there))
                times[1].append(_median(back))
            finally:
                bound.allocator.free(buffer)
    finally:
        stream.close()
    first, second = (_link(*pair) for pair in times)
    return first, second


def _link(small: float, large: float) -> Link:
    per_byte = max(0.0, (large - small) / (SIZES[1] - SIZES[0]))
    return Link(max(0.0, small - per_byte * SIZES[0]), per_byte)


def _median(action: Callable[[], object]) -> float:
    action()
    times: list[float] = []
    while len(times) < REPEATS and (len(times) < FEWEST or sum(times) < PATIENCE):
        start = time.perf_counter()
        action()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


class _Bench:
    def __init__(
        self,
        open_part: Callable[[Any, tuple[ProviderChoice, ...]], Session],
        claims: Claims,
        settings: Settings,
        expected: Mapping[str, Any],
    ) -> None:
        self.open_part, self.claims, self.settings, self.expected = open_part, claims, settings, expected
        self.edges = edges_of(claims.model.graph)
        self.results = dict.fromkeys(value for value in claims.model.graph.outputs if value is not None)

    def seconds(self, node: ir.Node, rank: int, table: CostTable) -> float:
        """The time of one node on one provider."""
        bound = self.claims.bounds[rank]
        opsets = self.claims.model.opset_imports
        part = cut("part", self.edges, (node,), self.results, opsets, 0)
        proto = extract("part", part.nodes, part.inputs, part.outputs, part.opsets)
        function = self.claims.model.functions.get(node.op_identifier())
        if function is not None:
            proto.functions.append(ir.serde.serialize_function(function))
        feeds = {str(value.name): self.expected[str(value.name)] for value in part.inputs}
        choice = labelled(self.settings).get(bound.name, self.settings.fallback)
        whole, inside = self._times(proto, choice, feeds)
        if bound.device.host_memory:
            return max(FLOOR, inside)
        copies = sum(table.to_device.seconds(_size(value)) for value in feeds.values())
        copies += sum(
            table.to_host.seconds(_size(self.expected[str(v.name)]))
            for v in part.outputs
            if v.name in self.expected
        )
        host_whole, host_inside = self._times(proto, self.settings.fallback, feeds)
        return max(FLOOR, whole - copies - (host_whole - host_inside))

    def _times(
        self, proto: onnx.ModelProto, choice: ProviderChoice, feeds: Mapping[str, Any]
    ) -> tuple[float, float]:
        """Medians of a whole run, and of what its partitions took by the runtime's clock."""
        with self.open_part(proto, (choice,)) as session:
            whole = _median(lambda: session.run(None, feeds))
            inside: list[float] = []
            while len(inside) < REPEATS and (len(inside) < FEWEST or sum(inside) < PATIENCE):
                profile = Profile()
                session.run(None, feeds, RunOptions(profile=profile))
                inside.append(
                    sum(e.duration for e in profile.recorder.events if e.category == "partition") / 1e9
                )
        return whole, statistics.median(inside)


def _size(value: Any) -> int:
    return int(getattr(value, "nbytes", 0))
