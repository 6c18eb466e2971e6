"""The kernels, one file a family, the best first."""

from __future__ import annotations

from epkit.backend import Kernel

from ..machine import Machine
from . import (
    attention,
    codes,
    convolution,
    formulas,
    gemv,
    indexing,
    pooling,
    portable,
    products,
    quantised,
    rotary,
    rows,
    skips,
)

FAMILIES = (formulas, codes, rows, skips, rotary, pooling, indexing)

WITH_SOURCES = (rows, skips, rotary, pooling, indexing, quantised, attention, gemv, products, convolution)


def all_kernels(machine: Machine, precision: str) -> list[Kernel]:
    """Every kernel, in order of preference."""
    own = [item for family in FAMILIES for item in family.KERNELS]
    libraries = (*products.product_kernels(precision), *convolution.convolution_kernels(machine, precision))
    own.append(quantised.matmul_n_bits_of(precision))
    return [*own, *attention.attention_kernels(precision), *libraries, *portable.kernels(machine.xp)]


def all_sources() -> list[str]:
    """Every source that the kernels launch, chains aside."""
    return [source for family in WITH_SOURCES for source in family.sources()]
