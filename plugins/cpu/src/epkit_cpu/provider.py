"""The provider: kernels in order of preference."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, cached_property

import numpy as np

from epkit.backend import (
    CustomOperator,
    Devices,
    Kernel,
    KernelProvider,
    KernelTable,
    custom_kernels,
    portable_kernels,
)

from .device import find_devices
from .kernels import KERNELS


class CpuProvider(KernelProvider):
    """Runs every operator that has a portable meaning; the others through their function bodies."""

    name = "cpu"
    version = "0.1.0"

    def __init__(self, options: object = None) -> None:
        super().__init__(options)
        self._custom: tuple[CustomOperator, ...] = ()

    def devices(self) -> Devices:
        return find_devices()

    def add_operators(self, operators: Sequence[CustomOperator]) -> None:
        self._custom = tuple(operators)

    @cached_property
    def table(self) -> KernelTable:
        return KernelTable((*custom_kernels(np, self._custom), *standard_kernels()))


@cache
def standard_kernels() -> tuple[Kernel, ...]:
    """The kernels of the standard's operators; made once for the process."""
    return (*KERNELS, *portable_kernels(np))
