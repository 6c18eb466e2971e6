"""Names that are not taken yet, and those of the nodes that a fused one stands for."""

from __future__ import annotations

from collections.abc import Container, Iterable

import onnx_ir as ir

PARTS = "epkit.parts"
"""Metadata of a fused node: the names of the nodes that it stands for, one a line."""


def join_parts(nodes: Iterable[ir.Node]) -> str:
    """The names of nodes, of fused ones those of their parts, as PARTS holds them."""
    names = (name for node in nodes for name in parts_of(node) or (str(node.name),))
    return "\n".join(dict.fromkeys(names))


def parts_of(node: ir.Node) -> tuple[str, ...]:
    """The names of the nodes that a fused one stands for; empty for any other."""
    return tuple(node.metadata_props.get(PARTS, "").splitlines())


def free_name(stem: str, taken: Container[str]) -> str:
    """`stem` itself if free, else the first free of stem_1, stem_2, ..."""
    name, count = stem, 0
    while name in taken:
        count += 1
        name = f"{stem}_{count}"
    return name
