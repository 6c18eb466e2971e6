"""Asking the providers: each is shown each graph, and answers with claims and refusals.

A node that is a call of a function is offered whole first. Where no provider takes it, its body
replaces it and is offered instead; so is the body of a model-local function that a preferred provider
refused but of whose parts it would run some. Fusing therefore never costs coverage.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from ..backend.bound import Bound
from ..backend.claim import Claim, Refusal
from ..backend.custom import CustomOperator
from ..backend.subgraph import Subgraph, opset_of, subgraph_of
from ..errors import BrokenProviderError, InvalidModelError, Where
from ..model.infer import infer
from ..model.inline import inline_call, schema_function
from ..model.walk import all_graphs, bodies, is_control_flow
from .offers import Offer, leave_bodies
from .pins import NO_PINS, Pins


@dataclass(frozen=True)
class Claims:
    """The answers of all providers for all graphs of a model, bodies of control flow included.

    Attributes:
        custom: operators outside the standard, some of which expand to functions.
        pins: nodes that may run on one provider only; the offers hold no other claims of them.
    """

    model: ir.Model
    bounds: tuple[Bound, ...]
    offers: Mapping[ir.Graph, tuple[Offer, ...]]
    custom: tuple[CustomOperator, ...] = ()
    pins: Pins = NO_PINS

    def __str__(self) -> str:
        lines = [f"{len(self.offers)} graphs, {len(self.bounds)} providers"]
        for graph, offers in self.offers.items():
            lines.append(f"graph {graph.name!r}: {len(graph)} nodes")
            for bound, offer in zip(self.bounds, offers, strict=True):
                lines.append(f"  {bound.name}: claims {len(offer.claimed)}, refuses {len(offer.refusals)}")
                lines += [f"    - {node.name}: [{r.code}] {r.reason}" for node, r in offer.refusals.items()]
        return "\n".join(lines)


def collect_claims(
    model: ir.Model, bounds: Sequence[Bound], custom: Sequence[CustomOperator] = (), pins: Pins = NO_PINS
) -> Claims:
    """Ask every provider about every graph, inlining function calls as described above (changes ``model``).

    Raises:
        BrokenProviderError: if a provider raises in ``claim`` or claims what it was not shown.
    """
    while True:
        claims = _ask(model, tuple(bounds), tuple(custom), pins)
        calls = _calls_to_inline(claims)
        if not calls:
            return claims
        inline_nodes(model, calls, claims.custom)


def inline_nodes(
    model: ir.Model, calls: Sequence[ir.Node], custom: Sequence[CustomOperator] = ()
) -> dict[ir.Node, list[ir.Node]]:
    """Replace call nodes by the bodies of their functions, and infer the types inside.

    Returns:
        The new nodes of each call.
    """
    names = {
        value.name
        for graph in all_graphs(model.graph)
        for node in graph
        for value in node.outputs
        if value.name
    }
    made = {}
    for node in calls:
        function = function_of(model, node, custom)
        assert function is not None and isinstance(node.graph, ir.Graph)
        made[node] = inline_call(node.graph, node, function, names)
    infer(model)
    return made


def function_of(model: ir.Model, node: ir.Node, custom: Sequence[CustomOperator] = ()) -> ir.Function | None:
    """The function that a node calls: the model's own, or the one that its package or its schema gives.

    Raises:
        InvalidModelError: if the package cannot expand this node.
    """
    local = model.functions.get(node.op_identifier())
    if local is not None or is_control_flow(node):
        return local
    opset = opset_of(node, model.opset_imports)
    same = [item for item in custom if (item.domain, item.name) == (node.domain, node.op_type)]
    meant = max((item for item in same if item.since <= opset), key=lambda item: item.since, default=None)
    if meant is None or meant.expand is None:
        return schema_function(node, opset)
    try:
        return meant.expand(node, model.opset_imports)
    except ValueError as error:
        raise InvalidModelError(
            f"Node {node.name!r} ({node.op_type}) cannot run as the nodes that it stands for: {error}.",
            where=Where(node=node.name or ""),
            remedy="change the node, or name a provider that runs it whole",
        ) from error


def _ask(
    model: ir.Model,
    bounds: tuple[Bound, ...],
    custom: tuple[CustomOperator, ...] = (),
    pins: Pins = NO_PINS,
) -> Claims:
    offers = {}
    for depth, graph in _with_depth(model.graph, 0):
        view = subgraph_of(graph, model.opset_imports, depth)
        offers[graph] = tuple(_restricted(_offer(bound, view), bound, pins) for bound in bounds)
    return Claims(model, bounds, leave_bodies(offers, bounds), custom, pins)


def _restricted(offer: Offer, bound: Bound, pins: Pins) -> Offer:
    """The offer without the claims that pins exclude; their nodes are refused with that reason."""
    if not pins:
        return offer
    excluded = {claim: found for claim in offer.claims if (found := pins.exclude(claim, bound.name))}
    if not excluded:
        return offer
    kept = tuple(claim for claim in offer.claims if claim not in excluded)
    claimed = {node for claim in kept for node in claim.nodes}
    lost = {why.node: why for found in excluded.values() for why in found if why.node not in claimed}
    return Offer(kept, {**offer.refusals, **lost})


def _with_depth(graph: ir.Graph, depth: int) -> Iterator[tuple[int, ir.Graph]]:
    yield depth, graph
    for node in graph:
        for _, body in bodies(node) if node.attributes.data else ():
            yield from _with_depth(body, depth + 1)


def _offer(bound: Bound, view: Subgraph) -> Offer:
    shown = set(view.nodes)
    claims: list[Claim] = []
    refusals: dict[ir.Node, Refusal] = {}
    where = Where(provider=bound.name, stage="claim")
    try:
        answers = list(bound.provider.claim(view))
    except Exception as error:
        raise BrokenProviderError(
            f"provider {bound.name!r} failed in claim: {type(error).__name__}: {error}",
            where=where,
            remedy=f"report this to the maker of the plugin, or leave {bound.name!r} out of providers",
        ) from error
    for answer in answers:
        if isinstance(answer, Claim) and answer.nodes and shown.issuperset(answer.nodes):
            claims.append(answer)
        elif isinstance(answer, Refusal) and answer.node in shown:
            refusals.setdefault(answer.node, answer)
        else:
            raise BrokenProviderError(
                f"provider {bound.name!r} answered claim with {answer!r}",
                where=where,
                remedy="claim must yield Claim and Refusal objects about the nodes of the graph it was given",
            )
    return _explained(Offer(tuple(claims), refusals), bound, view)


def _explained(offer: Offer, bound: Bound, view: Subgraph) -> Offer:
    """Every node that is not claimed gets a refusal; a claimed one keeps none."""
    claimed = offer.claimed
    refusals = {}
    for node in view.nodes if len(claimed) < len(view.nodes) else ():
        if node not in claimed:
            silent = Refusal(node, "unexplained", f"{bound.name} gave no reason")
            refusals[node] = offer.refusals.get(node, silent)
    return Offer(offer.claims, refusals)


def _calls_to_inline(claims: Claims) -> list[ir.Node]:
    claimed = frozenset[ir.Node]().union(
        *(offer.claimed for offers in claims.offers.values() for offer in offers)
    )
    unclaimed = [
        node
        for graph in (claims.offers if len(claimed) < sum(map(len, claims.offers)) else ())
        for node in graph
        if node not in claimed
        and not is_control_flow(node)
        and function_of(claims.model, node, claims.custom) is not None
    ]
    return unclaimed or _wanted_in_parts(claims)


def _wanted_in_parts(claims: Claims) -> list[ir.Node]:
    """Calls of model-local functions, refused by a preferred provider that would take parts of the body."""
    refused: dict[int, list[str]] = {}
    for offers in claims.offers.values():
        for rank, offer in enumerate(offers):
            later = [other.claimed for other in offers[rank + 1 :]]
            for node in offer.refusals:
                local = node.op_identifier() in claims.model.functions
                if local and node.name and any(node in taken for taken in later):
                    refused.setdefault(rank, []).append(node.name)
    for rank, names in refused.items():
        wanted = _try_inlined(claims, claims.bounds[rank], names)
        if wanted:
            return wanted
    return []


def _try_inlined(claims: Claims, bound: Bound, names: list[str]) -> list[ir.Node]:
    """Of the named calls, those of whose bodies the provider claims something; tried on a copy.

    Bodies may hold calls, whose bodies are tried in turn.
    """
    copy = claims.model.clone()
    by_name = {node.name: node for graph in all_graphs(copy.graph) for node in graph}
    pending = {by_name[name]: name for name in names}
    wanted: set[str] = set()
    while pending:
        inner = {
            new: pending[node]
            for node, made in inline_nodes(copy, list(pending), claims.custom).items()
            for new in made
        }
        answer = _ask(copy, (bound,), pins=claims.pins)
        claimed = {node for offers in answer.offers.values() for node in offers[0].claimed}
        wanted |= {name for node, name in inner.items() if node in claimed}
        pending = {
            node: name
            for node, name in inner.items()
            if name not in wanted and node.op_identifier() in copy.functions
        }
    return [node for graph in claims.offers for node in graph if node.name in wanted]
