"""Attention with its splitting into heads and their joining, and under the name that com.microsoft gives it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx_ir as ir

from ..fuse import Fused, fusion
from ..pattern import Match
from ..rule import Rule, Scope, Verdict, producer, rule
from ..shapes import dims_text, same_dim, same_dims
from .attention import node_reading


@rule("Reshape", serves=("attention_of_joined_heads",))
def join_heads(node: ir.Node, scope: Scope) -> Verdict:
    """Reshape(x, [rows, width]) = Reshape(Reshape(x, [batch, length, width]), [rows, width]) for heads x."""
    turned, output = producer(node.inputs[0], "Transpose"), node.outputs[0]
    if turned is None or output.shape is None or len(output.shape) != 2:
        return False
    whole, attended = turned.outputs[0], turned.inputs[0]
    maker = None if attended is None else attended.producer()
    if whole.shape is None or len(whole.shape) != 4 or maker is None or maker.op_type != "Attention":
        return False
    heads, size, width = whole.shape[2], whole.shape[3], output.shape[1]
    if not isinstance(heads, int) or not isinstance(size, int) or width != heads * size:
        return f"{dims_text(output)} does not join the heads of {dims_text(whole)}"
    target = scope.constant(np.array([0, 0, width], np.int64), f"{output.name}/joined")
    joined = scope.make(node, "Reshape", [whole, target], version=13)
    joined.type, joined.shape = whole.type, ir.Shape([whole.shape[0], whole.shape[1], width])
    node.replace_input_with(0, joined)
    return True


_HEADS = "Transpose(Reshape({0}, {0}_shape), perm=[0, 2, 1, 3])"


@fusion(
    "Attention-23(query, key, value, mask, past_key, past_value) -> output, present_key, present_value",
    f"""
    q = {_HEADS.format("query")}
    k = {_HEADS.format("key")}
    v = {_HEADS.format("value")}
    whole, present_key, present_value = Attention(q, k, v, mask, past_key, past_value, scale=scale)
    output = Reshape(Transpose(whole, perm=[0, 2, 1, 3]), output_shape)
    """,
    f"""
    q = {_HEADS.format("query")}
    k = {_HEADS.format("key")}
    v = {_HEADS.format("value")}
    whole = Any(Attention(q, k, v, mask, scale=scale), Attention(q, k, v, scale=scale))
    output = Reshape(Transpose(whole, perm=[0, 2, 1, 3]), output_shape)
    """,
)
def attention_of_joined_heads(match: Match) -> Fused | str:
    """Attention over [batch, length, heads · size]: the heads are split before, and joined after."""
    heads: dict[str, int] = {}
    known: dict[str, np.ndarray[Any, Any]] = {}
    for name in ("query", "key", "value"):
        whole, split = match[name], node_reading(match, match[f"{name}_shape"], "Reshape").outputs[0]
        count = _heads(whole, split)
        if isinstance(count, str):
            return count
        heads[name] = count
        known[f"{name}_shape"] = np.array([0, 0, count, _last(whole) // count], np.int64)
    if heads["key"] != heads["value"]:
        return f"{heads['key']} heads of keys, and {heads['value']} of values"
    query, output = match["query"], match["output"]
    width = heads["query"] * (_last(match["value"]) // heads["value"])
    assert query.shape is not None
    if output.shape is None or not same_dims(list(output.shape), [query.shape[0], query.shape[1], width]):
        return f"{dims_text(output)} does not join the heads of {dims_text(query)}"
    known["output_shape"] = np.array([0, 0, width], np.int64)
    attributes = {
        "q_num_heads": heads["query"],
        "kv_num_heads": heads["key"],
        "scale": match.attributes["scale"],
    }
    return Fused(attributes, known=known)


def _last(value: ir.Value) -> int:
    last = None if value.shape is None else value.shape[-1]
    assert isinstance(last, int)
    return last


def _heads(whole: ir.Value, split: ir.Value) -> int | str:
    """Into how many heads a value is split, or why that is no splitting into heads."""
    before, after = whole.shape, split.shape
    if before is None or after is None or len(before) != 3 or len(after) != 4:
        return f"{dims_text(split)} is not {dims_text(whole)} in heads"
    count, size, width = after[2], after[3], before[2]
    if (
        not (isinstance(count, int) and isinstance(size, int) and isinstance(width, int))
        or count * size != width
    ):
        return f"{dims_text(split)} is not {dims_text(whole)} in heads"
    if not same_dims(list(before)[:2], list(after)[:2]):
        return f"{dims_text(split)} has other first axes than {dims_text(whole)}"
    return count


@fusion(
    "ms.MultiHeadAttention(query, key, value, bias, key_padding_mask, attention_bias) -> output",
    """
    output = Any(Attention(query, key, value, attention_bias, scale=scale, q_num_heads=heads, kv_num_heads=kv),
                 Attention(query, key, value, scale=scale, q_num_heads=heads, kv_num_heads=kv))
    """,
)
def multi_head_attention(match: Match, scope: Scope) -> Fused | str:
    """MultiHeadAttention(q, k, v, attention_bias=m) = Attention(q, k, v, m), each head with keys of its own.

    Its mask does not broadcast along the queries: one that does is expanded, once for all layers.
    """
    heads, query, key = match.attributes["heads"], match["query"], match["key"]
    if match.attributes["kv"] != heads:
        return f"{heads} heads share {match.attributes['kv']} heads of keys and values"
    if not heads:
        return f"{dims_text(query)} is in heads already"
    scale = match.attributes["scale"]
    default = 1 / math.sqrt(_last(query) // heads)
    is_default = scale is None or math.isclose(scale, default, rel_tol=1e-7)
    attributes = {"num_heads": heads, "scale": None if is_default else float(scale)}
    bias = match.get("attention_bias")
    if bias is None:
        return Fused(attributes)
    dims = [] if bias.shape is None else list(bias.shape)
    if len(dims) != 4 or query.shape is None or key.shape is None or bias.dtype != query.dtype:
        return f"the mask {dims_text(bias)} should have 4 axes, and be added"
    if not same_dim(dims[3], key.shape[1]):
        return f"the mask {dims_text(bias)} may broadcast along the keys, and MultiHeadAttention's does not"
    if same_dim(dims[2], query.shape[1]):
        return Fused(attributes)
    if dims[2] != 1:
        return f"the mask {dims_text(bias)} may not have as many rows as {dims_text(query)}"
    return Fused(attributes, inputs={"attention_bias": _full_mask(bias, query, match.root, scope)})


def _full_mask(bias: ir.Value, query: ir.Value, root: ir.Node, scope: Scope) -> ir.Value:
    """The mask with a row for each query [.., .., length, ..]; made before the first that reads it."""
    assert query.shape is not None and bias.shape is not None
    rows = query.shape[1]
    key = ("full mask", bias, str(rows))
    if key in scope.memo:
        return scope.memo[key]
    first = min((use.node for use in bias.uses() if use.node.graph is scope.graph), key=scope.place)
    other = first.inputs[0]
    if (
        other is not None
        and other.shape is not None
        and len(other.shape) == 3
        and same_dim(other.shape[1], rows)
    ):
        root, query = first, other
    if isinstance(rows, int):
        target = scope.constant(np.array([1, 1, rows, 1], np.int64), f"{bias.name}/rows")
    else:
        length = scope.make(root, "Shape", [query], {"start": 1, "end": 2}, version=15)
        one = scope.constant(np.array([1], np.int64), "one")
        target = scope.make(root, "Concat", [one, one, length, one], {"axis": 0}, version=13)
    made = scope.make(root, "Expand", [bias, target], version=13)
    made.type, made.shape = bias.type, ir.Shape([bias.shape[0], bias.shape[1], rows, bias.shape[3]])
    if root is first:
        scope.memo[key] = made
    return made


RULES: tuple[Rule, ...] = (join_heads, attention_of_joined_heads, multi_head_attention)
