"""Operators outside the standard, as applications and operator packages declare them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import onnx.defs


@dataclass(frozen=True)
class CustomOperator:
    """An operator outside the standard: its meaning, and optionally its schema.

    Attributes:
        domain, name, since: the operator; ``since`` is a version of the domain.
        function: a portable implementation, see ``epkit.kernels.operator``: ``f(xp, *inputs, **attributes)``.
        schema: type and shape rules; without one, its outputs have unknown types until run time.
    """

    domain: str
    name: str
    function: Callable[..., Any]
    since: int = 1
    schema: onnx.defs.OpSchema | None = None
