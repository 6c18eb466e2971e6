"""Attention, a block of scores at a time."""

from __future__ import annotations

import struct

from .step import Lowering, Step, View


def attention_attributes(heads: int, kv_heads: int, causal: int, scale: float, softcap: float) -> bytes:
    """AttentionAttributes in ops/attention.cpp."""
    return struct.pack("<3q2f", heads, kv_heads, causal, scale, softcap)


KNOWN = {"is_causal", "q_num_heads", "kv_num_heads", "scale", "softcap", "softmax_precision"} | {
    "qk_matmul_output_mode"
}


def attention(view: View) -> Step | None:
    """ONNX's Attention, with past and present."""
    kinds = [view.type(index) for index in (0, 1, 2, 4, 5) if view.input(index) is not None]
    if set(kinds) != {"float32"} or view.type(3) not in ("", "float32", "bool"):
        return None
    attributes, past = view.attributes, view.input(4) is not None
    if not attributes.keys() <= KNOWN:
        return None
    if past != (view.input(5) is not None) or view.input(6) is not None:
        return None
    made = [value is not None for value in view.outputs]
    if any(made[3:]) or (any(made[1:]) and not past):
        return None
    if past and made[1:3] != [True, True]:
        return None  # the native kernel writes what it joined
    causal = int(attributes.get("is_causal", 0))
    if causal and past:
        return None
    if view.type(3) == "bool" or attributes.get("softmax_precision", 1) != 1:
        return None  # a query that may see nothing is defined by the portable kernel
    ranks = {view.rank(index) for index in range(3)}
    heads, kv_heads = (int(attributes.get(name, 0)) for name in ("q_num_heads", "kv_num_heads"))
    if ranks not in ({3}, {4}) or (ranks == {3} and (heads < 1 or kv_heads < 1)):
        return None
    scale, softcap = float(attributes.get("scale", 0.0)), float(attributes.get("softcap", 0.0))
    if "scale" in attributes and scale == 0.0:
        return None
    if softcap and view.input(3) is not None:
        return None
    packed = attention_attributes(heads, kv_heads, causal, scale, softcap)
    return view.step("attention", packed, (*view.inputs, *(None,) * 6)[:6])


def multi_head(view: View) -> Step | None:
    """com.microsoft.MultiHeadAttention of separate queries, keys and values, with a bias of the scores."""
    kinds = {view.type(index) for index in (0, 1, 2) if view.input(index) is not None}
    given = [view.input(index) is not None for index in range(10)]
    if kinds != {"float32"} or given[3] or given[4] or any(given[6:]) or not all(given[:3]):
        return None
    if [view.rank(index) for index in range(3)] != [3, 3, 3] or view.type(5) not in ("", "float32"):
        return None
    if any(value is not None for value in view.outputs[1:]) or view.attributes.get("unidirectional", 0):
        return None
    heads, scale = int(view.attributes["num_heads"]), float(view.attributes.get("scale", 0.0))
    inputs = (*view.inputs[:3], view.input(5))
    step = view.step("attention", attention_attributes(heads, heads, 0, scale, 0.0), inputs)
    return Step(step.kernel, step.inputs, step.outputs[:1], step.attributes, step.nodes)


ATTENTION: dict[tuple[str, str], Lowering] = {
    ("", "Attention"): attention,
    ("com.microsoft", "MultiHeadAttention"): multi_head,
}
