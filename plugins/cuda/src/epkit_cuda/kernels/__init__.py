"""The kernels, one file a family, the best first."""

from __future__ import annotations

from epkit.backend import Kernel

from ..machine import Machine
from . import convolution, formulas, portable, products, quantised, rows


def all_kernels(machine: Machine, precision: str) -> list[Kernel]:
    """Every kernel, in order of preference."""
    own = (*formulas.KERNELS, *rows.KERNELS, *quantised.KERNELS, *products.product_kernels(precision))
    return [*own, *convolution.convolution_kernels(machine, precision), *portable.kernels(machine.xp)]
