"""NVIDIA's libraries behind small functions: products by cuBLASLt (nvmath), convolution by cuDNN's frontend.

Both are optional: without nvmath, products go through CuPy to cuBLAS; without cuDNN, convolution is portable.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from functools import cached_property
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import cupy  # type: ignore[import-not-found,import-untyped,unused-ignore]
import numpy as np

PLANS_KEPT = 256
"""Convolution plans kept for a device, the oldest first out."""


class Libraries:
    """One device's handles and plans."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._plans: dict[tuple[Any, ...], Any] = {}

    # ---- products ----

    def multiply(self, a: Any, b: Any, out: Any, precision: str) -> None:
        """out = a b; a product of 16-bit operands into float32 needs cuBLASLt.

        Raises:
            ModuleNotFoundError: if nvmath is not there and only it can.
        """
        if precision == "tf32" or a.dtype != out.dtype:
            self._by_cublas_lt(a, b, out, precision)
        else:
            cupy.matmul(a, b, out=out)

    def _by_cublas_lt(self, a: Any, b: Any, out: Any, precision: str) -> None:
        advanced = import_module("nvmath.linalg.advanced")
        kind = advanced.MatmulComputeType
        wide = out.dtype == np.float64
        compute = kind.COMPUTE_64F if wide else kind.COMPUTE_32F
        if precision == "tf32" and not wide:
            compute = kind.COMPUTE_32F_FAST_TF32
        options: dict[str, Any] = {"compute_type": compute}
        if a.dtype != out.dtype:
            types = import_module("nvmath").CudaDataType
            options["result_type"] = types.CUDA_R_32F
        found = advanced.matmul(a, b, options=options, stream=cupy.cuda.get_current_stream())
        out[...] = found

    # ---- convolution ----

    @cached_property
    def _cudnn(self) -> Any:
        """The frontend, or None."""
        return import_module("cudnn") if find_spec("cudnn") else None

    @cached_property
    def _handle(self) -> Any:
        return self._cudnn.create_handle()

    def convolve(
        self,
        x: Any,
        w: Any,
        out: Any,
        *,
        strides: Sequence[int],
        pads: Sequence[int],
        dilations: Sequence[int],
        groups: int,
        precision: str,
        stream: Any,
    ) -> bool:
        """Dense x [N, C, ...], w [M, C / groups, ...], out [N, M, ...]; False where there is no plan."""
        if self._cudnn is None or x.ndim not in (4, 5) or math.prod(out.shape) == 0:
            return False
        with self._lock:
            shapes = (x.shape, w.shape, out.shape, str(x.dtype), precision)
            key = (*shapes, tuple(strides), tuple(pads), tuple(dilations), groups)
            if key not in self._plans:
                if len(self._plans) >= PLANS_KEPT:
                    self._plans.pop(next(iter(self._plans)))
                self._plans[key] = self._plan(x, w, out, strides, pads, dilations, precision)
            plan = self._plans[key]
            if plan is None:
                return False
            graph, slots, size = plan
            self._cudnn.set_stream(handle=self._handle, stream=stream.raw.ptr)
            workspace = cupy.empty(max(1, size), np.uint8)
            values = dict(zip(slots, (x, w, out), strict=True))
            graph.execute(values, workspace, handle=self._handle)
        return True

    def _plan(
        self,
        x: Any,
        w: Any,
        out: Any,
        strides: Sequence[int],
        pads: Sequence[int],
        dilations: Sequence[int],
        precision: str,
    ) -> tuple[Any, list[Any], int] | None:
        cudnn = self._cudnn
        kind = {"float32": cudnn.data_type.FLOAT, "float16": cudnn.data_type.HALF}.get(str(x.dtype))
        if kind is None:
            return None
        graph = cudnn.pygraph(
            io_data_type=kind,
            intermediate_data_type=cudnn.data_type.FLOAT,
            compute_data_type=cudnn.data_type.FLOAT,
            handle=self._handle,
        )
        image, weight = (graph.tensor(name=n, **_layout(array)) for n, array in (("x", x), ("w", w)))
        half = len(pads) // 2
        result = graph.conv_fprop(
            image=image,
            weight=weight,
            pre_padding=list(pads[:half]),
            post_padding=list(pads[half:]),
            stride=list(strides),
            dilation=list(dilations),
        )
        result.set_output(True).set_data_type(kind).set_dim(list(out.shape)).set_stride(
            _layout(out)["stride"]
        )
        try:
            graph.validate()
            graph.build_operation_graph()
            graph.create_execution_plans([cudnn.heur_mode.A, cudnn.heur_mode.FALLBACK])
            if precision == "fp32" and str(x.dtype) == "float32":
                # tensor cores would round the operands to tf32
                graph.deselect_numeric_notes([cudnn.numerical_note.TENSOR_CORE])
            graph.check_support()
            graph.build_plans()
        except cudnn.cudnnGraphNotSupportedError:
            return None
        return graph, [image, weight, result], int(graph.get_workspace_size())


def _layout(array: Any) -> dict[str, list[int]]:
    each = array.dtype.itemsize
    return {"dim": list(array.shape), "stride": [step // each for step in array.strides]}
