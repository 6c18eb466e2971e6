"""Fusion rules, one file a family. ``RULES`` lists them in the order in which they are tried."""

from __future__ import annotations

from ..fuse import Fusion
from . import gelu, normalization

RULES: tuple[Fusion, ...] = (*gelu.RULES, *normalization.RULES)
