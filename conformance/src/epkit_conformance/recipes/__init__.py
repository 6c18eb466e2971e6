"""Inputs, attributes and exact results for every deterministic operator: the material of the generated cases.

A recipe takes an operator, its version, an element type and a generator of random numbers. Results are computed
in long double where the type is float64, else in double, by formulas of their own. One file a family.
"""

from __future__ import annotations

from . import (
    attention,
    control,
    elementwise,
    images,
    indices,
    layers,
    losses,
    movement,
    normalisations,
    products,
    quantised,
    reductions,
    sequences,
    signals,
    text,
    windows,
)
from .trial import RECIPES, Maybe, Recipe, Trial, wide

FAMILIES = (
    *(attention, control, elementwise, images, indices, layers, losses, movement, normalisations, products),
    *(quantised, reductions, sequences, signals, text, windows),
)

__all__ = ["FAMILIES", "RECIPES", "WITHOUT", "Maybe", "Recipe", "Trial", "wide"]

WITHOUT = {
    **dict.fromkeys(
        (
            "Bernoulli",
            "Multinomial",
            "RandomNormal",
            "RandomNormalLike",
            "RandomUniform",
            "RandomUniformLike",
        ),
        "its results are left to chance; the published cases ask for shape, type and range",
    ),
    "Constant": "it becomes a weight when a model is read, so that no provider meets one",
}
"""Operators without a recipe, and why."""
