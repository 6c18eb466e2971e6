"""The drawing on the page of ``epkit explain --html``: every node, and folded, a chain being one box."""

from __future__ import annotations

import html
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import onnx_ir as ir

from ..backend.subgraph import describe_value
from ..partition.edges import Edges, edges_of
from ..partition.placement import NodePlacement
from ._layout import lay_out

WIDTH, HEIGHT, GAP_X, GAP_Y = 168, 36, 26, 26

MANY = 60
"""A graph of more nodes is shown folded at first."""

Rows = Mapping[tuple[str, str], NodePlacement]


def draw(graph: ir.Graph, rows: Rows, colours: Mapping[str, str], times: Mapping[str, float]) -> str:
    """A graph with its title: all nodes, and folded if that makes it smaller."""
    edges, name = edges_of(graph), str(graph.name)
    of = {node: rows[name, str(node.name)] for node in edges.order}
    whole = _svg([(node,) for node in edges.order], edges, of, colours, times)
    chains = chains_of(edges, of)
    views = [("all nodes", whole)]
    if len(chains) < len(edges.order):
        views.append((f"folded: {len(chains)} boxes", _svg(chains, edges, of, colours, times)))
    first = len(views) - 1 if len(edges.order) > MANY else 0
    drawn = "".join(
        f'<div class="drawing" data-view="{html.escape(title)}"{"" if place == first else " hidden"}>{svg}</div>'
        for place, (title, svg) in enumerate(views)
    )
    return f'<section class="graph"><h2>graph {html.escape(name)}</h2>{drawn}</section>'


def chains_of(edges: Edges, rows: Mapping[ir.Node, NodePlacement]) -> list[tuple[ir.Node, ...]]:
    """The nodes in order, those together that follow each other without a branch in one partition."""
    users: Counter[ir.Node] = Counter(p for node in edges.order for p in edges.producers[node])
    chains: dict[ir.Node, list[ir.Node]] = {}
    for node in edges.order:
        before = edges.producers[node]
        last = before[0] if len(before) == 1 and users[before[0]] == 1 else None
        if last is not None and _alike(rows[last], rows[node]):
            chains[node] = chains[last]
            chains[node].append(node)
        else:
            chains[node] = [node]
    return [tuple(chain) for node, chain in chains.items() if chain[0] is node]


def _alike(one: NodePlacement, other: NodePlacement) -> bool:
    return one.provider == other.provider and one.partition == other.partition


def _svg(
    boxes: Sequence[tuple[ir.Node, ...]],
    edges: Edges,
    rows: Mapping[ir.Node, NodePlacement],
    colours: Mapping[str, str],
    times: Mapping[str, float],
) -> str:
    owner = {node: box for box in boxes for node in box}
    producers = {
        box: list(dict.fromkeys(owner[p] for node in box for p in edges.producers[node] if owner[p] != box))
        for box in boxes
    }
    layout = lay_out(boxes, producers)
    width = layout.columns * (WIDTH + GAP_X) + GAP_X
    height = layout.layers * (HEIGHT + GAP_Y) + GAP_Y
    centre = {
        box: (GAP_X + x * (WIDTH + GAP_X) + WIDTH / 2, GAP_Y + layer * (HEIGHT + GAP_Y))
        for box, (x, layer) in layout.places.items()
    }
    drawn = [
        _edge(centre[source], centre[box], rows[source[-1]], rows[box[0]])
        for box in boxes
        for source in producers[box]
    ]
    drawn += [_box(box, centre[box], [rows[node] for node in box], colours, times) for box in boxes]
    return (
        f'<svg width="{width:.0f}" height="{height:.0f}" '
        f'viewBox="0 0 {width:.0f} {height:.0f}" role="img">{"".join(drawn)}</svg>'
    )


def _edge(
    start: tuple[float, float], end: tuple[float, float], one: NodePlacement, other: NodePlacement
) -> str:
    (x1, y1), (x2, y2) = (start[0], start[1] + HEIGHT), end
    bend = max(14.0, (y2 - y1) / 2)
    kind = "moves" if one.provider != other.provider else "edge"
    return (
        f'<path class="{kind}" d="M{x1:.0f} {y1:.0f}C{x1:.0f} {y1 + bend:.0f} '
        f'{x2:.0f} {y2 - bend:.0f} {x2:.0f} {y2:.0f}"/>'
    )


def _box(
    nodes: tuple[ir.Node, ...],
    centre: tuple[float, float],
    rows: Sequence[NodePlacement],
    colours: Mapping[str, str],
    times: Mapping[str, float],
) -> str:
    x, y = centre[0] - WIDTH / 2, centre[1]
    spent = [times[row.node] for row in rows if row.node in times]
    told = [_details(node, row, times.get(row.node)) for node, row in zip(nodes, rows, strict=True)]
    colour = colours[rows[0].provider]
    below = f'<rect x="4" y="4" width="{WIDTH}" height="{HEIGHT}" rx="6" fill="{colour}" opacity=".45"/>'
    below = below if len(rows) > 1 else ""
    first, second = _label(rows)
    second = f"{second}, {sum(spent):.3g} ms" if spent and len(rows) > 1 else second
    second = f"{spent[0]:.3g} ms" if spent and len(rows) == 1 else second
    refused = '<circle class="no" cx="160" cy="8" r="3.5"/>' if any(row.refused for row in rows) else ""
    return (
        f'<g class="{"node" if len(rows) == 1 else "node chain"}" tabindex="0" '
        f'transform="translate({x:.0f} {y:.0f})" data-told="{html.escape(json.dumps(told), quote=True)}">'
        f'{below}<rect width="{WIDTH}" height="{HEIGHT}" rx="6" fill="{colour}"/>'
        f'<text x="8" y="15" class="op">{html.escape(first)}</text>'
        f'<text x="8" y="29" class="name">{html.escape(second)}</text>{refused}</g>'
    )


def _label(rows: Sequence[NodePlacement]) -> tuple[str, str]:
    """The two lines of a box: operator and name, or the first and last operator and how many."""
    names = [row.operator.rpartition(".")[2] for row in rows]
    if len(rows) == 1:
        (row,) = rows
        return names[0][:24], row.node if len(row.node) < 24 else "…" + row.node[-22:]
    return f"{_short(names[0])} … {_short(names[-1])}", f"{len(rows)} nodes"


def _short(name: str) -> str:
    return name if len(name) < 10 else name[:8] + "."


def _details(node: ir.Node, row: NodePlacement, spent: float | None) -> dict[str, Any]:
    return {
        "node": row.node,
        "operator": row.operator,
        "parts": list(row.parts),
        "provider": row.provider + (" (fallback)" if row.fallback else ""),
        "partition": row.partition,
        "reads": [describe_value(value) for value in node.inputs if value is not None],
        "writes": [describe_value(value) for value in node.outputs if value is not None],
        "time": None if spent is None else f"{spent:.4g} ms",
        "refused": [
            {"by": r.provider, "code": r.code, "reason": r.reason, "needs": r.constraint, "has": r.actual}
            for r in row.refused
        ],
    }
