"""Fusion rules, one file a family. ``RULES`` lists them in the order in which they are tried."""

from __future__ import annotations

from ..rule import Rule
from . import (
    activation,
    attention,
    attention_forms,
    attention_rows,
    convolution,
    embedding,
    gelu,
    heads,
    normalization,
    qlinear,
    qmoved,
    quantized,
    rotary,
)

RULES: tuple[Rule, ...] = (
    *gelu.RULES,
    *normalization.RULES,
    *embedding.RULES,
    *normalization.SKIP_RULES,
    *rotary.RULES,
    *attention_forms.RULES,
    *attention_rows.RULES,
    *attention.RULES,
    *heads.RULES,
    *activation.RULES,
    *qmoved.RULES,
    *quantized.RULES,
    *qlinear.RULES,
    *convolution.RULES,
)
