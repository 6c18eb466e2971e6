"""The math kernels of one instruction set, called through ctypes; a Parallel that splits work and runs it backwards."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "native"))
import build_kernels

ISAS = build_kernels.machine_isas()

BODY = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_int)


class Parallel(ctypes.Structure):
    """As parallel.h has it; pieces run one after the other, the last one first, thread numbers in turn."""


RUN = ctypes.CFUNCTYPE(None, ctypes.POINTER(Parallel), ctypes.c_int64, ctypes.c_int64, BODY, ctypes.c_void_p)
Parallel._fields_ = [("threads", ctypes.c_int), ("run", RUN)]


def _run(self: Any, count: int, grain: int, body: Callable[..., None], argument: int) -> None:
    for piece in reversed(range(0, count, grain)):
        body(argument, piece, min(piece + grain, count), (piece // grain) % self.contents.threads)


_RUN = RUN(_run)


def parallel(threads: int) -> Any:
    """A pointer to a Parallel of so many threads; None (serial) for one."""
    return ctypes.byref(Parallel(threads, _RUN)) if threads > 1 else None


@cache
def library() -> ctypes.CDLL:
    """The built library."""
    return ctypes.CDLL(str(build_kernels.build()))


def pointer(value: Any) -> Any:
    """What ctypes passes for a Python value: arrays as pointers, ints as int64, floats as float."""
    if isinstance(value, np.ndarray):
        return ctypes.c_void_p(value.ctypes.data)
    if isinstance(value, float):
        return ctypes.c_float(value)
    if isinstance(value, int):
        return ctypes.c_int64(value)
    return value


def call(isa: str, name: str, *arguments: Any, returns: Any = None) -> Any:
    """``epk_<name>_<isa>(*arguments)``."""
    function = getattr(library(), f"epk_{name}_{isa}")
    function.restype = returns
    return function(*[pointer(argument) for argument in arguments])


def scratch(isa: str, name: str, *arguments: Any) -> np.ndarray[Any, Any]:
    """Memory of the size that ``epk_<name>_<isa>`` asks for, 64-byte aligned, full of NaN, with a guard behind."""
    size = call(isa, name, *arguments, returns=ctypes.c_int64)
    return aligned(size)


def aligned(size: int) -> np.ndarray[Any, Any]:
    """``size`` bytes, 64-byte aligned, all bits set (NaN as float32)."""
    memory = np.full(size + 128, 255, np.uint8)
    start = -memory.ctypes.data % 64
    return memory[start : start + size + 64]


def ulps(found: np.ndarray[Any, Any], exact: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The distance of float32 results from float64 ones, in units of the last place of the float32 result."""
    with np.errstate(all="ignore"):
        nearest = exact.astype(np.float32)
        same = (found == nearest) | (np.isnan(found) & np.isnan(nearest))
        unit = np.maximum(np.spacing(np.abs(nearest)).astype(np.float64), 2.0**-149)
        distance: np.ndarray[Any, Any] = np.abs(found.astype(np.float64) - exact) / unit
        return np.where(same, 0.0, distance)
