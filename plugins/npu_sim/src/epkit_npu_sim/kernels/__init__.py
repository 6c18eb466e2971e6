"""Operators by family: what the machine takes of each, and how it becomes commands."""

from __future__ import annotations

from collections.abc import Mapping

from ..unit import Family
from . import elementwise, movement, normalize, pool, product

FAMILIES: Mapping[str, Family] = {
    **product.FAMILIES,
    **elementwise.FAMILIES,
    **pool.FAMILIES,
    **normalize.FAMILIES,
    **movement.FAMILIES,
}
"""By operator name; names of other domains without their prefix."""
