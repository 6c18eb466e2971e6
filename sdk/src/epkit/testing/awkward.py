"""Providers that claim awkward sets of nodes, to try the partitioner with.

    epkit.register(awkward("odd", every_other(1)))
    session = epkit.load(model, providers=["odd"])

They compute on the host with the portable kernels, so results are right whatever they claim. What to claim is
decided by a *picker*: a function from a graph to groups of its nodes. Groups of one are claimed one by one;
larger ones are claimed whole or not at all, and nothing keeps a picker from naming groups that no partitioner
can accept: not convex, overlapping, or depending on each other in a cycle.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ..backend.claim import Claim, Refusal
from ..backend.device import Device, Devices
from ..backend.kernel import KernelTable
from ..backend.kernel_provider import KernelProvider
from ..backend.portable import portable_kernels
from ..backend.subgraph import Subgraph

if TYPE_CHECKING:
    import onnx_ir as ir

Group = tuple["ir.Node", ...]
Picker = Callable[[Subgraph], Iterable[Group]]


class AwkwardProvider(KernelProvider):
    """Claims what its picker names, as far as there are kernels for it; see :func:`awkward`."""

    version = "1.0"
    pick: ClassVar[Picker]

    def devices(self) -> Devices:
        return Devices((Device(f"{self.name}:0", "toy", "claims awkward sets of nodes"),))

    @cached_property
    def table(self) -> KernelTable:
        return KernelTable(portable_kernels(np))

    def claim(self, graph: Subgraph) -> Iterable[Claim | Refusal]:
        return claim_groups(self, type(self).pick, graph)


def awkward(name: str, pick: Picker) -> type[AwkwardProvider]:
    """A provider class of that name which claims what ``pick`` names."""
    return type(name, (AwkwardProvider,), {"name": name, "pick": staticmethod(pick)})


def claim_groups(provider: KernelProvider, pick: Picker, graph: Subgraph) -> Iterator[Claim | Refusal]:
    """Claims for the groups whose every node has a kernel, refusals with reasons for all other nodes."""
    problems = {
        node: found for node in graph.nodes if isinstance(found := provider.table.find(node, graph), Refusal)
    }
    groups = [group for group in map(tuple, pick(graph)) if group and problems.keys().isdisjoint(group)]
    yield from map(Claim, groups)
    claimed = {node for group in groups for node in group}
    for node in graph.nodes:
        if node not in claimed:
            yield problems.get(node) or Refusal(node, "cost", f"{provider.name} did not pick {node.name}")


# ---- pickers: single nodes ----


def everything(graph: Subgraph) -> Iterator[Group]:
    """Every node by itself."""
    return ((node,) for node in graph.nodes)


def every_other(first: int = 0) -> Picker:
    """Every second node in the order of the graph, so that no two neighbours in a chain meet."""
    return lambda graph: ((node,) for node in graph.nodes[first::2])


def named(*names: str) -> Picker:
    """The nodes of these names."""
    return lambda graph: ((node,) for node in graph.nodes if node.name in names)


def inside_control_flow(graph: Subgraph) -> Iterator[Group]:
    """Nodes in bodies of If, Loop and Scan, and none of the main graph."""
    return everything(graph) if graph.depth > 0 else iter(())


def one_branch(index: int = 0) -> Picker:
    """Of each value with several users, the user number ``index`` and what only it leads to: one branch
    of a diamond.
    """

    def pick(graph: Subgraph) -> Iterator[Group]:
        shown = set(graph.nodes)
        branch: set[ir.Node] = set()
        for node in graph.nodes:
            users = [user for value in node.outputs for user in value.consumers() if user in shown]
            if len(users) > index + 1:
                branch.add(users[index])
            if node in branch and len(users) == 1 and len(_producers(users[0])) == 1:
                branch.add(users[0])
        return ((node,) for node in graph.nodes if node in branch)

    return pick


def _producers(node: ir.Node) -> set[ir.Node]:
    return {
        producer for value in node.inputs if value is not None and (producer := value.producer()) is not None
    }


def by_chance(seed: int, share: float = 0.5) -> Picker:
    """Each node with a probability; the same in every process."""

    def pick(graph: Subgraph) -> Iterator[Group]:
        rng = _rng(seed, graph)
        return iter([(node,) for node in graph.nodes if rng.random() < share])

    return pick


# ---- pickers: groups ----


def ends(graph: Subgraph) -> Iterator[Group]:
    """The first and the last node as one group, which is not convex wherever something lies between them."""
    if len(graph.nodes) > 1:
        yield (graph.nodes[0], graph.nodes[-1])


def chains(length: int) -> Picker:
    """Consecutive nodes in groups of ``length``: convex, since the graph's order is topological."""
    return lambda graph: (graph.nodes[at : at + length] for at in range(0, len(graph.nodes), length))


def overlapping(length: int = 3) -> Picker:
    """Groups of ``length`` consecutive nodes that each share a node with the next."""
    return lambda graph: (
        graph.nodes[at : at + length] for at in range(0, len(graph.nodes), max(1, length - 1))
    )


def interleaved(count: int = 2) -> Picker:
    """``count`` groups that take turns: each may be convex by itself, and yet they may form a cycle together."""
    return lambda graph: (graph.nodes[at::count] for at in range(count))


def groups_by_chance(seed: int, groups: int = 4, largest: int = 4) -> Picker:
    """Random groups, which may overlap, have holes, or depend on each other in cycles; and some single nodes."""

    def pick(graph: Subgraph) -> Iterator[Group]:
        rng = _rng(seed, graph)
        for _ in range(groups):
            size = min(rng.randint(1, largest), len(graph.nodes))
            yield tuple(rng.sample(graph.nodes, size))
        yield from ((node,) for node in graph.nodes if rng.random() < 0.25)

    return pick


def several(*pickers: Picker) -> Picker:
    """What each of the pickers names, one after the other."""

    def pick(graph: Subgraph) -> Iterator[Group]:
        for each in pickers:
            yield from each(graph)

    return pick


def fixed(groups: Sequence[Sequence[str]]) -> Picker:
    """Groups of nodes by name; a group of which a node is missing from the graph is left out."""

    def pick(graph: Subgraph) -> Iterator[Group]:
        nodes = {node.name: node for node in graph.nodes}
        for names in groups:
            if all(name in nodes for name in names):
                yield tuple(nodes[name] for name in names)

    return pick


def _rng(seed: int, graph: Subgraph) -> random.Random:
    """Seeded by text, because hashes of text and of objects differ between processes."""
    return random.Random(f"{seed} {graph.name} {len(graph.nodes)}")
