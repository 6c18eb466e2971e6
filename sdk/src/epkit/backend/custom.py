"""Operators outside the standard, as applications and operator packages declare them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import onnx.defs
    import onnx_ir as ir


@dataclass(frozen=True)
class CustomOperator:
    """An operator outside the standard: its meaning, and optionally its schema.

    Attributes:
        domain, name, since: the operator; ``since`` is a version of the domain.
        function: a portable implementation, see ``epkit.kernels.operator``: ``f(xp, *inputs, **attributes)``.
        schema: type and shape rules; without one, its outputs have unknown types until run time.
        expand: gives the function whose body takes the place of a node that no provider claims whole, from the
            node and the model's opset versions by domain: the way to give an operator with subgraphs a meaning.
            The body may hold clones of the node's subgraphs (`ir.Graph.clone`) and read outer values as they do.
            Raises ValueError for a node that cannot be expanded. May be called several times for one node.
    """

    domain: str
    name: str
    function: Callable[..., Any]
    since: int = 1
    schema: onnx.defs.OpSchema | None = None
    expand: Callable[[ir.Node, Mapping[str, int]], ir.Function] | None = None
