"""The door for plugin authors. Everything that a plugin may import is named here."""

from __future__ import annotations

from ..dtypes import ALL, BOOL, FLOATS, INTS, NUMBERS, SIGNED, STRINGS, UNSIGNED
from .budget import Budget
from .claim import REFUSAL_CODES, Claim, Refusal
from .contract import CONTRACT_VERSION
from .custom import CustomOperator
from .device import Device, Devices
from .hooks import Notice, hookimpl
from .kernel import Kernel, KernelTable, kernel
from .kernel_provider import KernelProvider
from .memory import Allocator, Event, HostAllocator, HostStream, Stream, Tensor
from .portable import custom_kernels, portable_kernels
from .program import MemoryStep, Program, ProgramMemory, RunContext
from .provider import Provider
from .subgraph import Subgraph, element_type, static_shape

__all__ = [
    "ALL",
    "BOOL",
    "CONTRACT_VERSION",
    "FLOATS",
    "INTS",
    "NUMBERS",
    "REFUSAL_CODES",
    "SIGNED",
    "STRINGS",
    "UNSIGNED",
    "Allocator",
    "Budget",
    "Claim",
    "CustomOperator",
    "Device",
    "Devices",
    "Event",
    "HostAllocator",
    "HostStream",
    "Kernel",
    "KernelProvider",
    "KernelTable",
    "MemoryStep",
    "Notice",
    "Program",
    "ProgramMemory",
    "Provider",
    "Refusal",
    "RunContext",
    "Stream",
    "Subgraph",
    "Tensor",
    "custom_kernels",
    "element_type",
    "hookimpl",
    "kernel",
    "portable_kernels",
    "static_shape",
]
