"""Kernels that write into memory from the core's arena, one file per family."""

from __future__ import annotations

from . import elementwise, matmul

KERNELS = (*elementwise.KERNELS, *matmul.KERNELS)
