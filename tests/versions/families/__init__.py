"""The generators, one file per family of operators; importing this declares them all."""

from __future__ import annotations

from . import (
    attention,
    binary,
    chance,
    classical,
    control,
    image,
    index,
    learning,
    make,
    product,
    recurrent,
    reduce,
    sequence,
    shape,
    signal,
    unary,
    window,
)

__all__ = [
    "attention",
    "binary",
    "chance",
    "classical",
    "control",
    "image",
    "index",
    "learning",
    "make",
    "product",
    "recurrent",
    "reduce",
    "sequence",
    "shape",
    "signal",
    "unary",
    "window",
]
