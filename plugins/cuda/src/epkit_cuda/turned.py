"""Rotary embedding of queries and of keys joins the attention that reads them: one kernel fills the caches, too."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from epkit.backend import RunContext, Subgraph
from epkit.kernels.attributes import attribute_values

from .kernels.attention import Scores, attend_rounded, result
from .kernels.turned import MOST, Turns
from .launch import dense, stream_of
from .memory import Tensor
from .together import Group, Readers, Values, placed

if TYPE_CHECKING:
    from .step import Step

Q, K, V, MASK, PAST_KEY, PAST_VALUE = range(6)
"""Inputs of Attention."""


@dataclass(frozen=True)
class Turned:
    """The shortcut through two rotations and an attention.

    Attributes:
        node: the attention.
        operands: its inputs, but for queries and keys before they were turned; None where one is absent.
        angles: cosines, sines and positions, of both rotations.
        interleaved: which numbers are pairs.
        precision: the provider's option.
    """

    node: ir.Node
    operands: tuple[ir.Value | None, ...]
    angles: tuple[ir.Value, ...]
    interleaved: bool
    precision: str

    def run(self, context: RunContext, given: Values) -> dict[ir.Value, Tensor] | None:
        operands = [None if value is None else given[value] for value in self.operands]
        q, k, v, mask, *pasts = operands
        cosines, sines, ids = (given[value] for value in self.angles)
        options = attribute_values(self.node)
        heads, groups = options["q_num_heads"], options["kv_num_heads"]
        assert q is not None and k is not None and v is not None
        if not self._fit(q, k, v, pasts, (cosines, sines, ids), (heads, groups)):
            return None
        (batch, length), size = q.shape[:2], q.shape[2] // heads
        kept = 0 if pasts[0] is None else pasts[0].shape[2]
        shape = (batch, groups, kept + length, size)
        keys, values = (context.empty(self.node.outputs[at], shape, q.dtype) for at in (1, 2))
        queries = stream_of(context).machine.xp.empty((batch, heads, length, size), q.dtype)
        parts = [dense(context, item) for item in (q, k, v)]
        kept_ones = [None if past is None else dense(context, past) for past in pasts]
        table = [dense(context, item) for item in (cosines, sines)]
        turns = Turns(parts, kept_ones, table, dense(context, ids), (keys.array, values.array, queries))
        turns.launch(context, str(self.node.name), interleaved=self.interleaved)
        out, view = result(context, self.node, q, (batch, heads, length, size))
        scale = options.get("scale", 1 / math.sqrt(size))
        offset = kept if options.get("is_causal", 0) else None
        how = Scores(scale, options.get("softcap", 0.0), offset, self.precision)
        hidden = None if mask is None else dense(context, mask)
        attend_rounded(context, [queries, keys.array, values.array], hidden, view, how)
        return {self.node.outputs[0]: out, self.node.outputs[1]: keys, self.node.outputs[2]: values}

    def _fit(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        pasts: Sequence[Tensor | None],
        angles: Sequence[Tensor],
        counts: tuple[int, int],
    ) -> bool:
        """True if everything is of one type and of the sizes that the kernel takes."""
        heads, groups = counts
        cosines, sines, ids = angles
        if q.ndim != 3 or k.shape != v.shape or k.shape[:2] != q.shape[:2] or not q.size:
            return False
        size, pairs = q.shape[2] // heads, cosines.shape[-1]
        if (heads * size, groups * size) != (q.shape[2], k.shape[2]) or heads % groups:
            return False
        if cosines.ndim != 2 or sines.shape != cosines.shape or not 0 < 2 * pairs <= size:
            return False
        given = [past for past in pasts if past is not None]
        alike = len({item.dtype for item in (q, k, v, cosines, sines, *given)}) == 1
        kept = given[0].shape[2] if given and given[0].ndim == 4 else 0
        wanted = (q.shape[0], groups, kept, size)
        whole = len(given) in (0, 2) and all(past.shape == wanted for past in given)
        many = q.size + 2 * math.prod((q.shape[0], groups, kept + q.shape[1], size)) < MOST
        return alike and whole and many and ids.dtype == np.int64 and ids.size == q.shape[0] * q.shape[1]


def join(
    steps: Sequence[Step | Group], readers: Readers, subgraph: Subgraph, precision: str
) -> list[Step | Group]:
    """The steps, attentions joined by the rotations that only they read."""
    outside = set(subgraph.outputs)
    makers = {step.outputs[0]: step for step in steps if not isinstance(step, Group) and _rotates(step)}
    groups = []
    for step in steps:
        if isinstance(step, Group) or not _attends(step):
            continue
        node = step.nodes[0]
        pair = [_maker(value, node, makers, readers, outside) for value in node.inputs[:2]]
        if pair[0] is None or pair[1] is None or pair[0] is pair[1]:
            continue
        turns = [item.nodes[0] for item in pair if item is not None]
        angles = [tuple(turn.inputs[1:4]) for turn in turns]
        options = [attribute_values(turn) for turn in turns]
        if angles[0] != angles[1] or not _alike(options, attribute_values(node)):
            continue
        inputs = [*node.inputs, *[None] * 6][:6]
        operands = (turns[0].inputs[0], turns[1].inputs[0], *(_named(value) for value in inputs[V:]))
        interleaved = bool(options[0].get("interleaved", 0))
        shortcut = Turned(node, operands, angles[0], interleaved, precision)  # type: ignore[arg-type]
        groups.append(Group((pair[0], pair[1], step), shortcut))
    return placed(steps, groups)


def _named(value: ir.Value | None) -> ir.Value | None:
    return value if value is not None and value.name else None


def _maker(
    value: ir.Value | None,
    node: ir.Node,
    makers: Mapping[ir.Value, Step],
    readers: Readers,
    outside: set[ir.Value],
) -> Step | None:
    """The rotation that makes a value for this attention alone."""
    alone = value is not None and value not in outside and readers.get(value) == {node}
    return makers.get(value) if alone and value is not None else None


def _rotates(step: Step) -> bool:
    """The standard's rotation by positions that are given."""
    node = step.nodes[0]
    plain = step.kernel is not None and node.op_type == "RotaryEmbedding" and not node.domain
    return plain and len(node.inputs) == 4 and all(value is not None for value in node.inputs)


def _attends(step: Step) -> bool:
    """The standard's attention of joined heads, whose caches are wanted."""
    node = step.nodes[0]
    plain = step.kernel is not None and node.op_type == "Attention" and not node.domain
    known = {"q_num_heads", "kv_num_heads"} <= set(attribute_values(node)) if plain else False
    return known and len(node.outputs) == 3 and all(value.name for value in node.outputs)


def _alike(options: Sequence[Mapping[str, Any]], attention: Mapping[str, Any]) -> bool:
    """True if both rotations turn whole heads, those of the attention, in one way."""
    heads = [item.get("num_heads", 0) for item in options]
    same = len({item.get("interleaved", 0) for item in options}) == 1
    whole = not any(item.get("rotary_embedding_dim", 0) for item in options)
    return same and whole and heads == [attention["q_num_heads"], attention["kv_num_heads"]]
