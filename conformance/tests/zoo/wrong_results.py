"""Providers that compute something else."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from sound import Sound, reported_by, with_kernel

from epkit.backend import Program, RunContext, Subgraph, portable_kernels
from epkit.backend.kernel_provider import KernelProgram
from epkit_conformance.result import State


def _right(op_type: str, *inputs: Any, **attributes: Any) -> Any:
    """The portable kernel's answer."""
    newest = max(portable_kernels(np, only=[op_type]), key=lambda kernel: kernel.since)
    return newest.function(*inputs, **attributes)


# ---- single operators ----


def _pad(x: Any, pads: Any, value: Any = None, axes: Any = None, *, mode: str = "constant") -> Any:
    count = len(pads) // 2
    widths = [(max(int(low) - 1, 0), int(high)) for low, high in zip(pads[:count], pads[count:], strict=True)]
    return np.pad(x, widths, constant_values=0 if value is None else value)


@reported_by("published/constant_pad", "generated/Pad/13/float32", "dynamic/constant_pad/symbolic")
class PadsOneOff(
    with_kernel(
        "Pad",
        _pad,
        since=11,
        types={"T": {"float32"}},
        when=lambda node: node.attributes.get_string("mode", "constant") == "constant",
    )
):
    """adds one row too few in front"""


@reported_by("published/round", "dynamic/round/symbolic", "dynamic/round/3_rows")
class RoundsHalvesUp(with_kernel("Round", lambda x: np.floor(x + x.dtype.type(0.5)))):
    """rounds a half up, and not to the even neighbour"""


@reported_by("published/leakyrelu", "published/leakyrelu_example", "generated/LeakyRelu/16/float32")
class IgnoresAnAttribute(with_kernel("LeakyRelu", lambda x: np.where(x < 0, x * x.dtype.type(0.01), x))):
    """takes every alpha for the default"""


@reported_by("generated/Sqrt/13/float16", "special/Sqrt/float16/nan", "special/Sqrt/float16/zeros")
class ReturnsTheWiderType(
    with_kernel("Sqrt", lambda x: np.sqrt(x.astype(np.float64 if x.dtype == np.float64 else np.float32)))
):
    """returns float32 for float16"""


def _top_k_swapped(x: Any, k: Any, **attributes: Any) -> Any:
    values, indices = _right("TopK", x, k, **attributes)
    return indices.astype(x.dtype), values.astype(np.int64)


@reported_by("published/top_k", "published/top_k_smallest")
class SwapsTwoOutputs(
    with_kernel(
        "TopK",
        lambda x, k, *, axis=-1, largest=1, sorted=1: _top_k_swapped(
            x, k, axis=axis, largest=largest, sorted=sorted
        ),
        since=10,
    )
):
    """returns its second output first"""


@reported_by(
    "published/logsoftmax_negative_axis",
    "published/logsoftmax_default_axis",
    "generated/LogSoftmax/13/float32",
)
class MistakesNegativeAxes(
    with_kernel(
        "LogSoftmax",
        lambda x, *, axis=-1: _right("LogSoftmax", x, axis=axis if axis >= 0 else axis + x.ndim - 1),
        since=13,
    )
):
    """counts axis -1 from the last but one"""


@reported_by("special/Max/float32/nan", "special/Max/float64/nan")
class DropsNotANumber(
    with_kernel(
        "Max", lambda *xs: np.fmax.reduce(np.broadcast_arrays(*xs)), types={"T": {"float32", "float64"}}
    )
):
    """takes the maximum of the numbers, where one operand is none"""


@reported_by("special/Max/int64/extremes", "special/Max/uint64/extremes")
class CountsInFloats(
    with_kernel(
        "Max",
        lambda *xs: np.maximum.reduce(np.broadcast_arrays(*xs)).astype(np.float64).astype(xs[0].dtype),
        types={"T": {"int64", "uint64"}},
    )
):
    """takes integers through float64"""


@reported_by("special/Neg/float32/zeros", "special/Neg/float64/zeros")
class LosesTheSignOfZero(with_kernel("Neg", lambda x: x.dtype.type(0) - x)):
    """computes -x as 0 - x"""


@reported_by("generated/Tanh/13/float32")
class IsTooInaccurate(
    with_kernel(
        "Tanh", lambda x: (np.tanh(x) * x.dtype.type(1 + 2e-6)).astype(x.dtype), types={"T": {"float32"}}
    )
):
    """is 17 units in the last place off, within the published tolerance"""


# ---- shapes ----


@reported_by("contract/follows_changing_shapes", "dynamic/abs/0_rows", may=["graphs/*"])
class ForgetsTheEmpty(
    with_kernel("Abs", lambda x: np.abs(x) if x.size else np.zeros((1, *x.shape[1:]), x.dtype))
):
    """makes one row of none"""


def _second_shape() -> Any:
    class Remembers(Program):
        def __init__(self, inner: Program) -> None:
            self.inner = inner
            self.shapes: list[Any] | None = None

        def run(self, context: RunContext, inputs: Sequence[Any]) -> Sequence[Any]:
            outputs = self.inner.run(context, inputs)
            if self.shapes is None:
                self.shapes = [array.shape for array in outputs]
            return [np.resize(array, shape) for array, shape in zip(outputs, self.shapes, strict=True)]

    return Remembers


@reported_by(
    "contract/follows_changing_shapes",
    "contract/writes_all_of_its_outputs",
    "threads/one_session_many_threads",
    may=["graphs/*", "partitions/*", "pairs/*"],
)
class KnowsOneShape(Sound):
    """gives every result the shape that it had in the first run"""

    def compile(self, subgraph: Subgraph) -> Program:
        return _second_shape()(super().compile(subgraph))


# ---- what changes from run to run ----


@reported_by("contract/repeats_itself")
class IsNotDeterministic(
    with_kernel(
        "Sigmoid",
        lambda x: (1 / (1 + np.exp(-x)) * (1 + 1e-6 * np.random.default_rng().random())).astype(x.dtype),
        types={"T": {"float32"}},
    )
):
    """adds a little noise"""


class _OneBuffer(KernelProgram):
    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.buffers: dict[Any, Any] = {}

    def run(self, context: RunContext, inputs: Sequence[Any]) -> Sequence[Any]:
        results = []
        for index, array in enumerate(super().run(context, inputs)):
            kept = self.buffers.setdefault((index, array.shape, array.dtype), np.empty_like(array))
            kept[...] = array
            results.append(kept)
        return results


@reported_by("contract/gives_outputs_away", may=["threads/*"])
class ReturnsItsBuffer(Sound):
    """returns the same memory in every run"""

    def compile(self, subgraph: Subgraph) -> Program:
        return _OneBuffer(subgraph, lambda node: self.kernel_for(node, subgraph), self.constant)


class _Stale(KernelProgram):
    def run(self, context: RunContext, inputs: Sequence[Any]) -> Sequence[Any]:
        key = tuple((array.shape, array.dtype) for array in inputs)
        results = super().run(context, inputs)
        self.__dict__.setdefault("first", {}).setdefault(key, [array.copy() for array in results])
        return [array.copy() for array in self.first[key]]


@reported_by(
    "contract/follows_its_inputs",
    "contract/forgets_its_memory",  # it runs with other inputs each time, too
    "contract/can_be_cancelled",
    "contract/writes_all_of_its_outputs",
    "threads/one_session_many_threads",
    "threads/enters_programs_together",
    may=[
        "contract/gives_outputs_away",
        "threads/*",
        "graphs/*",
        "partitions/*",
        "models/*",
        "contract/keeps_constants_apart",
    ],
)
class ReturnsTheFirstResult(Sound):
    """computes once for each shape, and never looks at its inputs again"""

    def compile(self, subgraph: Subgraph) -> Program:
        return _Stale(subgraph, lambda node: self.kernel_for(node, subgraph), self.constant)


CONSTANTS: dict[Any, Any] = {}


@reported_by("contract/keeps_constants_apart", may=["artifacts/*"])
class SharesConstants(Sound):
    """keeps weights by name, across sessions"""

    def compile(self, subgraph: Subgraph) -> Program:
        values = [value for node in subgraph.nodes for value in node.inputs if value is not None]
        names = {
            array.tobytes(): (value.name, array.shape)
            for value in values
            if (array := subgraph.constant(value)) is not None
        }

        def constant(array: Any) -> Any:
            return CONSTANTS.setdefault(names[array.tobytes()], array)

        return KernelProgram(subgraph, lambda node: self.kernel_for(node, subgraph), constant)


class _BreaksOnError(KernelProgram):
    broken = False

    def run(self, context: RunContext, inputs: Sequence[Any]) -> Sequence[Any]:
        try:
            results = super().run(context, inputs)
        except Exception:
            self.broken = True
            raise
        return [array + array.dtype.type(1) if self.broken else array for array in results]


@reported_by("contract/can_be_cancelled", "contract/reports_impossible_shapes", "errors/in_begin")
class IsWrongAfterwards(Sound):
    """does not clean up after a run that did not end"""

    def compile(self, subgraph: Subgraph) -> Program:
        return _BreaksOnError(subgraph, lambda node: self.kernel_for(node, subgraph), self.constant)


SCRATCH: list[Any] = [None]


def _through_scratch(a: Any, b: Any) -> Any:
    SCRATCH[0] = a
    time.sleep(0.002)
    return SCRATCH[0] * b


@reported_by("threads/one_session_many_threads", may=["threads/*"])
class Races(with_kernel("Mul", _through_scratch, since=7)):
    """has one scratch buffer for all threads"""


LOCK = threading.Lock()
COUNT = itertools.count()


def _skips(a: Any) -> Any:
    with LOCK:
        return a.copy() if next(COUNT) % 7 == 6 else np.maximum(a, 0)


@reported_by("contract/follows_its_inputs", may=["*"])
class FailsEverySeventhTime(with_kernel("Relu", _skips)):
    """is right in the first six runs"""


# ---- what ends badly ----


def _sleep(x: Any) -> Any:
    time.sleep(3600)


def _die(x: Any) -> Any:
    import os

    os.abort()


@reported_by("published/sign", state=State.HUNG, seconds=6)
class Hangs(with_kernel("Sign", _sleep)):
    """never comes back"""


@reported_by("published/sign", state=State.CRASHED)
class Crashes(with_kernel("Sign", _die)):
    """takes the process with it"""
