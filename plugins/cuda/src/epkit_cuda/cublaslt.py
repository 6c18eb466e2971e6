"""Matrix products by cuBLASLt: bias and activation inside, plans kept by layout.

The library counts columns first: a dense [rows, columns] of ours is its [columns, rows]. Hence out = a b is asked
for as outᵀ = bᵀ aᵀ. Source: NVIDIA, "cuBLAS", section "Using the cuBLASLt API"; the bindings are those of nvmath.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from .strides import Matrices, matrices_of

PLANS_KEPT = 1024
WORKSPACE = 32 << 20
"""Bytes that an algorithm may ask for: what NVIDIA recommends for GPUs of compute capability 9."""

DATA_TYPES = {"float32": 0, "float64": 1, "float16": 2, "int8": 3, "int32": 10, "bfloat16": 14}
DATA_TYPES |= {"float8_e4m3fn": 28, "float8_e5m2": 29}
"""cudaDataType, by element type."""

FLOAT32, TF32, FLOAT64, INT32 = (68, "float32"), (77, "float32"), (70, "float64"), (72, "int32")
"""cublasComputeType, and the type of the factors."""

TRANSPOSE_A, TRANSPOSE_B, EPILOGUE, BIAS, SCALE_A, SCALE_B = (
    3,
    4,
    7,
    8,
    17,
    18,
)  # cublasLtMatmulDescAttributes
BATCH_COUNT, BATCH_STEP = 5, 6  # cublasLtMatrixLayoutAttribute
MAX_WORKSPACE, ALIGNMENTS = 1, (5, 6, 7, 8)  # cublasLtMatmulPreferenceAttributes
EPILOGUES = {"": 1, "relu": 2, "gelu_tanh": 32}
WITH_BIAS = 4
"""Added to an epilogue; the default one, 1, becomes this."""


def compute_type(operand: str, precision: str) -> tuple[int, str]:
    """How operands of an element type are multiplied and summed; strict float32 unless ``tf32`` is asked for."""
    if operand == "float64":
        return FLOAT64
    if operand == "int8":
        return INT32
    return TF32 if precision == "tf32" and operand == "float32" else FLOAT32


def alignment(address: int) -> int:
    """The power of two that divides an address, 256 at most."""
    return min(256, address & -address) if address else 256


@dataclass
class Plan:
    """A product of certain layouts, with the algorithm that the library chose for it."""

    description: int
    layouts: tuple[int, int, int]
    algorithm: Any
    workspace: int
    factors: tuple[Any, Any]


class Products:
    """The products of one device.

    Args:
        bindings: the module ``nvmath.bindings.cublasLt``.
        memory: makes an array of so many bytes on the device, in the order of the current stream.
    """

    def __init__(self, bindings: Any, memory: Callable[[int], Any]) -> None:
        self._lt = bindings
        self._memory = memory
        self._lock = threading.Lock()
        self._handle: int | None = None
        self._plans: OrderedDict[tuple[Any, ...], Plan | None] = OrderedDict()

    def multiply(
        self,
        a: Any,
        b: Any,
        out: Any,
        precision: str,
        stream: int,
        bias: Any = None,
        activation: str = "",
        scales: tuple[Any, Any] | None = None,
    ) -> bool:
        """out = activation(a b + bias) for arrays of two or three axes; False where the library has no algorithm.

        Args:
            a, b: [batch, m, k] and [batch, k, n], rows or columns dense; without the batch for one product.
            out: [batch, m, n], rows dense.
            precision: ``tf32`` rounds float32 operands to it.
            stream: address of the stream.
            bias: n numbers of the result's type.
            activation: "", ``relu`` or ``gelu_tanh``.
            scales: of a and of b, one float32 each: factors of float8 operands.
        """
        shapes = matrices_of(a), matrices_of(b), matrices_of(out)
        left, right, target = shapes
        if left is None or right is None or target is None or target.transposed:
            return False
        pointers = [array.data.ptr for array in (b, a, out)]
        epilogue = EPILOGUES[activation]
        if bias is not None:
            epilogue = (epilogue & ~1) | WITH_BIAS
        types = a.dtype.name, b.dtype.name, out.dtype.name, precision
        beside = [] if bias is None else [(BIAS, bias.data.ptr)]
        beside += [(at, scale.data.ptr) for at, scale in zip((SCALE_B, SCALE_A), scales or (), strict=False)]
        key = (*shapes, *types, epilogue, *map(alignment, (*pointers, *(address for _, address in beside))))
        with self._lock:  # a plan's description holds the addresses of bias and scales
            plan = self._plan(key, (right, left, target), types, epilogue, pointers, beside)
            if plan is None:
                return False
            self._point(plan.description, beside)
            workspace = self._memory(plan.workspace) if plan.workspace else None
            alpha, beta = (factor.ctypes.data for factor in plan.factors)
            at, first, second, last = plan.algorithm.ctypes.data, *plan.layouts
            self._lt.matmul(
                self._handle, plan.description, alpha, pointers[0], first, pointers[1], second, beta,
                pointers[2], last, pointers[2], last, at,
                0 if workspace is None else workspace.data.ptr, plan.workspace, stream,
            )  # fmt: skip
        return True

    def _plan(
        self,
        key: tuple[Any, ...],
        layouts: tuple[Matrices, Matrices, Matrices],
        types: tuple[str, str, str, str],
        epilogue: int,
        pointers: list[int],
        beside: list[tuple[int, int]],
    ) -> Plan | None:
        if key in self._plans:
            self._plans.move_to_end(key)
            return self._plans[key]
        if len(self._plans) >= PLANS_KEPT:
            self._forget(self._plans.popitem(last=False)[1])
        plan = self._plans[key] = self._make(layouts, types, epilogue, pointers, beside)
        return plan

    def _make(
        self,
        layouts: tuple[Matrices, Matrices, Matrices],
        types: tuple[str, str, str, str],
        epilogue: int,
        pointers: list[int],
        beside: list[tuple[int, int]],
    ) -> Plan | None:
        """Ask the library for its best algorithm; None if it has none.

        It decides by the addresses that it is shown, those ``beside`` the operands too: a bias that is not there yet
        would be none.
        """
        lt = self._lt
        if self._handle is None:
            self._handle = lt.create()
        operand, second, result, precision = types
        compute, scale = compute_type(operand, precision)
        description = lt.matmul_desc_create(compute, DATA_TYPES[scale])
        self._describe(description, TRANSPOSE_A, np.int32(layouts[0].transposed))
        self._describe(description, TRANSPOSE_B, np.int32(layouts[1].transposed))
        self._describe(description, EPILOGUE, np.uint32(epilogue))
        self._point(description, beside)
        kinds = DATA_TYPES[second], DATA_TYPES[operand], DATA_TYPES[result]  # the second factor comes first
        made = tuple(self._layout(item, kind) for item, kind in zip(layouts, kinds, strict=True))
        preference = lt.matmul_preference_create()
        found = np.zeros(1, lt.matmul_heuristic_result_dtype)
        count = np.zeros(1, np.int32)
        try:
            self._prefer(preference, MAX_WORKSPACE, np.uint64(WORKSPACE))
            for attribute, address in zip(ALIGNMENTS, (*pointers, pointers[2]), strict=True):
                self._prefer(preference, attribute, np.uint32(alignment(address)))
            arguments = (description, *made, made[2], preference, 1, found.ctypes.data, count.ctypes.data)
            lt.matmul_algo_get_heuristic(self._handle, *arguments)
        except lt.cuBLASLtError:
            count[0] = 0  # NOT_SUPPORTED: the library raises where it has no algorithm
        finally:
            lt.matmul_preference_destroy(preference)
        factors = np.ones(1, scale), np.zeros(1, scale)
        plan = Plan(description, made, found, int(found["workspace_size"][0]), factors)  # type: ignore[arg-type]
        if not count[0]:
            self._forget(plan)
            return None
        return plan

    def _layout(self, matrices: Matrices, kind: int) -> int:
        dense, other = matrices.columns, matrices.rows
        if matrices.transposed:
            dense, other = other, dense
        layout: int = self._lt.matrix_layout_create(kind, dense, other, matrices.leading)
        if matrices.batch > 1:
            for attribute, value in (
                (BATCH_COUNT, np.int32(matrices.batch)),
                (BATCH_STEP, np.int64(matrices.step)),
            ):
                held = np.array(value)
                self._lt.matrix_layout_set_attribute(layout, attribute, held.ctypes.data, held.nbytes)
        return layout

    def _point(self, description: int, addresses: list[tuple[int, int]]) -> None:
        """Say where bias and scales are."""
        for attribute, address in addresses:
            self._describe(description, attribute, np.uint64(address))

    def _describe(self, description: int, attribute: int, value: np.generic) -> None:
        held = np.array(value)
        self._lt.matmul_desc_set_attribute(description, attribute, held.ctypes.data, held.nbytes)

    def _prefer(self, preference: int, attribute: int, value: np.generic) -> None:
        held = np.array(value)
        self._lt.matmul_preference_set_attribute(preference, attribute, held.ctypes.data, held.nbytes)

    def _forget(self, plan: Plan | None) -> None:
        if plan is not None:
            self._lt.matmul_desc_destroy(plan.description)
            for layout in plan.layouts:
                self._lt.matrix_layout_destroy(layout)
