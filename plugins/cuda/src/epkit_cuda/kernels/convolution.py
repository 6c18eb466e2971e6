"""Convolution by cuDNN, channels first or last, with bias, residual and rectifier inside where it has such a plan."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from epkit.backend import Kernel, RunContext, element_type, kernel, portable_kernels
from epkit.kernels._window import Window, window
from epkit.kernels.attributes import attribute_values

from ..launch import dense, launch, stream_of
from ..machine import Machine
from ..memory import Tensor
from ..source import PRELUDE, computed, stored
from .products import TYPES, rounded

LAST = "epkit.channels_last"
"""The domain of operators whose data is [batch, spatial axes, channels]."""

BLOCK, GRID = 256, 1 << 16


def to_first(array: Any) -> Any:
    """The view [N, C, ...] of [N, ..., C]."""
    return array.transpose(0, array.ndim - 1, *range(1, array.ndim - 1))


@dataclass(frozen=True)
class Job:
    """One convolution.

    Attributes:
        view: where the window reads.
        group: of the channels.
        precision: the provider's option.
        last: True if the channels come last.
        relu: upper bound of the rectifier: 0 for none, infinite for the plain one.
    """

    view: Window
    group: int
    precision: str
    last: bool
    relu: float

    @property
    def options(self) -> dict[str, Any]:
        """As the library wants them."""
        return {
            "strides": self.view.strides,
            "pads": (*self.view.begin, *self.view.end),
            "dilations": self.view.dilations,
            "groups": self.group,
            "precision": self.precision,
        }


def finish_source(c_type: str, *, bias: bool, residual: bool, relu: bool) -> str:
    """q[i] = relu(q[i] + bias[channel of i] + residual[i])."""
    terms = ["widen(q[i])", *["widen(bias[i / inner % channels])"] * bias, *["widen(residual[i])"] * residual]
    value = "(x < 0 ? 0 : x > ceiling ? ceiling : x)" if relu else "x"
    return f"""{PRELUDE}
typedef {c_type} T; typedef {computed(c_type)} C;
extern "C" __global__ void finish(long long n, long long inner, int channels, float bound,
    const T* __restrict__ bias, const T* __restrict__ residual, T* q) {{
  const C ceiling = bound;
  for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += (long long)gridDim.x * blockDim.x) {{
    const C x = {" + ".join(terms)};
    narrow({value}, q[i]);
  }}
}}
"""


def finish(context: RunContext, out: Any, bias: Any, residual: Any, job: Job) -> None:
    """What follows a convolution, in place in dense memory, where the library did not do it."""
    if bias is None and residual is None and not job.relu:
        return
    given = {"bias": bias is not None, "residual": residual is not None, "relu": bool(job.relu)}
    channels = out.shape[-1] if job.last else out.shape[1]
    inner = 1 if job.last else math.prod(out.shape[2:])
    numbers = [np.int64(out.size), np.int64(inner), np.int32(channels), np.float32(job.relu)]
    arguments = [*numbers, *(out if item is None else item for item in (bias, residual)), out]
    source = finish_source(stored(out.dtype), **given)
    launch(context, source, "finish", min(GRID, -(-out.size // BLOCK)), BLOCK, arguments)


def in_layout(context: RunContext, w: Tensor, job: Job) -> Any:
    """The weights [M, C / groups, ...] in the precision and the order of memory of the data; made once."""
    array = rounded(context, w, job.precision)
    if not job.last:
        return stream_of(context).dense(array)
    key = f"channels last, {array.dtype}"
    if w.packed is not None and key in w.packed:
        return w.packed[key]
    made = to_first(stream_of(context).dense(array.transpose(0, *range(2, array.ndim), 1)))
    if w.packed is not None and not stream_of(context).capturing:
        w.packed[key] = made
    return made


def convolve(
    context: RunContext,
    portable: Kernel,
    operands: tuple[Tensor, Tensor],
    bias: Any,
    residual: Any,
    out: Any,
    job: Job,
) -> None:
    """out = relu(x * w + bias + residual): the library with everything, with less, or the portable operator."""
    stream = stream_of(context)
    machine = stream.machine
    x = stream.dense(rounded(context, operands[0], job.precision))
    w = in_layout(context, operands[1], job)
    turn = to_first if job.last else lambda array: array
    x, view = turn(x), turn(out)
    extras: dict[str, Any] = {
        "bias": None if bias is None else bias.reshape(1, -1, *[1] * (x.ndim - 2)),
        "residual": None if residual is None else turn(residual),
        "relu": job.relu,
    }
    plain = bias is None and residual is None and not job.relu
    if not plain and machine.convolve(x, w, view, stream=stream.raw, **job.options, **extras):
        return
    if not machine.convolve(x, w, view, stream=stream.raw, **job.options):
        view[...] = _otherwise(context, portable, operands, x, w, view, job)
    finish(context, out, bias, residual, job)


def _otherwise(
    context: RunContext,
    portable: Kernel,
    operands: tuple[Tensor, Tensor],
    x: Any,
    w: Any,
    out: Any,
    job: Job,
) -> Any:
    """x * w, channels first, where the library has no plan for the layout or the types that were asked for."""
    stream = stream_of(context)
    xp = stream.machine.xp
    for dtype in dict.fromkeys((out.dtype, x.dtype)):
        made = xp.empty(out.shape, dtype)
        if stream.machine.convolve(stream.dense(x), stream.dense(w), made, stream=stream.raw, **job.options):
            return made
    given = (to_first(operands[0].array) if job.last else operands[0].array), operands[1].array
    names = ("strides", "pads", "dilations")
    options = {name: list(job.options[name]) for name in names}
    return portable.function(*given, None, group=job.group, **options)


def known(node: Any) -> bool | str:
    """A rectifier is what convolutions have inside, of all activations; element types that products have."""
    attributes = attribute_values(node)
    name, bounds = attributes.get("activation", ""), list(attributes.get("activation_params") or ())
    if name not in ("", "Relu") and (name != "Clip" or bounds[:1] != [0.0] or len(bounds) < 2):
        return f"{name} is a kernel of its own, after the convolution"
    kinds = {element_type(value) for value in node.inputs if value is not None and value.name}
    if len(kinds) != 1 or not kinds <= TYPES["T"]:
        return f"the kernel takes one of {sorted(TYPES['T'])}, found {sorted(kinds)}"
    return True


def convolution_kernels(machine: Machine, precision: str) -> list[Kernel]:
    """Conv and FusedConv in a precision, channels first and last."""
    portable = portable_kernels(machine.xp, only={"Conv"})[-1]

    def declare(op_type: str, domain: str) -> Kernel:
        last = domain == LAST

        @kernel(op_type, domain=domain, when=known)
        def conv(
            x: Tensor,
            w: Tensor,
            b: Tensor | None = None,
            z: Tensor | None = None,
            *,
            activation: str = "",
            activation_params: Sequence[float] = (),
            auto_pad: str = "NOTSET",
            dilations: Sequence[int] | None = None,
            group: int = 1,
            kernel_shape: Sequence[int] | None = None,
            pads: Sequence[int] | None = None,
            strides: Sequence[int] | None = None,
            context: RunContext,
            node: Any,
        ) -> Tensor:
            sizes, at = (x.shape[1:-1], -1) if last else (x.shape[2:], 1)
            if x.ndim < 3 or w.ndim != x.ndim or x.shape[at] != w.shape[1] * group or w.shape[0] % group:
                raise ValueError(
                    f"weights {w.shape} in {group} groups do not fit an input of shape {x.shape}"
                )
            options = {"strides": strides, "dilations": dilations, "pads": pads, "auto_pad": auto_pad}
            view = window(sizes, w.shape[2:], **options)  # type: ignore[arg-type]
            relu = (
                {"": 0.0, "Relu": math.inf}.get(activation) if activation != "Clip" else activation_params[1]
            )
            job = Job(view, group, precision, last, float(relu or 0.0))
            shape = (x.shape[0], *view.output, w.shape[0]) if last else (x.shape[0], w.shape[0], *view.output)
            out: Tensor = context.empty(node.outputs[0], shape, x.dtype)
            if out.size:
                bias, residual = (None if item is None else dense(context, item) for item in (b, z))
                convolve(context, portable, (x, w), bias, residual, out.array, job)
            return out

        return conv

    names = (("Conv", ""), ("FusedConv", "com.microsoft"), ("Conv", LAST), ("FusedConv", LAST))
    return [declare(*name) for name in names]


def sources() -> list[str]:
    """Every source that these kernels launch."""
    both = (False, True)
    return [
        finish_source(t, bias=bias, residual=residual, relu=relu)
        for t in ("float", "double", "f16", "bf16")
        for bias in both
        for residual in both
        for relu in both
        if bias or residual or relu
    ]
