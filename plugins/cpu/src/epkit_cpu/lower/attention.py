"""Attention, a block of scores at a time, and the rotation of its inputs.

The kernels look at the shapes of each run; what they do not know goes to the portable kernel, for that run only.
"""

from __future__ import annotations

import math
import struct

from .step import Lowering, Step, View, longs

MOST = 1 << 40
"""No window is wider: sums with positions stay in 64 bits."""
ROTARY, INTERLEAVED, SMOOTH = 1, 2, 4
SINGLE = (1, 10, 16)
"""Precisions of the softmax that mean float32: scores have that already."""
MS = "com.microsoft"


def attention_attributes(
    heads: int,
    kv_heads: int,
    scale: float | None,
    *,
    left: int = -1,
    right: int = -1,
    softcap: float = 0.0,
    fill: float = 0.0,
    flags: int = 0,
) -> bytes:
    """AttentionAttributes in ops/heads.h."""
    scale = math.nan if scale is None else scale
    sides = (min(left, MOST), min(right, MOST))
    return struct.pack("<4q3fi", heads, kv_heads, *sides, scale, softcap, fill, flags)


def attention(view: View) -> Step | None:
    """ONNX's Attention without its output of scores."""
    attributes = view.attributes
    floats = [view.type(index) for index in (0, 1, 2, 4, 5) if view.input(index) is not None]
    if set(floats) != {"float32"} or view.type(3) not in ("", "float32", "bool"):
        return None
    if view.type(6) not in ("", "int64") or attributes.get("softmax_precision", 1) not in SINGLE:
        return None
    has_past = view.input(4) is not None
    if has_past != (view.input(5) is not None) or (has_past and view.input(6) is not None):
        return None
    if any(value is not None for value in view.outputs[3:]) or (has_past and len(view.outputs) < 3):
        return None
    left, right = (int(attributes.get(f"{side}_window_size", -1)) for side in ("left", "right"))
    if min(left, right) < -1:
        return None
    if int(attributes.get("is_causal", 0)):
        right = 0
    heads, kv_heads = (int(attributes.get(name, 0)) for name in ("q_num_heads", "kv_num_heads"))
    scale = attributes.get("scale")
    softcap = float(attributes.get("softcap", 0.0))
    return view.step(
        "attention", attention_attributes(heads, kv_heads, scale, left=left, right=right, softcap=softcap)
    )


def multi_head(view: View) -> Step | None:
    """com.microsoft.MultiHeadAttention whose past grows."""
    attributes = view.attributes
    floats = {view.type(index) for index in (0, 1, 2, 3, 5, 6, 7) if view.input(index) is not None}
    if floats != {"float32"} or view.type(4) not in ("", "int32"):
        return None
    if view.input(8) is not None or view.input(9) is not None:
        return None
    has_past = view.input(6) is not None
    if any(value is not None for value in view.outputs[3:]) or (has_past and len(view.outputs) < 3):
        return None
    heads = int(attributes["num_heads"])
    right = 0 if attributes.get("unidirectional", 0) else -1
    fill = float(attributes.get("mask_filter_value", -10000.0))
    packed = attention_attributes(heads, heads, _scale(view), right=right, fill=fill)
    return view.step("multi_head", packed)


def _scale(view: View) -> float | None:
    """The scale of an operator of com.microsoft, where 0 is the default."""
    return float(view.attributes.get("scale", 0.0)) or None


PLAIN = {
    "k_quant_type": ("NONE",),
    "v_quant_type": ("NONE",),
    "qk_output": (0,),
    "sliding_window_cache": (0,),
    "kv_cache_bit_width": (0,),
    "causal": (0, 1),
}
"""Attributes of GroupQueryAttention, and the values that the kernel knows."""


def grouped(view: View) -> Step | None:
    """com.microsoft.GroupQueryAttention of float32 with a float32 cache."""
    attributes = view.attributes
    floats = {view.type(index) for index in (0, 1, 2, 3, 4, 7, 8, 10, 11) if view.input(index) is not None}
    if floats != {"float32"} or view.type(9) not in ("", "int64"):
        return None
    if any(view.type(index) != "int32" for index in (5, 6)) or len(view.outputs) < 3:
        return None
    if any(view.input(index) is not None for index in range(12, 17)) or any(view.outputs[3:]):
        return None
    if any(name in attributes and attributes[name] not in known for name, known in PLAIN.items()):
        return None
    causal, window = int(attributes.get("causal", 1)), int(attributes.get("local_window_size", -1))
    if window == 0 or window < -1 or (window > 0 and not causal):
        return None
    flags = ROTARY * bool(attributes.get("do_rotary", 0))
    flags |= INTERLEAVED * bool(attributes.get("rotary_interleaved", 0))
    flags |= SMOOTH * (int(attributes.get("smooth_softmax", -1)) > 0)
    packed = attention_attributes(
        int(attributes["num_heads"]),
        int(attributes["kv_num_heads"]),
        _scale(view),
        left=window - 1 if window > 0 else -1,
        right=0 if causal else -1,
        softcap=float(attributes.get("softcap", 0.0)),
        flags=flags,
    )
    return view.step("grouped_attention", packed)


def rotary(view: View, second: int) -> Step | None:
    """RotaryEmbedding: positions are the last input, or (``second``, com.microsoft's) the second."""
    place = 1 if second else 3
    floats = {view.type(index) for index in range(4) if index != place}
    if floats != {"float32"} or view.type(place) not in (("int64",) if second else ("", "int64")):
        return None
    names = ("num_heads", "rotary_embedding_dim", "interleaved")
    return view.step("rotary", longs(*(int(view.attributes.get(name, 0)) for name in names), second))


ATTENTION: dict[tuple[str, str], Lowering] = {
    ("", "Attention"): attention,
    ("", "RotaryEmbedding"): lambda view: rotary(view, 0),
    (MS, "MultiHeadAttention"): multi_head,
    (MS, "GroupQueryAttention"): grouped,
    (MS, "RotaryEmbedding"): lambda view: rotary(view, 1),
}
