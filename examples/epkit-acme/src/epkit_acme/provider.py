"""acme: a whole execution provider. A few float32 operators, computed by NumPy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from epkit.backend import Device, Devices, KernelProvider, KernelTable, Provider, hookimpl, kernel

FLOAT = {"T": {"float32"}}

IEEE_754 = np.errstate(all="ignore")
"""Infinity and not-a-number are results like any other: NumPy need not warn of them."""


@kernel("Add", since=7, types=FLOAT)
@IEEE_754
def add(a: Any, b: Any) -> Any:
    return a + b


@kernel("Mul", since=7, types=FLOAT)
@IEEE_754
def mul(a: Any, b: Any) -> Any:
    return a * b


@kernel("Relu", since=6, types=FLOAT)
@IEEE_754
def relu(x: Any) -> Any:
    return np.maximum(x, np.float32(0))


@kernel("Sigmoid", since=6, types=FLOAT)
@IEEE_754
def sigmoid(x: Any) -> Any:
    return np.float32(0.5) * (np.tanh(np.float32(0.5) * x) + np.float32(1))


@kernel("Tanh", since=6, types=FLOAT)
@IEEE_754
def tanh(x: Any) -> Any:
    return np.tanh(x)


def matrices(node: Any) -> bool | str:
    """True, or the reason why not: the placement report shows it."""
    ranks = [None if value.shape is None else len(value.shape) for value in node.inputs]
    return ranks == [2, 2] or f"acme multiplies matrices only, found ranks {ranks}"


@kernel("MatMul", types=FLOAT, when=matrices)
@IEEE_754
def matmul(a: Any, b: Any) -> Any:
    return a @ b


@kernel("MatMul", types=FLOAT, when=matrices)
@IEEE_754
def precise_matmul(a: Any, b: Any) -> Any:
    return np.matmul(a, b, dtype=np.float64).astype(np.float32)


@dataclass(frozen=True)
class Options:
    """Given as ``("acme", {"precise": True})``, or ``--provider acme:precise=true``."""

    precise: bool = False


class AcmeProvider(KernelProvider):
    name = "acme"
    version = "0.1.0"
    Options = Options

    def devices(self) -> Devices:
        # Where the hardware is missing: Devices((), "why", "what the user can do").
        return Devices((Device("acme:0", "example", "a device that every machine has"),))

    @cached_property
    def table(self) -> KernelTable:
        product = precise_matmul if self.options.precise else matmul
        return KernelTable([add, mul, relu, sigmoid, tanh, product])


@hookimpl
def epkit_providers() -> Sequence[type[Provider]]:
    return [AcmeProvider]
