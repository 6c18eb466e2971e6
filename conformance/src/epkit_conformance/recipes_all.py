"""The recipes of all families: importing a family declares its own."""

from __future__ import annotations

from . import recipes_indices, recipes_layers, recipes_quantised
from .recipes import RECIPES

FAMILIES = (recipes_indices, recipes_layers, recipes_quantised)

__all__ = ["FAMILIES", "RECIPES"]
