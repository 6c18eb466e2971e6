"""Operators by family: what the machine takes of each, and how it becomes commands."""

from __future__ import annotations

from collections.abc import Mapping

from ..unit import Family
from . import conv, elementwise, matmul, movement, normalize, pool

FAMILIES: Mapping[str, Family] = {
    **conv.FAMILIES,
    **matmul.FAMILIES,
    **elementwise.FAMILIES,
    **pool.FAMILIES,
    **normalize.FAMILIES,
    **movement.FAMILIES,
}
"""By operator name; names of other domains without their prefix."""
