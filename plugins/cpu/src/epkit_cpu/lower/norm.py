"""Softmax and normalisations of float32."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import numpy as np

from .step import Lowering, Operand, Step, View, longs

if TYPE_CHECKING:
    import onnx_ir as ir

STASH_FLOAT = 1


def norm_attributes(axis: int, flag: int, epsilon: float = 0.0, flat: int = 0) -> bytes:
    """NormAttributes in ops/norm.cpp."""
    return struct.pack("<qqfi", axis, flag, epsilon, flat)


def softmax(view: View, logarithm: int) -> Step | None:
    """Until opset 12 everything from the axis on is one row."""
    if view.type(0) != "float32":
        return None
    flat = view.opset < 13
    axis = int(view.attributes.get("axis", 1 if flat else -1))
    return view.step("softmax", norm_attributes(axis, logarithm, flat=int(flat)))


def bias_softmax(view: View) -> Step | None:
    """com.microsoft.BiasSoftmax: the bias lacks some of the axes before the axis."""
    if set(view.types()) != {"float32"}:
        return None
    inner = int(view.attributes["is_inner_broadcast"] != 0)
    return view.step("bias_softmax", norm_attributes(int(view.attributes.get("axis", 1)), inner))


def layer_norm(view: View) -> Step | None:
    """Scale and bias have the shape of what is normalised."""
    if set(view.types()) != {"float32"} or view.attributes.get("stash_type", 1) != STASH_FLOAT:
        return None
    axis = int(view.attributes.get("axis", -1))
    if not _covers(view, 1, axis) or (view.input(2) is not None and not _covers(view, 2, axis)):
        return None
    return view.step("layer_norm", norm_attributes(axis, 0, float(view.attributes.get("epsilon", 1e-5))))


def rms_norm(view: View) -> Step | None:
    """As layer normalisation, without mean and bias."""
    if set(view.types()) != {"float32"} or view.attributes.get("stash_type", 1) != STASH_FLOAT:
        return None
    axis = int(view.attributes.get("axis", -1))
    if not _covers(view, 1, axis):
        return None
    return view.step("layer_norm", norm_attributes(axis, 1, float(view.attributes.get("epsilon", 1e-5))))


def simplified_norm(view: View) -> Step | None:
    """onnxruntime's name for RMSNormalization."""
    return rms_norm(view) if len([value for value in view.outputs if value is not None]) == 1 else None


def _covers(view: View, index: int, axis: int) -> bool:
    """True if an input surely has one value for each element that is normalised together."""
    value, x, shape = view.input(index), view.input(0), view.shape(index)
    if value is None or x is None or x.shape is None or shape is None:
        return False
    return shape == tuple(x.shape)[axis % len(x.shape) :] if -len(x.shape) <= axis < len(x.shape) else False


def _repeats(skip: ir.Value, x: ir.Value) -> bool:
    """True if ``skip`` surely has the shape of ``x``, or of its last dimensions."""
    if x.shape is None or skip.shape is None:
        return False
    whole, part = ([d if isinstance(d, int) else d.value for d in v.shape or ()] for v in (x, skip))
    while part and part[0] == 1 and part != whole:
        part = part[1:]
    return bool(part) and None not in part and whole[len(whole) - len(part) :] == part


def skip_norm(view: View, rms: int) -> Step | None:
    """com.microsoft.Skip(Simplified)LayerNormalization: normalised sum of input, skip and bias; and the sum."""
    if set(view.types()) != {"float32"} or view.rank(0) is None:
        return None
    x, skip = view.input(0), view.input(1)
    if x is None or skip is None or not _repeats(skip, x) or not _covers(view, 2, -1):
        return None
    beta, bias = (None, view.input(3)) if rms else (view.input(3), view.input(4))
    outputs = (*view.outputs, None, None, None, None)[:4]
    inputs: tuple[Operand, ...] = (x, view.input(2), beta, skip, bias)
    epsilon = float(view.attributes.get("epsilon", 1e-12 if not rms else 1e-5))
    return Step("layer_norm", inputs, outputs, norm_attributes(-1, rms, epsilon), (view.node,))


def group_norm(view: View) -> Step | None:
    """One scale and bias for each channel; until opset 20 for each group, which must be constant here."""
    if set(view.types()) != {"float32"} or view.attributes.get("stash_type", 1) != STASH_FLOAT:
        return None
    groups, epsilon = int(view.attributes["num_groups"]), float(view.attributes.get("epsilon", 1e-5))
    packed = norm_attributes(groups, 0, epsilon)
    if groups < 1 or view.opset >= 21:
        return None if groups < 1 else view.step("group_norm", packed)
    x, given = view.input(0), [view.constant(index) for index in (1, 2)]
    channels = x.shape[1] if x is not None and x.shape is not None and len(x.shape) > 1 else None
    if (
        not isinstance(channels, int)
        or channels % groups
        or any(c is None or c.shape != (groups,) for c in given)
    ):
        return None
    each = [np.repeat(c, channels // groups) for c in given if c is not None]
    return view.step("group_norm", packed, (x, *each))


def instance_norm(view: View) -> Step | None:
    """Each channel by itself."""
    if set(view.types()) != {"float32"} or (view.rank(0) or 0) < 3 or view.opset < 6:
        return None
    return view.step("group_norm", norm_attributes(1, 1, float(view.attributes.get("epsilon", 1e-5))))


def batch_norm(view: View) -> Step | None:
    """Inference with constant statistics: a factor and a term for each channel."""
    constants = [view.constant(i) for i in range(1, 5)]
    if view.type(0) != "float32" or view.opset < 9 or (view.rank(0) or 0) < 2:
        return None
    if view.attributes.get("training_mode", 0) or len([v for v in view.outputs if v is not None]) != 1:
        return None
    found = [c.astype(np.float64) for c in constants if c is not None and c.ndim == 1]
    if len(found) != 4 or len({c.size for c in found}) != 1:
        return None  # other sizes are an error that the portable kernel explains
    scale, bias, mean, variance = found
    with np.errstate(all="ignore"):
        factor = scale / np.sqrt(variance + float(view.attributes.get("epsilon", 1e-5)))
        term = (bias - mean * factor).astype(np.float32)
        factor = factor.astype(np.float32)
    step = view.step("channel_affine", b"", (view.input(0), factor, term))
    return Step(step.kernel, step.inputs, step.outputs[:1], step.attributes, step.nodes)


def local_response(view: View) -> Step | None:
    """LRN: each value by the squares of its neighbours across the channels."""
    size = int(view.attributes["size"])
    if view.type(0) != "float32" or size < 1:
        return None
    alpha, beta, bias = (
        float(view.attributes.get(*item)) for item in (("alpha", 1e-4), ("beta", 0.75), ("bias", 1.0))
    )
    return view.step("local_response", struct.pack("<q4f", min(size, 1 << 32), alpha / size, beta, bias, 0.0))


def lp_normalise(view: View) -> Step | None:
    """Over the norm along an axis."""
    axis, p = int(view.attributes.get("axis", -1)), int(view.attributes.get("p", 2))
    return view.step("lp_normalise", longs(axis, p)) if view.type(0) == "float32" and p in (1, 2) else None


NORM: dict[tuple[str, str], Lowering] = {
    ("", "Softmax"): lambda view: softmax(view, 0),
    ("", "LogSoftmax"): lambda view: softmax(view, 1),
    ("", "LayerNormalization"): layer_norm,
    ("", "RMSNormalization"): rms_norm,
    ("", "SimplifiedLayerNormalization"): simplified_norm,
    ("", "GroupNormalization"): group_norm,
    ("", "InstanceNormalization"): instance_norm,
    ("", "BatchNormalization"): batch_norm,
    ("", "LRN"): local_response,
    ("", "LpNormalization"): lp_normalise,
    ("com.microsoft", "BiasSoftmax"): bias_softmax,
    ("com.microsoft", "SkipLayerNormalization"): lambda view: skip_norm(view, 0),
    ("com.microsoft", "SkipSimplifiedLayerNormalization"): lambda view: skip_norm(view, 1),
}
