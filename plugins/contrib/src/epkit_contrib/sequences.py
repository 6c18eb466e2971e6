"""Operators of text generation and of sequences of tokens."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import TensorProto
from onnx.defs import OpSchema

from epkit.kernels._pointwise import scalar

from ._infer import dims, elem, put
from ._shapes import copied
from .declare import contrib

COUNTS = "tensor(int32)"
TOKENS = "tensor(int64)"
REALS = ("tensor(float)", "tensor(float16)")


def windows(xp: Any, x: Any, size: int) -> Any:
    """(..., n) as (..., n - size + 1, size): all runs of ``size`` neighbours."""
    place = xp.arange(max(x.shape[-1] - size + 1, 0))[:, None] + xp.arange(size)
    return xp.take(x, place, axis=-1)


@contrib(
    "NGramRepeatBlock",
    inputs=[("input_ids", "Tid"), ("scores", "T")],
    outputs=[("scores_out", "T")],
    types={"Tid": [TOKENS], "T": ["tensor(float)"]},
    attributes={"ngram_size": OpSchema.AttrType.INT},
    infer=copied(1, element_of=1),
)
def n_gram_repeat_block(xp: Any, input_ids: Any, scores: Any, *, ngram_size: int) -> Any:
    """The scores, -inf for each token that would end an n-gram that the sequence holds already."""
    if ngram_size < 1:
        raise ValueError(f"attribute ngram_size={ngram_size} is not positive")
    if input_ids.ndim != 2 or scores.ndim != 2 or input_ids.shape[0] != scores.shape[0]:
        raise ValueError(
            f"inputs input_ids {input_ids.shape} and scores {scores.shape} have no batch in common"
        )
    result = xp.asarray(scores, copy=True)
    if input_ids.shape[1] < ngram_size:
        return result
    grams = windows(xp, input_ids, ngram_size)
    tail = input_ids[:, None, input_ids.shape[1] - ngram_size + 1 :]
    row, place = xp.nonzero(xp.all(grams[..., :-1] == tail, axis=-1))
    banned = grams[row, place, -1]
    if banned.size and (xp.min(banned) < 0 or xp.max(banned) >= scores.shape[1]):
        raise ValueError(f"input input_ids has tokens outside the {scores.shape[1]} of scores")
    result[row, banned] = -xp.inf
    return result


def infer_bifurcation(ctx: Any) -> None:
    """Some tokens, and an index."""
    put(ctx, 0, TensorProto.INT64, [None])
    put(ctx, 1, TensorProto.INT64, [])


@contrib(
    "BifurcationDetector",
    inputs=[
        ("src_tokens", "T"),
        ("cur_tokens", "T"),
        ("prev_suffix_match_idx", "T"),
        ("pred_tokens", "T", "optional"),
    ],
    outputs=[("tokens", "T"), ("suffix_match_idx", "T")],
    types={"T": [TOKENS]},
    attributes={"max_ngram_size": 3, "min_ngram_size": 1},
    infer=infer_bifurcation,
)
def bifurcation_detector(
    xp: Any,
    source: Any,
    current: Any,
    previous: Any,
    predicted: Any = None,
    *,
    max_ngram_size: int = 3,
    min_ngram_size: int = 1,
) -> Any:
    """Current tokens and the predicted ones up to their first difference from the source; where to go on.

    That is after the only place in the source at which the shortest n-gram that has one such place, and
    ends the tokens, is found; -1 if there is none.
    """
    start = int(scalar(xp, previous, "prev_suffix_match_idx"))
    if source.ndim != 1 or current.ndim != 1 or not 1 <= min_ngram_size <= max_ngram_size:
        raise ValueError(
            f"inputs src_tokens {source.shape} and cur_tokens {current.shape} should have one axis, "
            f"min_ngram_size={min_ngram_size} be from 1 to max_ngram_size={max_ngram_size}"
        )
    tokens = current
    if predicted is not None:
        if not 0 <= start <= source.shape[0] or predicted.shape != (source.shape[0] + 1 - start,):
            raise ValueError(
                f"input pred_tokens of shape {predicted.shape} should go on from token {start} of "
                f"{source.shape[0]} to one after the last"
            )
        different = xp.nonzero(predicted[:-1] != source[start:])[0]
        end = int(different[0]) if different.size else predicted.shape[0] - 1
        tokens = xp.concat([current, predicted[: end + 1]])
    match = -1
    for size in range(min_ngram_size, min(max_ngram_size, tokens.shape[0]) + 1):
        found = xp.nonzero(xp.all(windows(xp, source, size) == tokens[tokens.shape[0] - size :], axis=-1))[0]
        if not found.size:
            break
        match = int(found[0]) + size if found.size == 1 else -1
        if found.size == 1:
            break
    return xp.asarray(tokens, copy=True), xp.asarray(match, dtype=xp.int64)


def infer_removed(ctx: Any) -> None:
    """(tokens, hidden), (batch, sequence), (batch + 1,), (1,)."""
    x = dims(ctx, 0)
    batch, sequence, hidden = x if x is not None and len(x) == 3 else (None, None, None)
    put(ctx, 0, elem(ctx, 0), [None, hidden])
    put(ctx, 1, TensorProto.INT32, [batch, sequence])
    put(ctx, 2, TensorProto.INT32, [batch + 1 if isinstance(batch, int) else None])
    put(ctx, 3, TensorProto.INT32, [1])


@contrib(
    "RemovePadding",
    inputs=[("input", "T"), ("sequence_token_count", "M")],
    outputs=[("output", "T"), ("token_offset", "M"), ("cumulated_seq_len", "M"), ("max_seq_len", "M")],
    types={"T": REALS, "M": [COUNTS]},
    infer=infer_removed,
)
def remove_padding(xp: Any, x: Any, counts: Any) -> Any:
    """The tokens without padding; the places of tokens, then of padding; summed lengths; the longest."""
    if x.ndim != 3 or counts.shape != x.shape[:1]:
        raise ValueError(
            f"inputs input {x.shape} and sequence_token_count {counts.shape} have no batch in common"
        )
    batch, sequence, hidden = x.shape
    if batch and (xp.min(counts) < 0 or xp.max(counts) > sequence):
        raise ValueError(f"input sequence_token_count={counts.tolist()} has counts outside 0 to {sequence}")
    padding = xp.reshape(xp.arange(sequence) >= counts[:, None], (-1,))
    order = xp.argsort(padding, stable=True)
    total = int(xp.sum(counts))
    ends = xp.concat([xp.zeros((1,), dtype=xp.int32), xp.astype(xp.cumulative_sum(counts), xp.int32)])
    longest = xp.max(counts, initial=0)
    return (
        xp.take(xp.reshape(x, (batch * sequence, hidden)), order[:total], axis=0),
        xp.astype(xp.reshape(order, (batch, sequence)), xp.int32),
        ends,
        xp.reshape(xp.asarray(longest, dtype=xp.int32), (1,)),
    )


def infer_restored(ctx: Any) -> None:
    """(batch, sequence, hidden)."""
    x, places = dims(ctx, 0), dims(ctx, 1)
    put(ctx, 0, elem(ctx, 0), [*places, x[1] if x and len(x) == 2 else None] if places is not None else None)


@contrib(
    "RestorePadding",
    inputs=[("input", "T"), ("token_offset", "M")],
    outputs=[("output", "T")],
    types={"T": REALS, "M": [COUNTS]},
    infer=infer_restored,
)
def restore_padding(xp: Any, x: Any, places: Any) -> Any:
    """The tokens where RemovePadding took them from, zeros elsewhere."""
    if x.ndim != 2 or places.ndim != 2 or x.shape[0] > places.size:
        raise ValueError(f"inputs input {x.shape} and token_offset {places.shape} do not fit together")
    flat = xp.reshape(places, (-1,))[: x.shape[0]]
    if flat.size and (xp.min(flat) < 0 or xp.max(flat) >= places.size):
        raise ValueError(f"input token_offset has places outside the {places.size} of the result")
    result = xp.zeros((places.size, x.shape[1]), dtype=x.dtype)
    result[flat] = x
    return xp.reshape(result, (*places.shape, x.shape[1]))


@contrib(
    "DynamicTimeWarping",
    inputs=[("input", "F")],
    outputs=[("output", "I")],
    types={"F": ["tensor(float)"], "I": [COUNTS]},
    infer=lambda ctx: put(ctx, 0, TensorProto.INT32, [2, None]),
)
@np.errstate(all="ignore")
def dynamic_time_warping(xp: Any, cost: Any) -> Any:
    """The cheapest path through a matrix of costs, from the first to the last element: (2, steps).

    A step goes to the next row, the next column, or both; that last one only where it is cheapest alone.
    """
    table = cost[0] if cost.ndim == 3 and cost.shape[0] == 1 else cost
    if table.ndim != 2 or 0 in table.shape:
        raise ValueError(f"input input of shape {cost.shape} should be a matrix")
    table = np.asarray(table.tolist(), dtype=np.float32)
    rows, columns = table.shape
    best = np.full((rows + 1, columns + 1), np.inf, np.float32)
    best[0, 0] = 0
    came = np.zeros((rows + 1, columns + 1), np.int8)
    for diagonal in range(2, rows + columns + 1):
        i = np.arange(max(1, diagonal - columns), min(rows, diagonal - 1) + 1)
        j = diagonal - i
        both, down, across = best[i - 1, j - 1], best[i - 1, j], best[i, j - 1]
        choice = np.where((both < down) & (both < across), 0, np.where((down < both) & (down < across), 1, 2))
        best[i, j] = table[i - 1, j - 1] + np.choose(choice, (both, down, across))
        came[i, j] = choice
    came[0, :], came[:, 0] = 2, 1
    path = []
    row, column = rows, columns
    while row or column:
        path.append((row - 1, column - 1))
        step = came[row, column]
        row, column = row - (step != 2), column - (step != 1)
    return xp.asarray(np.array(path[::-1], dtype=np.int32).T)
