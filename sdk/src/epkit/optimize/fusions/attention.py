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

from ...backend.subgraph import constant_of
from ..fuse import Fused, Inside, fusion, is_read_outside
from ..pattern import Match
from ..rule import Rule, Scope
from ..shapes import dims_text, rank_of, same_dim, same_dims

_REPEATED = (
    "Reshape(Expand(Unsqueeze({0}, array({0}_axes)), {0}_expanded), {0}_repeated, allowzero={0}_allowzero)"
)


_GUARD = "Where(IsNaN(weights), 0.0, weights)"


def _core(masked: str, *guards: str) -> str:
    """The formula of attention; ``masked`` is that of scores after the mask, ``guards`` those of weights after it."""
    return f"""
    q = Any(query * scalar(q_factor), query / scalar(q_divisor), query)
    all_keys = shared(Any({_REPEATED.format("key")}, key))
    t = Transpose(all_keys, perm=[0, 1, 3, 2])
    k = Any(t * scalar(k_factor), t)
    product = MatMul(q, k)
    scores = Any(product / scalar(divisor), product * scalar(factor), product)
    weights = Softmax({masked}, axis=axis)
    guarded = Any({", ".join((*guards, _GUARD))}, weights)
    output = MatMul(guarded, shared(Any({_REPEATED.format("value")}, value)))
    """


_WITH_WEIGHTS = "Attention-23(query, key, value, mask) -> output, present_key, present_value, guarded"


@fusion(_WITH_WEIGHTS, _core("Any(scores + mask, scores)"))
def attention(match: Match) -> Fused | str:
    """Attention(q, k, v, m) = Softmax(s q kᵀ + m) v; a head of k and v may serve several of q.

    The standard's softmax gives zeros where everything is masked by -inf, as formulas with a guard against NaN do.
    Weights that something else reads are the fourth output, that of the scores after the softmax.
    """
    return _as_attention(match)


def _as_attention(match: Match) -> Fused | str:
    query, mask = match["query"], match.get("mask")
    problem = _four_axes(match) or _repeats(match, "key") or _repeats(match, "value") or _broadcasts(match)
    if problem:
        return problem
    kind = query.dtype if "fill" not in match.attributes else ir.DataType.BOOL
    if mask is not None and (rank_of(mask) not in (2, 3, 4) or mask.dtype != kind):
        return f"the mask {dims_text(mask)} has another rank or type than the scores"
    if mask is not None and not (_fits(mask, match) or _is_joined_like_query(match)):
        return f"the mask {dims_text(mask)} may widen the scores"
    given = match.attributes
    scale = float(given.get("q_factor", 1)) * float(given.get("k_factor", 1)) * float(given.get("factor", 1))
    scale /= float(given.get("divisor", 1)) * float(given.get("q_divisor", 1))
    stage = 3 if is_read_outside(match["guarded"], set(match.nodes.values())) else None
    return Fused({"scale": scale, "qk_matmul_output_mode": stage}, known=_repeat_targets(match))


@fusion(
    _WITH_WEIGHTS,
    _core("Where(mask, scores, scalar(fill))", "Where(mask, weights, 0.0)"),
    _core("Where(drop, scalar(fill), scores)", "Where(drop, 0.0, weights)"),
)
def attention_where(match: Match, scope: Scope) -> Fused | str:
    """Attention(q, k, v, m) = Softmax(where(m, s q kᵀ, -inf)) v, for a mask that says what takes part.

    A finite number in the place of -inf gives equal weights where a whole row is masked, and not zeros. Where that may
    be, the mask is added: where(m, s, f) = s + where(m, 0, f) for f so large that a score is lost beside it.
    """
    asked, fill = match.get("drop") or match["mask"], float(match.attributes["fill"])
    match.names["mask"] = asked
    found = _as_attention(match)
    if isinstance(found, str):
        return found
    if fill == -math.inf or (fill <= _FAR and _leaves_no_row_empty(match, asked)):
        return found if "drop" not in match.names else _kept_by(asked, found, scope)
    if fill > _ABSORBS:
        return f"masked scores are {fill}, not -inf, and a row of {asked.name} might be masked whole"
    return _added(asked, "drop" in match.names, match, found, scope)


_FAR, _ABSORBS = -1e9, -1e30
"""What is masked by the first weighs nothing beside any score; beside the second, any score is lost to rounding."""


def _leaves_no_row_empty(match: Match, asked: ir.Value) -> bool:
    """Whether rows that are masked whole are known not to be, or are given zeros."""
    guard = match["guarded"].producer()
    if guard is not None and guard.op_type == "Where" and guard.inputs[0] is asked:
        return True
    known = constant_of(asked)
    if known is None:
        return False
    return bool((np.logical_not(known) if "drop" in match.names else known).any(axis=-1).all())


def _kept_by(drop: ir.Value, found: Fused, scope: Scope) -> Fused:
    """The mask of what takes part, from that of what does not; made once."""
    key = ("not", drop)
    if key not in scope.memo:
        scope.memo[key] = scope.make(_first_reader(drop, scope), "Not", [drop], version=1, like=drop)
    return replace(found, inputs={"mask": scope.memo[key]}, inside={"drop": Inside("Not", "mask", version=1)})


def _added(asked: ir.Value, drops: bool, match: Match, found: Fused, scope: Scope) -> Fused:
    """With the mask as numbers that are added; made once."""
    dtype = match["query"].dtype
    assert dtype is not None
    key = ("added", asked, drops, match.attributes["fill"], dtype)
    zero = np.zeros((), dtype.numpy())
    if key not in scope.memo:
        fill = scope.constant(np.asarray(match.attributes["fill"], zero.dtype), f"{asked.name}/fill")
        choices = [scope.constant(zero, f"{asked.name}/zero"), fill]
        inputs = [asked, *(choices[::-1] if drops else choices)]
        made = scope.make(_first_reader(asked, scope), "Where", inputs, version=16)
        made.type, made.shape = match["query"].type, asked.shape
        scope.memo[key] = made
    inside = (
        {"drop": Inside("Less", "mask", (zero,))} if drops else {"mask": Inside("Equal", "mask", (zero,))}
    )
    return replace(found, inputs={"mask": scope.memo[key]}, inside=inside)


def _first_reader(value: ir.Value, scope: Scope) -> ir.Node:
    return min((use.node for use in value.uses() if use.node.graph is scope.graph), key=scope.place)


def _four_axes(match: Match) -> str | None:
    for name in ("query", "key", "value"):
        if rank_of(match[name]) != 4:
            return f"{dims_text(match[name])} should have 4 axes"
    if match.attributes["axis"] not in (-1, 3):
        return f"the softmax is over axis {match.attributes['axis']}"
    return None


def _broadcasts(match: Match) -> str | None:
    """Why the products may broadcast, which Attention does not: batches of one, heads that are not shared evenly."""
    query, key, value = (list(match[name].shape or ()) for name in ("query", "key", "value"))
    if not same_dim(key[1], value[1]):
        return f"{dims_text(match['key'])} and {dims_text(match['value'])} have different heads"
    if not same_dim(query[0], key[0]) or not same_dim(key[0], value[0]):
        return f"{dims_text(match['query'])} and {dims_text(match['key'])} may have different batches"
    both = query[1], key[1]
    if not same_dim(*both) and not (
        isinstance(both[0], int) and isinstance(both[1], int) and both[1] and both[0] % both[1] == 0
    ):
        return f"the heads of {dims_text(match['query'])} may not share those of {dims_text(match['key'])} evenly"
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
    wide = node_reading(match, expanded, "Expand").outputs[0]
    result = node_reading(match, match[f"{name}_repeated"], "Reshape").outputs[0]
    if wide.shape is None or result.shape is None or len(wide.shape) != 5 or len(result.shape) != 4:
        return f"{dims_text(wide)} and {dims_text(result)} are no repetition of heads"
    heads, copies = before[1], wide.shape[2]
    kept = [wide.shape[0], wide.shape[1], *list(wide.shape)[3:]]
    if not same_dims(kept, list(before)) or not isinstance(heads, int) or not isinstance(copies, int):
        return f"{dims_text(wide)} is not only copies of {dims_text(match[name])}"
    if not same_dims(list(result.shape), [before[0], heads * copies, before[2], before[3]]):
        return f"{dims_text(result)} does not have {heads * copies} heads"
    return None


def node_reading(match: Match, value: ir.Value | None, op_type: str) -> ir.Node:
    """The matched node of an operator that reads a value as its second input."""
    return next(n for n in match.nodes.values() if n.op_type == op_type and n.inputs[1] is value)


def _repeat_targets(match: Match) -> dict[str, np.ndarray[Any, Any]]:
    """The targets of Expand and Reshape, computed outside, as constants."""
    known: dict[str, np.ndarray[Any, Any]] = {}
    for name in ("key", "value"):
        if f"{name}_axes" not in match.attributes:
            continue
        wide = node_reading(match, match[f"{name}_expanded"], "Expand").outputs[0].shape
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


RULES: tuple[Rule, ...] = (attention, attention_where, attention_of_shared_heads, attention_with_past)
