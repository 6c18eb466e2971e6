"""The kernels, one file a family."""

from __future__ import annotations

from dataclasses import replace

from epkit.backend import Kernel

from ..device import Limits
from . import (
    activations,
    arithmetic,
    attention,
    convolution,
    indexing,
    integer,
    layer_norm,
    matmul,
    movement,
    normalize,
    ordering,
    pooling,
    quantise,
    recurrent,
    reduce,
    sampling,
    scatter,
    views,
)
from .half import with_halves

FAMILIES = (
    arithmetic, activations, views, movement, indexing, scatter, matmul, convolution, pooling, reduce, normalize,
    layer_norm, attention, sampling, ordering, recurrent, quantise, integer,
)  # fmt: skip


def all_kernels(limits: Limits) -> list[Kernel]:
    """Every kernel, with the element types that the device has."""
    absent = {
        name
        for name, there in (("float64", limits.fp64), ("int64", limits.int64), ("uint64", limits.int64))
        if not there
    }
    found = with_halves([kernel for family in FAMILIES for kernel in family.KERNELS])
    if not limits.int64_atomics:
        found = [_without_wide_atomics(kernel) for kernel in found]
    return [_without(kernel, absent) for kernel in found]


def _without_wide_atomics(kernel: Kernel) -> Kernel:
    if kernel not in scatter.KERNELS or not kernel.types:
        return kernel
    return replace(kernel, types={**kernel.types, "T": kernel.types["T"] - {"int64"}})


def _without(kernel: Kernel, absent: set[str]) -> Kernel:
    if not absent or not kernel.types or kernel.op_type in views.NAMES:
        return kernel
    return replace(kernel, types={name: allowed - absent for name, allowed in kernel.types.items()})
