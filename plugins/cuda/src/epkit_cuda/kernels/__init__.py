"""The kernels, one file a family, the best first."""

from __future__ import annotations

from epkit.backend import Kernel

from ..machine import Machine
from . import (
    attention,
    blocks,
    caches,
    codes,
    convolution,
    eight,
    formulas,
    gemv,
    grouped,
    indexing,
    integer,
    multi_head,
    ordering,
    pooling,
    portable,
    products,
    quantised,
    recurrent,
    recurrent_sources,
    resize,
    rotary,
    rows,
    scatter,
    skips,
    tensor_scatter,
    turned,
)

FAMILIES = (
    formulas,
    codes,
    blocks,
    rows,
    skips,
    rotary,
    pooling,
    indexing,
    scatter,
    tensor_scatter,
    resize,
    integer,
)

OWN = (
    blocks,
    rows,
    skips,
    rotary,
    pooling,
    indexing,
    scatter,
    tensor_scatter,
    resize,
    ordering,
    integer,
    quantised,
)
LIBRARIES = (attention, caches, turned, grouped, gemv, products, eight, convolution)
WITH_SOURCES = (*OWN, *LIBRARIES, recurrent_sources)


def all_kernels(machine: Machine, precision: str) -> list[Kernel]:
    """Every kernel, in order of preference."""
    own = [item for family in FAMILIES for item in family.KERNELS]
    libraries = (*products.product_kernels(precision), *convolution.convolution_kernels(machine, precision))
    own.append(quantised.matmul_n_bits_of(precision))
    own += attention.attention_kernels(precision)
    own += [*ordering.topk_kernels(machine), *recurrent.recurrent_kernels(precision)]
    own += [*grouped.group_query_kernels(precision), *multi_head.multi_head_kernels(precision)]
    return [*own, *libraries, *portable.kernels(machine.xp)]


def all_sources() -> list[str]:
    """Every source that the kernels launch, chains aside."""
    return [source for family in WITH_SOURCES for source in family.sources()]
