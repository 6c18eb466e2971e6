"""Attention. Vaswani et al., "Attention Is All You Need" (2017); shared keys and values: Ainslie et al. (2023).

The standard's Attention is the hub: it takes masks that broadcast, and fewer heads of keys and values than of
queries. It is made first from tensors of separate heads [batch, heads, length, size], then takes in the
splitting into heads and their joining. For providers that know another name there are rules from the hub on.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import onnx_ir as ir

from ..fuse import Fused, Inside, fusion
from ..pattern import Match
from ..rule import Rule, Scope, Verdict, producer, rule
from ..shapes import dims_text, rank_of, same_dim, same_dims

_REPEATED = (
    "Reshape(Expand(Unsqueeze({0}, array({0}_axes)), {0}_expanded), {0}_repeated, allowzero={0}_allowzero)"
)


def _core(masked: str) -> str:
    """The formula of attention; ``masked`` is that of the scores after the mask."""
    return f"""
    q = Any(query * scalar(q_factor), query / scalar(q_divisor), query)
    all_keys = shared(Any({_REPEATED.format("key")}, key))
    t = Transpose(all_keys, perm=[0, 1, 3, 2])
    k = Any(t * scalar(k_factor), t)
    product = MatMul(q, k)
    scores = Any(product / scalar(divisor), product * scalar(factor), product)
    weights = Softmax({masked}, axis=axis)
    guarded = Any(Where(IsNaN(weights), 0.0, weights), weights)
    output = MatMul(guarded, shared(Any({_REPEATED.format("value")}, value)))
    """


@rule("MatMul", serves=("attention", "attention_where"))
def expose_keys(node: ir.Node, scope: Scope) -> Verdict:
    """q · Transpose(x, 0231) = q · Transpose(Transpose(x, 0213), 0132): the keys as [batch, heads, length, size]."""
    keys = node.inputs[1]
    scaled = producer(keys, "Mul")
    if scaled is not None:
        keys = next((value for value in scaled.inputs if producer(value, "Transpose")), None)
    swap = producer(keys, "Transpose")
    if swap is None or keys is None or not _leads_to_softmax(node):
        return False
    if list(swap.attributes["perm"].as_ints() if "perm" in swap.attributes else ()) != [0, 2, 3, 1]:
        return False
    whole = scope.make(swap, "Transpose", [swap.inputs[0]], {"perm": [0, 2, 1, 3]})
    whole.type = keys.type
    if keys.shape is not None:
        whole.shape = ir.Shape([keys.shape[axis] for axis in (0, 1, 3, 2)])
    swap.replace_input_with(0, whole)
    swap.attributes["perm"] = ir.AttrInt64s("perm", [0, 1, 3, 2])
    return True


def _leads_to_softmax(node: ir.Node) -> bool:
    for _ in range(4):
        readers = [use.node for use in node.outputs[0].uses()]
        if len(readers) != 1 or readers[0].op_type not in ("Mul", "Div", "Add", "Where", "Softmax"):
            return False
        node = readers[0]
        if node.op_type == "Softmax":
            return True
    return False


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


@fusion("Attention-23(query, key, value, mask) -> output", _core("Any(scores + mask, scores)"))
def attention(match: Match) -> Fused | str:
    """Attention(q, k, v, m) = Softmax(s q kᵀ + m) v; a head of k and v may serve several of q.

    The standard's softmax gives zeros where everything is masked by -inf, as formulas with a guard against NaN do.
    """
    return _as_attention(match)


def _as_attention(match: Match) -> Fused | str:
    query, key, value = match["query"], match["key"], match["value"]
    problem = _four_axes(match) or _repeats(match, "key") or _repeats(match, "value")
    if problem:
        return problem
    if key.shape is None or value.shape is None or not same_dim(key.shape[1], value.shape[1]):
        return f"{dims_text(key)} and {dims_text(value)} have different heads"
    mask = match.get("mask")
    kind = query.dtype if "fill" not in match.attributes else ir.DataType.BOOL
    if mask is not None and (rank_of(mask) not in (2, 3, 4) or mask.dtype != kind):
        return f"the mask {dims_text(mask)} has another rank or type than the scores"
    if mask is not None and not (_fits(mask, match) or _is_joined_like_query(match)):
        return f"the mask {dims_text(mask)} may widen the scores"
    given = match.attributes
    scale = float(given.get("q_factor", 1)) * float(given.get("k_factor", 1)) * float(given.get("factor", 1))
    scale /= float(given.get("divisor", 1)) * float(given.get("q_divisor", 1))
    return Fused({"scale": scale}, known=_repeat_targets(match))


@fusion(
    "Attention-23(query, key, value, mask) -> output",
    _core("Where(mask, scores, scalar(fill))"),
    _core("Where(drop, scalar(fill), scores)"),
)
def attention_where(match: Match, scope: Scope) -> Fused | str:
    """Attention(q, k, v, m) = Softmax(where(m, s q kᵀ, -inf)) v, for a mask that says what takes part.

    A finite number in the place of -inf gives another result where a whole row is masked: then the mask has to be
    known, and to leave something in each row.
    """
    drop = match.get("drop")
    if drop is not None:
        match.names["mask"] = drop
    fill, mask = float(match.attributes["fill"]), match.array("mask")
    if fill != -math.inf and (fill > _LEAST or mask is None):
        return f"masked scores are {fill}, not -inf, and a row might be masked whole"
    kept = mask if drop is None or mask is None else np.logical_not(mask)
    if fill != -math.inf and (kept is None or not kept.any(axis=-1).all()):
        return f"masked scores are {fill}, not -inf, and a row of {match['mask'].name} is masked whole"
    found = _as_attention(match)
    if drop is None or isinstance(found, str):
        return found
    key = ("not", drop)
    if key not in scope.memo:
        reader = min((use.node for use in drop.uses() if use.node.graph is scope.graph), key=scope.place)
        scope.memo[key] = scope.make(reader, "Not", [drop], version=1, like=drop)
    return replace(found, inputs={"mask": scope.memo[key]}, inside={"drop": Inside("Not", "mask", version=1)})


_LEAST = -1e30
"""No score comes near it: what is masked by it weighs nothing beside any that is not."""


def _four_axes(match: Match) -> str | None:
    for name in ("query", "key", "value"):
        if rank_of(match[name]) != 4:
            return f"{dims_text(match[name])} should have 4 axes"
    if match.attributes["axis"] not in (-1, 3):
        return f"the softmax is over axis {match.attributes['axis']}"
    return None


def _fits(mask: ir.Value, match: Match) -> bool:
    """Whether adding the mask leaves the shape of the scores [batch, heads, length, all] for certain.

    Of the last axis the product with the values takes care: they have as many rows as there are keys.
    """
    query = match["query"].shape
    if query is None or mask.shape is None:
        return False
    pairs = zip(list(mask.shape)[-2::-1], list(query)[2::-1], strict=False)
    return all(dim == 1 or same_dim(dim, whole) for dim, whole in pairs)


def _is_joined_like_query(match: Match) -> bool:
    """Whether the result is reshaped to [batch, length, heads · size] of the query: then no mask has widened it.

    (The number of elements would be another; and the product with the values fixes the mask's last axis.)
    """
    query, value, node = match["query"].shape, match["value"].shape, match.root
    for op_type in ("Transpose", "Reshape"):
        readers = [use.node for use in node.outputs[0].uses()]
        if len(readers) != 1 or readers[0].op_type != op_type:
            return False
        node = readers[0]
    joined = node.outputs[0].shape
    if joined is None or query is None or value is None or len(joined) != 3:
        return False
    heads, size = query[1], value[3]
    width = heads * size if isinstance(heads, int) and isinstance(size, int) else None
    return width is not None and same_dims(list(joined), [query[0], query[2], width])


def _repeats(match: Match, name: str) -> str | None:
    """Why the repetition of heads before the product is none of whole heads, or None."""
    axes = match.attributes.get(f"{name}_axes")
    if axes is None:
        return None
    expanded = match.get(f"{name}_expanded")
    reader = None if expanded is None else next(iter(expanded.uses()), None)
    before = match[name].shape
    if list(axes) != [2] or before is None or reader is None:
        return f"{dims_text(match[name])} is repeated along the axes {list(axes)}"
    wide = _node_reading(match, expanded, "Expand").outputs[0]
    result = _node_reading(match, match[f"{name}_repeated"], "Reshape").outputs[0]
    if wide.shape is None or result.shape is None or len(wide.shape) != 5 or len(result.shape) != 4:
        return f"{dims_text(wide)} and {dims_text(result)} are no repetition of heads"
    heads, copies = before[1], wide.shape[2]
    kept = [wide.shape[0], wide.shape[1], *list(wide.shape)[3:]]
    if not same_dims(kept, list(before)) or not isinstance(heads, int) or not isinstance(copies, int):
        return f"{dims_text(wide)} is not only copies of {dims_text(match[name])}"
    if not same_dims(list(result.shape), [before[0], heads * copies, before[2], before[3]]):
        return f"{dims_text(result)} does not have {heads * copies} heads"
    return None


def _node_reading(match: Match, value: ir.Value | None, op_type: str) -> ir.Node:
    """The matched node of an operator that reads a value as its second input."""
    return next(n for n in match.nodes.values() if n.op_type == op_type and n.inputs[1] is value)


def _repeat_targets(match: Match) -> dict[str, np.ndarray[Any, Any]]:
    """The targets of Expand and Reshape, computed outside, as constants."""
    known: dict[str, np.ndarray[Any, Any]] = {}
    for name in ("key", "value"):
        if f"{name}_axes" not in match.attributes:
            continue
        wide = _node_reading(match, match[f"{name}_expanded"], "Expand").outputs[0].shape
        before = match[name].shape
        assert wide is not None and before is not None
        copies, heads, size = wide[2], before[1], before[3]
        assert isinstance(copies, int) and isinstance(heads, int)
        known[f"{name}_expanded"] = np.array([1, 1, copies, 1, 1], np.int64)
        known[f"{name}_repeated"] = np.array(
            [0, heads * copies, -1, size if isinstance(size, int) else 0], np.int64
        )
    return known


_SHARED = f"""
    all_keys = shared({_REPEATED.format("key")})
    all_values = shared({_REPEATED.format("value")})
    output = Any(Attention(query, all_keys, all_values, mask, scale=scale, is_causal=is_causal),
                 Attention(query, all_keys, all_values, scale=scale, is_causal=is_causal))
    """


@fusion("Attention-23(query, key, value, mask) -> output", _SHARED)
def attention_of_shared_heads(match: Match) -> Fused | str:
    """Attention(q, repeat(k), repeat(v)) = Attention(q, k, v), each head of k and v serving several of q."""
    problem = _repeats(match, "key") or _repeats(match, "value")
    key, value = match["key"], match["value"]
    if problem or key.shape is None or value.shape is None:
        return problem or "unknown shapes"
    if rank_of(match["query"]) != 4 or not same_dim(key.shape[1], value.shape[1]):
        return (
            f"{dims_text(key)} and {dims_text(value)} have different heads, or those of the query are joined"
        )
    attributes = {name: match.attributes[name] for name in ("scale", "is_causal")}
    return Fused(attributes, known=_repeat_targets(match))


@fusion(
    "Attention-23(query, key, value, mask, past_key, past_value) -> output, present_key, present_value",
    """
    present_key = Concat(past_key, key, axis=key_joined)
    present_value = Concat(past_value, value, axis=value_joined)
    output = Any(Attention(query, present_key, present_value, mask, scale=scale),
                 Attention(query, present_key, present_value, scale=scale))
    """,
)
def attention_with_past(match: Match) -> dict[str, Any] | str:
    """Attention(q, [K, k], [V, v]) = Attention(q, k, v; past K, V), which also returns what it joined."""
    for name in ("key", "value"):
        if match.attributes[f"{name}_joined"] not in (-2, 2) or rank_of(match[name]) != 4:
            return f"{dims_text(match[name])} is joined along the axis {match.attributes[f'{name}_joined']}"
    return {"scale": match.attributes["scale"]}


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
        whole, split = match[name], _node_reading(match, match[f"{name}_shape"], "Reshape").outputs[0]
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


RULES: tuple[Rule, ...] = (
    expose_keys,
    attention,
    attention_where,
    attention_of_shared_heads,
    attention_with_past,
    join_heads,
    attention_of_joined_heads,
    multi_head_attention,
)
