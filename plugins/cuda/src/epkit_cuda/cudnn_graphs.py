"""Convolution and attention as graphs of cuDNN, by its frontend: what follows a convolution is part of its graph.

Graphs are kept by the layouts of their tensors. Pointers are passed as numbers: nothing of DLPack, which may wait
for streams, happens in a run. Source: NVIDIA, "cuDNN frontend", operations ``conv_fprop`` and ``sdpa``. Which engines
cuDNN has for a graph can be asked without a GPU, by a description of the device: so were the shapes of graphs chosen.
"""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

GRAPHS_KEPT = 256
KINDS = {"float32": "FLOAT", "float16": "HALF", "bfloat16": "BFLOAT16"}
"""cudnn.data_type, by element type."""

HEADS_WIDEST = 128
"""Elements of a head up to which the attention of every GPU from sm_80 on has a plan."""


@dataclass
class Built:
    """A graph that can run.

    Attributes:
        slots: its tensors, in the order in which arrays are given.
        workspace: bytes.
    """

    graph: Any
    slots: list[Any]
    workspace: int


class Graphs:
    """The graphs of one device.

    Args:
        cudnn: the module of the frontend.
        memory: makes an array of so many bytes on the device, in the order of the current stream.
    """

    def __init__(self, cudnn: Any, memory: Callable[[int], Any]) -> None:
        self._cudnn = cudnn
        self._memory = memory
        self._lock = threading.Lock()
        self._handle: Any = None
        self._built: OrderedDict[tuple[Any, ...], Built | None] = OrderedDict()

    # ---- convolution ----

    def convolve(
        self,
        x: Any,
        w: Any,
        out: Any,
        *,
        strides: Sequence[int],
        pads: Sequence[int],
        dilations: Sequence[int],
        strict: bool,
        stream: int,
        bias: Any = None,
        residual: Any = None,
        relu: float = 0.0,
    ) -> bool:
        """out = relu(x * w + bias + residual), the last three where asked for; False where there is no plan.

        Args:
            x, w, out: [N, C, ...], [M, C / groups, ...] and [N, M, ...] in any order of memory.
            strides, pads, dilations: of the spatial axes; pads at all beginnings, then at all ends.
            strict: no operand is rounded, whatever the hardware could do.
            stream: address of the stream.
            bias: [1, M, 1, ...].
            residual: of the shape of ``out``.
            relu: upper bound of the rectifier: 0 for none, infinite for the plain one.
        """
        if x.ndim not in (4, 5) or str(x.dtype) not in KINDS or str(out.dtype) not in KINDS:
            return False
        if w.shape[1] == 1 < x.shape[1] and (bias is not None or residual is not None or relu):
            return False  # one channel a group has engines of its own, and they do nothing else
        arrays = [item for item in (x, w, bias, residual, out) if item is not None]
        given = (tuple(strides), tuple(pads), tuple(dilations), strict, bias is None, residual is None, relu)

        def build(graph: Any, tensors: list[Any]) -> list[Any]:
            half, rest = len(pads) // 2, iter(tensors[2:])
            value = graph.conv_fprop(
                image=tensors[0],
                weight=tensors[1],
                pre_padding=list(pads[:half]),
                post_padding=list(pads[half:]),
                stride=list(strides),
                dilation=list(dilations),
            )
            for item in (bias, residual):
                value = value if item is None else graph.add(value, next(rest))
            if relu:
                value = graph.relu(value)
            if relu and not math.isinf(relu):
                # not as a clip of the rectifier, which leaves the slowest engine only
                bound = graph.tensor_scalar(relu, self._cudnn.scalar_type.RUNTIME_PARAM)
                value = graph.min(value, bound)
            return [value]

        return self._run(("convolve", *given), arrays, 1, build, stream, strict=strict)

    # ---- attention ----

    def attend(
        self, q: Any, k: Any, v: Any, mask: Any, out: Any, *, scale: float, causal: bool, stream: int
    ) -> bool:
        """out = softmax(scale q kᵀ + mask) v, in 16 bits with float32 sums; False where there is no plan.

        Args:
            q, k, v, out: [B, H, L, D], [B, G, S, D], [B, G, S, E] and [B, H, L, E], the last axis dense.
            mask: None, or what is added, of the queries' type: [1 or B, 1 or H, L, S].
            causal: query i sees the keys up to i.
        """
        widest = max(q.shape[3], v.shape[3])
        if str(q.dtype) not in ("float16", "bfloat16") or widest > HEADS_WIDEST or widest % 8:
            return False
        arrays = [item for item in (q, k, v, mask, out) if item is not None]

        def build(graph: Any, tensors: list[Any]) -> list[Any]:
            options = {} if mask is None else {"bias": tensors[3]}
            value, _ = graph.sdpa(
                q=tensors[0],
                k=tensors[1],
                v=tensors[2],
                attn_scale=scale,
                use_causal_mask=causal,
                generate_stats=False,
                name="attention",
                **options,
            )
            return [value]

        return self._run(("attend", scale, causal, mask is None), arrays, 1, build, stream)

    # ---- graphs ----

    def _run(
        self,
        what: tuple[Any, ...],
        arrays: Sequence[Any],
        results: int,
        build: Callable[[Any, list[Any]], list[Any]],
        stream: int,
        *,
        strict: bool = False,
    ) -> bool:
        """Build the graph of these layouts or take the kept one, and enqueue it; the last arrays are results."""
        if not all(array.size for array in arrays):
            return False
        key = (what, *((array.shape, array.strides, str(array.dtype)) for array in arrays))
        with self._lock:  # a handle may serve one thread at a time
            if key not in self._built:
                if len(self._built) >= GRAPHS_KEPT:
                    self._built.popitem(last=False)
                self._built[key] = self._build(arrays, results, build, strict)
            self._built.move_to_end(key)
            built = self._built[key]
            if built is None:
                return False
            self._cudnn.set_stream(handle=self._handle, stream=stream)
            workspace = self._memory(max(1, built.workspace))
            values = {slot: array.data.ptr for slot, array in zip(built.slots, arrays, strict=True)}
            built.graph.execute(values, workspace.data.ptr, handle=self._handle)
        return True

    def _build(
        self,
        arrays: Sequence[Any],
        results: int,
        build: Callable[[Any, list[Any]], list[Any]],
        strict: bool,
    ) -> Built | None:
        cudnn = self._cudnn
        if self._handle is None:
            self._handle = cudnn.create_handle()
        single = cudnn.data_type.FLOAT
        graph = cudnn.pygraph(
            io_data_type=getattr(cudnn.data_type, KINDS[str(arrays[0].dtype)]),
            intermediate_data_type=single,
            compute_data_type=single,
            handle=self._handle,
        )
        inputs = [
            graph.tensor(name=f"t{at}", data_type=self._kind(array), **layout(array))
            for at, array in enumerate(arrays[:-results])
        ]
        try:
            made = build(graph, inputs)
            for tensor, array in zip(made, arrays[-results:], strict=True):
                place = layout(array)
                tensor.set_output(True).set_data_type(self._kind(array))
                tensor.set_dim(place["dim"]).set_stride(place["stride"])
            graph.validate()
            graph.build_operation_graph()
            graph.create_execution_plans([cudnn.heur_mode.A, cudnn.heur_mode.FALLBACK])
            if strict and str(arrays[0].dtype) == "float32":  # tensor cores would round operands to tf32
                graph.deselect_numeric_notes([cudnn.numerical_note.TENSOR_CORE])
            graph.check_support()
            graph.build_plans()
        except cudnn.cudnnGraphNotSupportedError:
            return None
        return Built(graph, [*inputs, *made], int(graph.get_workspace_size()))

    def _kind(self, array: Any) -> Any:
        return getattr(self._cudnn.data_type, KINDS[str(array.dtype)])


def layout(array: Any) -> dict[str, list[int]]:
    """Sizes, and steps in elements."""
    each = array.dtype.itemsize
    return {"dim": list(array.shape), "stride": [step // each for step in array.strides]}
