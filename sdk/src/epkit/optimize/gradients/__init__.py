"""Reverse-mode differentiation of ONNX operators: one rule for each, as maths over ``Term``.

A rule is a function of a ``Step`` (the node and the gradients of its outputs) that returns the gradients of
the node's inputs, None where an input has none. Rules build operators that have rules themselves, so a
gradient can be differentiated again. To add an operator, write its rule into the file of its family.
"""

from __future__ import annotations

from . import convolution, layout, matrix, pick, pointwise, reduction
from .meanings import MEANINGS
from .step import Grads, NoRule, Rule, Step
from .term import Builder, Term

RULES: dict[str, Rule] = {
    **pointwise.RULES,
    **matrix.RULES,
    **layout.RULES,
    **pick.RULES,
    **reduction.RULES,
    **convolution.RULES,
}
"""Rules by operator of the default domain."""

__all__ = ["MEANINGS", "RULES", "Builder", "Grads", "NoRule", "Rule", "Step", "Term"]
