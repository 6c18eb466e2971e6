"""A provider's answer to "what can you run?": claims, and refusals with reasons."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx_ir as ir

REFUSAL_CODES = {
    "no-kernel": "the provider has no kernel for this operator",
    "opset": "it has one, for other versions of the operator",
    "dtype": "an input or output has an element type that the kernel does not take",
    "attribute": "an attribute has a value that the kernel does not take",
    "shape": "a shape does not fit the kernel",
    "dynamic-shape": "a dimension is symbolic and the device needs it fixed",
    "constant": "an input must be known at compile time and is not",
    "cost": "it could, but elsewhere is cheaper",
    "group": "it was claimed only together with nodes that went elsewhere, or around a node that did",
    "pinned": "the application placed the node elsewhere",
    "quarantined": "the provider failed at the node, or computed it wrong, and the session moved it",
    "fused": "a function call that was refused as a whole; its body is offered instead",
    "provider-error": "the provider raised while it was asked",
    "unexplained": "the provider neither claimed nor refused the node",
}
"""Every code a refusal may carry, with its meaning."""


@dataclass(frozen=True)
class Claim:
    """Nodes that the provider can run.

    A claim of one node may be merged with others of the same provider. A claim of several nodes is
    taken whole or not at all. ``cost`` is an estimate in seconds for one run, for the cost policy.
    """

    nodes: tuple[ir.Node, ...]
    cost: float | None = None


@dataclass(frozen=True)
class Refusal:
    """Why a node was looked at and left.

    Attributes:
        node: the node.
        code: one of REFUSAL_CODES.
        reason: a sentence for people, with the actual values.
        constraint: what the provider needs, for programs, such as ``"T in float32"``.
        actual: what the node has, such as ``"float16"``.
    """

    node: ir.Node
    code: str
    reason: str
    constraint: str = ""
    actual: str = ""

    def __post_init__(self) -> None:
        if self.code not in REFUSAL_CODES:
            raise ValueError(f"{self.code!r} is not a refusal code; the codes are {', '.join(REFUSAL_CODES)}")
