"""RNN, GRU and LSTM by cuDNN's library itself: its Python frontend has graphs only.

Source: NVIDIA, "cuDNN", header ``cudnn_adv.h`` of version 9: ``cudnnSetRNNDescriptor_v8``, ``cudnnRNNForward``.
"""

from __future__ import annotations

import ctypes
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

PLANS_KEPT = 64
NAME = "libcudnn.so.9"
NOT_SUPPORTED = range(3000, 4000)
"""Statuses that say that there is no implementation."""

KINDS = {"float32": 0, "float64": 1, "float16": 2, "bfloat16": 9}
"""cudnnDataType_t."""

MODES = {"relu": 0, "tanh": 1, "LSTM": 2, "GRU": 3}
"""cudnnRNNMode_t; a plain layer goes by its activation."""

ORDER = {"relu": (0,), "tanh": (0,), "LSTM": (0, 2, 3, 1), "GRU": (1, 0, 2)}
"""The standard's gate for each of the library's: (i o f c) for input, forget, cell, output; (z r h) for reset, update,
new."""

STANDARD, LINEAR, PADDED, INFERENCE = 0, 0, 1, 0
NO_BIAS, TWO_BIASES = 0, 2
STEPS_FIRST, BATCH_FIRST = 0, 2  # cudnnRNNDataLayout_t, both with padding
ANY_MATH, TENSOR_CORES, FMA_ONLY = 0, 1, 3  # cudnnMathType_t

P, N, Z = ctypes.c_void_p, ctypes.c_int32, ctypes.c_size_t
SIGNATURES: dict[str, list[Any]] = {
    "cudnnCreate": [P],
    "cudnnSetStream": [P, P],
    "cudnnCreateTensorDescriptor": [P],
    "cudnnSetTensorNdDescriptor": [P, N, N, P, P],
    "cudnnDestroyTensorDescriptor": [P],
    "cudnnCreateDropoutDescriptor": [P],
    "cudnnSetDropoutDescriptor": [P, P, ctypes.c_float, P, Z, ctypes.c_uint64],
    "cudnnCreateRNNDescriptor": [P],
    "cudnnSetRNNDescriptor_v8": [P, *[N] * 12, P, ctypes.c_uint32],
    "cudnnDestroyRNNDescriptor": [P],
    "cudnnCreateRNNDataDescriptor": [P],
    "cudnnSetRNNDataDescriptor": [P, N, N, N, N, N, P, P],
    "cudnnDestroyRNNDataDescriptor": [P],
    "cudnnGetRNNWeightSpaceSize": [P, P, P],
    "cudnnGetRNNTempSpaceSizes": [P, P, N, P, P, P],
    "cudnnGetRNNWeightParams": [P, P, N, Z, P, N, P, P, P, P],
    "cudnnRNNForward": [P, P, N, P, P, P, P, P, P, P, P, P, P, P, Z, P, Z, P, Z, P],
}
"""Arguments of the functions that are called; all return a status."""


class CudnnError(RuntimeError):
    """A status other than success.

    Attributes:
        status: cudnnStatus_t.
    """

    def __init__(self, function: str, status: int) -> None:
        super().__init__(f"{function} of cuDNN gave status {status}")
        self.status = status


def library() -> ctypes.CDLL | None:
    """The library of NVIDIA's wheel or of the system, or None."""
    candidates = [NAME]
    try:
        import nvidia  # type: ignore[import-untyped,import-not-found,unused-ignore]

        candidates = [
            str(path) for root in nvidia.__path__ for path in Path(root).glob(f"cudnn/lib/{NAME}")
        ] + [NAME]
    except ImportError:
        pass
    for candidate in candidates:
        try:
            return ctypes.CDLL(candidate)
        except OSError:
            continue
    return None


@dataclass(frozen=True)
class Job:
    """A layer and the shapes that it runs for.

    Attributes:
        mode: a key of ``MODES``.
        directions: 1: forward; 2: both.
        dtype: element type of everything.
        strict: no operand is rounded, whatever the hardware could do.
        features, size: of the input and of the state.
        steps, batch: of the sequence.
        bias: True if there are biases.
        by_batch: the batch comes first.
        lengths: of each sequence.
    """

    mode: str
    directions: int
    dtype: str
    strict: bool
    features: int
    size: int
    steps: int
    batch: int
    bias: bool
    by_batch: bool
    lengths: tuple[int, ...]

    @property
    def math(self) -> int:
        """Which units may multiply."""
        if self.dtype in ("float16", "bfloat16"):
            return TENSOR_CORES
        return FMA_ONLY if self.strict else ANY_MATH


@dataclass
class Plan:
    """Descriptors of a job, and the sizes of its memory in bytes.

    Attributes:
        lengths: of the sequences, on the device.
        kept: what the library may still read.
    """

    layer: Any
    x: Any
    y: Any
    state: Any
    weights: int
    workspace: int
    lengths: Any
    kept: Any


class Recurrent:
    """The recurrent layers of one device.

    Args:
        lib: cuDNN.
        memory: makes an array of so many bytes on the device, in the order of the current stream.
        upload: makes an array of the device of one of the host's.
    """

    def __init__(self, lib: Any, memory: Callable[[int], Any], upload: Callable[[Any], Any]) -> None:
        self._lib, self._memory, self._upload = lib, memory, upload
        for name, kinds in SIGNATURES.items():
            function = getattr(lib, name)
            function.argtypes, function.restype = kinds, ctypes.c_int32
        self._lock = threading.Lock()
        self._handle: Any = None
        self._plans: OrderedDict[Job, Plan | None] = OrderedDict()

    def ready(self, job: Job) -> bool:
        """True if a job has run before: it needs nothing of the host any more."""
        return self._plans.get(job) is not None

    def pack(self, job: Job, w: Any, r: Any, b: Any, stream: int) -> Any:
        """The weights as the library wants them; None where it has no such layer.

        Args:
            w, r, b: [directions, gates size, features], [..., size] and [directions, 2 gates size] or None, in the
                standard's order of gates.
        """
        with self._lock:
            plan = self._plan(job, stream)
            if plan is None:
                return None
            space = self._memory(plan.weights)
            for direction in range(job.directions):
                self._pack(
                    job,
                    plan,
                    space,
                    direction,
                    w[direction],
                    r[direction],
                    None if b is None else b[direction],
                )
            return space

    def run(self, job: Job, weights: Any, x: Any, y: Any, states: Sequence[Any], stream: int) -> bool:
        """Enqueue a layer; False where the library has none.

        Args:
            weights: of :meth:`pack`.
            x, y: [steps, batch, features] and [steps, batch, directions size], or with the batch first; dense.
            states: [directions, batch, size]: first state, last state, first cells, last cells; None for zeros or for
                what nobody wants.
        """
        with self._lock:
            plan = self._plan(job, stream)
            if plan is None:
                return False
            workspace = self._memory(max(1, plan.workspace))
            hx, hy, cx, cy = (None if array is None else array.data.ptr for array in states)
            self._call(
                "cudnnRNNForward", self._handle, plan.layer, INFERENCE, plan.lengths.data.ptr, plan.x, x.data.ptr,
                plan.y, y.data.ptr, plan.state, hx, hy, plan.state, cx, cy, plan.weights, weights.data.ptr,
                plan.workspace, workspace.data.ptr, 0, None,
            )  # fmt: skip
        return True

    # ---- descriptors ----

    def _call(self, name: str, *arguments: Any) -> None:
        status = getattr(self._lib, name)(*arguments)
        if status:
            raise CudnnError(name, status)

    def _new(self, name: str) -> Any:
        made = ctypes.c_void_p()
        self._call(name, ctypes.byref(made))
        return made

    def _plan(self, job: Job, stream: int) -> Plan | None:
        if self._handle is None:
            self._handle = self._new("cudnnCreate")
        self._call("cudnnSetStream", self._handle, stream)
        if job not in self._plans:
            if len(self._plans) >= PLANS_KEPT:
                self._forget(self._plans.popitem(last=False)[1])
            try:
                self._plans[job] = self._make(job)
            except CudnnError as error:
                if error.status not in NOT_SUPPORTED:
                    raise
                self._plans[job] = None
        self._plans.move_to_end(job)
        return self._plans[job]

    def _make(self, job: Job) -> Plan:
        kind = KINDS[job.dtype]
        single = KINDS["float64" if job.dtype == "float64" else "float32"]
        dropout = self._new("cudnnCreateDropoutDescriptor")
        self._call("cudnnSetDropoutDescriptor", dropout, self._handle, 0.0, None, 0, 0)
        layer = self._new("cudnnCreateRNNDescriptor")
        self._call(
            "cudnnSetRNNDescriptor_v8", layer, STANDARD, MODES[job.mode], TWO_BIASES if job.bias else NO_BIAS,
            job.directions - 1, LINEAR, kind, single, job.math, job.features, job.size, job.size, 1, dropout, PADDED,
        )  # fmt: skip
        lengths, zero = (ctypes.c_int32 * job.batch)(*job.lengths), (ctypes.c_char * 8)()
        layout = BATCH_FIRST if job.by_batch else STEPS_FIRST
        places = [self._new("cudnnCreateRNNDataDescriptor") for _ in range(2)]
        for place, width in zip(places, (job.features, job.directions * job.size), strict=True):
            shape = (layout, job.steps, job.batch, width)
            self._call("cudnnSetRNNDataDescriptor", place, kind, *shape, lengths, zero)
        state = self._new("cudnnCreateTensorDescriptor")
        shape_ = (ctypes.c_int32 * 3)(job.directions, job.batch, job.size)
        strides = (ctypes.c_int32 * 3)(job.batch * job.size, job.size, 1)
        self._call("cudnnSetTensorNdDescriptor", state, kind, 3, shape_, strides)
        weights, workspace, reserve = ctypes.c_size_t(), ctypes.c_size_t(), ctypes.c_size_t()
        self._call("cudnnGetRNNWeightSpaceSize", self._handle, layer, ctypes.byref(weights))
        sizes = ctypes.byref(workspace), ctypes.byref(reserve)
        self._call("cudnnGetRNNTempSpaceSizes", self._handle, layer, INFERENCE, places[0], *sizes)
        on_device = self._upload(np.array(job.lengths, np.int32))
        kept = (lengths, zero, dropout)
        return Plan(layer, places[0], places[1], state, weights.value, workspace.value, on_device, kept)

    def _forget(self, plan: Plan | None) -> None:
        if plan is not None:
            self._call("cudnnDestroyRNNDescriptor", plan.layer)
            self._call("cudnnDestroyRNNDataDescriptor", plan.x)
            self._call("cudnnDestroyRNNDataDescriptor", plan.y)
            self._call("cudnnDestroyTensorDescriptor", plan.state)

    def _pack(self, job: Job, plan: Plan, space: Any, direction: int, w: Any, r: Any, b: Any) -> None:
        """Each gate's matrices and biases where the library looks for them."""
        order, size = ORDER[job.mode], job.size
        about = [self._new("cudnnCreateTensorDescriptor") for _ in range(2)]
        for place in range(2 * len(order)):
            which, source = place % len(order), w if place < len(order) else r
            gate, first = order[which], 0 if place < len(order) else len(order) * size
            matrix, bias = ctypes.c_void_p(), ctypes.c_void_p()
            self._call(
                "cudnnGetRNNWeightParams", self._handle, plan.layer, direction, plan.weights, space.data.ptr, place,
                about[0], ctypes.byref(matrix), about[1], ctypes.byref(bias),
            )  # fmt: skip
            rows = slice(gate * size, (gate + 1) * size)
            _put(space, matrix.value, source[rows])
            if b is not None:
                _put(space, bias.value, b[first + gate * size : first + (gate + 1) * size])
        for descriptor in about:
            self._call("cudnnDestroyTensorDescriptor", descriptor)


def _put(space: Any, address: int | None, values: Any) -> None:
    """Values into memory at an address inside an array of bytes."""
    assert address is not None
    start = address - space.data.ptr
    nbytes = values.size * values.dtype.itemsize
    space[start : start + nbytes].view(values.dtype)[...] = values.reshape(-1)
