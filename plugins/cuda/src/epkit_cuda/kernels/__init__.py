"""The kernels, one file a family, the best first."""

from __future__ import annotations

from epkit.backend import Kernel

from ..machine import Machine
from . import attention, convolution, formulas, indexing, portable, products, quantised, rows

FAMILIES = (formulas, rows, attention, indexing, quantised)


def all_kernels(machine: Machine, precision: str) -> list[Kernel]:
    """Every kernel, in order of preference."""
    own = [item for family in FAMILIES for item in family.KERNELS]
    libraries = (*products.product_kernels(precision), *convolution.convolution_kernels(machine, precision))
    return [*own, *libraries, *portable.kernels(machine.xp)]
