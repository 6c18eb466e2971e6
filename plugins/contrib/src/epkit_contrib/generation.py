"""Token search around a decoder's subgraph: GreedySearch and Sampling, as loops of standard operators."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import onnx_ir as ir
from onnx import TensorProto
from onnx.defs import OpSchema

from ._infer import attr, dims, elem, put
from ._paste import written
from ._search import Search, text_of
from ._shapes import values
from .declare import contrib

INT, GRAPH = OpSchema.AttrType.INT, OpSchema.AttrType.GRAPH
INPUTS = (
    ("input_ids", "I"),
    ("max_length", "I"),
    ("min_length", "I", "optional"),
    ("repetition_penalty", "T", "optional"),
    ("vocab_mask", "I", "optional"),
    ("prefix_vocab_mask", "I", "optional"),
    ("attention_mask", "I", "optional"),
)
SAMPLING_INPUTS = (*INPUTS, ("presence_mask", "I", "optional"), ("seed", "I", "optional"))
TYPES = {"T": ("tensor(float)",), "I": ("tensor(int32)",)}
ATTRIBUTES = {
    "decoder": GRAPH,
    "decoder_start_token_id": -1,
    "encoder": (GRAPH, None),
    "eos_token_id": INT,
    "init_decoder": (GRAPH, None),
    "model_type": 0,
    "no_repeat_ngram_size": 0,
    "pad_token_id": INT,
    "vocab_size": -1,
}


def infer_search(ctx: Any) -> None:
    """Sequences (batch, max_length); the scores of one step."""
    prompt, limit = dims(ctx, 0, 2), values(ctx, 1)
    put(ctx, 0, elem(ctx, 0), prompt and [prompt[0], limit[0] if limit else None])
    size = attr(ctx, "vocab_size", -1)
    put(ctx, 1, TensorProto.FLOAT, prompt and [prompt[0], size if size > 0 else None])


def searching(node: ir.Node, inputs: tuple[tuple[str, ...], ...]) -> Search:
    """What the node asks for, checked."""
    search = Search(node, [name for name, *_ in inputs])
    search.check()
    return search


def expand_greedy(node: ir.Node, imports: Mapping[str, int]) -> ir.Function:
    """A loop that appends the token with the highest score."""
    search = searching(node, INPUTS)
    choice = ["chosen = ArgMax<axis = 1, keepdims = 1>(scores)"]
    return written(text_of(search, imports, choice), node, imports)


@contrib(
    "GreedySearch",
    inputs=INPUTS,
    outputs=[("sequences", "I")],
    types=TYPES,
    attributes=ATTRIBUTES,
    infer=infer_search,
    expand=expand_greedy,
)
def greedy_search(xp: Any, *inputs: Any, **attributes: Any) -> Any:
    """Append the token with the highest score until all sequences have ended or are max_length long; pad the rest.

    The decoder is run on the prompt, then on one token at a time, with all states before it.
    """
    raise NotImplementedError("GreedySearch runs as the nodes that it expands to")


# ---- Sampling

GOLDEN, MIX_1, MIX_2 = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
"""Of the generator splitmix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014)."""


def mixed(source: str, target: str) -> list[str]:
    """``target``: the bits of uint64 ``source`` mixed by splitmix64."""
    t = target
    return [
        f'{t}_a = BitShift<direction = "RIGHT">({source}, by_30)',
        f"{t}_b = BitwiseXor({source}, {t}_a)",
        f"{t}_c = Mul({t}_b, mix_1)",
        f'{t}_d = BitShift<direction = "RIGHT">({t}_c, by_27)',
        f"{t}_e = BitwiseXor({t}_c, {t}_d)",
        f"{t}_f = Mul({t}_e, mix_2)",
        f'{t}_g = BitShift<direction = "RIGHT">({t}_f, by_31)',
        f"{t} = BitwiseXor({t}_f, {t}_g)",
    ]


def seeded(given: bool) -> list[str]:
    """``key`` (1,): bits that are the seed's; of another seed each run, if none is given."""
    names = {
        "golden": GOLDEN,
        "mix_1": MIX_1,
        "mix_2": MIX_2,
        "by_30": 30,
        "by_27": 27,
        "by_31": 31,
        "by_11": 11,
    }
    fresh = "RandomUniform<dtype = 11, high = 2147483648.0, low = 0.0, shape = [1]>()"
    return [
        *(f"{name} = Constant<value = uint64[1] {{{number}}}>()" for name, number in names.items()),
        f"seed_number = {'Cast<to = 7>(seed)' if given else fresh}",
        "seed_bits = Cast<to = 13>(seed_number)",
        "seed_row = Reshape(seed_bits, one)",
        "seed_far = Mul(seed_row, golden)",
        *mixed("seed_far", "key"),
    ]


def drawn() -> list[str]:
    """``uniform`` (batch, 1): double numbers in [0, 1), others each step and row."""
    return [
        "rows_end = Squeeze(batch)",
        "rows = Range(first, rows_end, axis)",
        "drawn_before = Mul(step, rows_end)",
        "draws = Add(rows, drawn_before)",
        "draw_bits = Cast<to = 13>(draws)",
        "draw_far = Mul(draw_bits, golden)",
        "draw_key = Add(draw_far, key)",
        *mixed("draw_key", "draw"),
        'draw_high = BitShift<direction = "RIGHT">(draw, by_11)',
        "draw_real = Cast<to = 11>(draw_high)",
        "grain = Constant<value = double {1.1102230246251565e-16}>()",
        "draw_row = Mul(draw_real, grain)",
        "uniform = Reshape(draw_row, column)",
    ]


def nucleus(top_p: float, keep: int, filter_value: float, custom: int) -> list[str]:
    """``scores``: ``all_scores``, with ``filter_value`` for all but the likeliest tokens, which reach top_p."""
    common = [
        "vocabulary_length = Shape<start = 1, end = 2>(all_scores)",
        f"ordered, order = TopK<axis = 1, largest = {int(bool(custom))}, sorted = 1>(all_scores, vocabulary_length)",
        "shares = Softmax<axis = 1>(ordered)",
    ]
    if custom:
        test = [
            f"share = Constant<value = float {{{top_p!r}}}>()",
            "reached = CumSum<exclusive = 1>(shares, axis)",
            "drop = Greater(reached, share)",
        ]
    else:
        test = [
            f"share = Constant<value = float {{{1.0 - top_p!r}}}>()",
            f"kept = Constant<value = int64[1] {{{max(keep, 1)}}}>()",
            "reached = CumSum(shares, axis)",
            "unlikely = LessOrEqual(reached, share)",
            "free = Sub(vocabulary_length, kept)",
            "vocabulary_last = Squeeze(vocabulary_length)",
            "ranks = Range(first, vocabulary_last, axis)",
            "may_go = Less(ranks, free)",
            "drop = And(unlikely, may_go)",
        ]
    return [
        *common,
        *test,
        "drop_number = Cast<to = 6>(drop)",
        "dropped_number = ScatterElements<axis = 1>(blank, order, drop_number)",
        "dropped = Cast<to = 9>(dropped_number)",
        f"filter_value = Constant<value = float {{{filter_value!r}}}>()",
        "scores = Where(dropped, filter_value, all_scores)",
    ]


def expand_sampling(node: ir.Node, imports: Mapping[str, int]) -> ir.Function:
    """A loop that appends a token drawn by its probability, among those that are likely enough."""
    search = searching(node, SAMPLING_INPUTS)
    choice = [
        *nucleus(
            search.real("top_p", 0.0),
            search.whole("min_tokens_to_keep", 0),
            search.real("filter_value", -1e20),
            search.whole("custom", 0),
        ),
        *drawn(),
        "precise = Cast<to = 11>(scores)",
        "probabilities = Softmax<axis = 1>(precise)",
        "cumulated = CumSum(probabilities, axis)",
        "sum = Gather<axis = 1>(cumulated, final)",
        "total = Reshape(sum, column)",
        "mark = Mul(uniform, total)",
        "passed = LessOrEqual(cumulated, mark)",
        "passed_number = Cast<to = 7>(passed)",
        "chosen = ReduceSum<keepdims = 1>(passed_number, one)",
    ]
    debug = len(node.outputs) > 1 and bool(node.outputs[1].name)
    text = text_of(search, imports, choice, seeded(search.has("seed")), "all_scores", debug)
    return written(text, node, imports)


@contrib(
    "Sampling",
    inputs=SAMPLING_INPUTS,
    outputs=[("sequences", "I"), ("filtered_logits", "T", "optional")],
    types=TYPES,
    attributes={
        **ATTRIBUTES,
        "custom": 0,
        "filter_value": -1e20,
        "min_tokens_to_keep": 0,
        "presence_penalty": 0.0,
        "temperature": 1.0,
        "top_p": 0.0,
    },
    infer=infer_search,
    expand=expand_sampling,
)
def sampling(xp: Any, *inputs: Any, **attributes: Any) -> Any:
    """GreedySearch, but the token is drawn by its probability among the likeliest, those that reach top_p together.

    The same seed gives the same tokens; they are not those that another runtime draws from it.
    """
    raise NotImplementedError("Sampling runs as the nodes that it expands to")
