"""Token search as a function of standard operators: a Loop around a decoder's subgraph, as text.

In the loop, ``sequence`` (batch, length) is what there is so far, and ``scores`` (batch, vocabulary) are those of
the next token, which one filter after the other changes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from ._paste import PLACE

OLDEST = 18
"""The standard's first version with all that is written here."""

LOWEST = "float {-3.4028234663852886e38}"


@dataclass(frozen=True)
class Search:
    """One node that searches.

    Attributes:
        node: its inputs are named as in ``inputs``; those that are left out are not mentioned in the text.
        inputs: the names of all formal inputs.
    """

    node: ir.Node
    inputs: Sequence[str]

    def has(self, name: str) -> bool:
        """Whether the node gives this input."""
        place = self.inputs.index(name)
        return place < len(self.node.inputs) and self.node.inputs[place] is not None

    def whole(self, name: str, default: int) -> int:
        """An integer attribute."""
        return self.node.attributes.get_int(name, default)

    def real(self, name: str, default: float) -> float:
        """A float attribute."""
        return self.node.attributes.get_float(name, default)

    @property
    def decoder(self) -> ir.Graph:
        """The subgraph."""
        return self.node.attributes["decoder"].as_graph()

    @property
    def layers(self) -> int:
        """How many states the decoder passes on to itself."""
        return len(self.decoder.outputs) - 1

    def check(self) -> None:
        """Refuse what is not decoded with a growing past, as GPT-2 is."""
        if self.whole("model_type", 0):
            raise ValueError("only decoders like GPT-2 are known, model_type=0")
        if self.layers < 1 or len(self.decoder.inputs) != self.layers + 3:
            raise ValueError(
                f"the decoder has {len(self.decoder.inputs)} inputs and {self.layers + 1} outputs; known are "
                "input_ids, position_ids, attention_mask, past_0, ... and logits, present_0, ..."
            )
        self.past_sizes()

    def past_sizes(self) -> tuple[int, int, str]:
        """Heads, size and element type of the past, which is (2, batch, heads, length, size)."""
        past = self.decoder.inputs[3]
        sizes = list(past.shape or ())
        heads, size = (sizes[2], sizes[4]) if len(sizes) == 5 else (None, None)
        kind = {ir.DataType.FLOAT: "float", ir.DataType.FLOAT16: "float16"}.get(
            past.dtype or ir.DataType.UNDEFINED
        )
        if isinstance(heads, int) and isinstance(size, int) and kind:
            return heads, size, kind
        raise ValueError(
            f"past_0 of the decoder, {past.shape}, should be float (2, batch, heads, length, size)"
        )

    def vocabulary(self) -> int | None:
        """How many tokens there are, None if that is not known before the run."""
        own, shape = self.whole("vocab_size", -1), self.decoder.outputs[0].shape
        last = shape[-1] if shape else None
        return own if own > 0 else last if isinstance(last, int) else None


def listed(prefix: str, names: Iterable[object]) -> str:
    """The names, each with the prefix, as text."""
    return ", ".join(f"{prefix}{name}" for name in names)


def text_of(
    search: Search,
    imports: Mapping[str, int],
    choice: Sequence[str],
    before: Sequence[str] = (),
    filtered: str = "scores",
    debug: bool = False,
) -> str:
    """The function as text.

    Args:
        imports: the model's opset versions.
        choice: lines that choose ``chosen`` (batch, 1) int64 by the scores that have passed all filters.
        before: lines before the loop.
        filtered: the name of those scores.
        debug: whether ``scores`` of the last step are an output, too.
    """
    heads, size, kind = search.past_sizes()
    layers = range(search.layers)
    extra = search.vocabulary() if debug else None
    if debug and extra is None:
        raise ValueError("the second output needs a vocabulary of known size (the attribute vocab_size)")
    lines = [
        *_start(search, heads, size, kind),
        *before,
        *([f"vocabulary = Constant<value = int64[1] {{{extra}}}>()"] if debug else []),
        *(["blank_shape = Concat<axis = 0>(batch, vocabulary)"] if debug else []),
        *(["no_scores = ConstantOfShape<value = float[1] {0}>(blank_shape)"] if debug else []),
        f"all_tokens, all_positions, all_mask, all_next, all_done, whole{', filtered_logits' if debug else ''}, "
        f"{listed('all_past_', layers)} = Loop(steps, true, input_ids, positions, mask, count, none, input_ids"
        f"{', no_scores' if debug else ''}, {listed('no_past_', layers)}) <body = step (int64 step, bool going, "
        "int32[?,?] tokens, int32[?,?] places, int32[?,?] seen, int32[?,?] next, bool[?,?] done, int32[?,?] sequence"
        f"{', float[?,?] last_scores' if debug else ''}, "
        f"{listed(f'{kind}[?,?,?,?,?] past_', layers)}) => (more, token, next, wider, after, ended, longer"
        f"{', scores_out' if debug else ''}, {listed('present_', layers)}) {{",
        *_decoded(search, filtered),
        *choice,
        *(["scores_out = Identity(scores)"] if debug else []),
        *_step_end(search),
        "}>",
        "made = Shape<start = 1, end = 2>(whole)",
        "rest = Sub(limit, made)",
        "pads = Concat<axis = 0>(zero, zero, zero, rest)",
        "sequences = Pad(whole, pads, pad)",
    ]
    opset = max(OLDEST, imports.get("", OLDEST))
    outputs = "sequences, filtered_logits" if debug else "sequences"
    body = "\n".join(lines)
    return (
        f'<domain: "com.microsoft", opset_import: ["" : {opset}, "{PLACE}" : 1]>\n'
        f"{search.node.op_type} ({', '.join(search.inputs)}) => ({outputs}) {{\n{body}\n}}"
    )


def _start(search: Search, heads: int, size: int, kind: str) -> list[str]:
    """The prompt's mask, positions (which count what is not padding, whatever the mask), and empty states."""
    given = search.has("attention_mask")
    code = {"float": "float[1] {0}", "float16": "float16[1] {0}"}[kind]
    return [
        "zero = Constant<value = int64[1] {0}>()",
        "one = Constant<value = int64[1] {1}>()",
        "first = Constant<value = int64 {0}>()",
        "axis = Constant<value = int64 {1}>()",
        "true = Constant<value = bool {1}>()",
        "false = Constant<value = bool {0}>()",
        "unit = Constant<value = int32 {1}>()",
        "nil = Constant<value = int32 {0}>()",
        f"lowest = Constant<value = {LOWEST}>()",
        f"pad = Constant<value = int32 {{{search.whole('pad_token_id', 0)}}}>()",
        f"eos = Constant<value = int64 {{{search.whole('eos_token_id', 0)}}}>()",
        "limit_wide = Cast<to = 7>(max_length)",
        "limit = Reshape(limit_wide, one)",
        "prompt = Shape<start = 1, end = 2>(input_ids)",
        "batch = Shape<start = 0, end = 1>(input_ids)",
        "left = Sub(limit, prompt)",
        "some_left = Max(left, zero)",
        "steps = Squeeze(some_left)",
        "is_pad = Equal(input_ids, pad)",
        "real = Not(is_pad)",
        "counted = Cast<to = 6>(real)",
        "mask = Identity(attention_mask)" if given else "mask = Identity(counted)",
        "sums = CumSum(counted, axis)",
        "earlier = Sub(sums, counted)",
        "positions = Mul(earlier, counted)",
        "count = ReduceSum<keepdims = 1>(counted, one)",
        "column = Concat<axis = 0>(batch, one)",
        "none = Expand(false, column)",
        "two = Constant<value = int64[1] {2}>()",
        f"heads = Constant<value = int64[1] {{{heads}}}>()",
        f"size = Constant<value = int64[1] {{{size}}}>()",
        "past_shape = Concat<axis = 0>(two, batch, heads, zero, size)",
        *(f"no_past_{i} = ConstantOfShape<value = {code}>(past_shape)" for i in range(search.layers)),
    ]


def _decoded(search: Search, result: str) -> list[str]:
    """The decoder (the first time the other one, if there is one), and the filtered scores of the next token."""
    layers = range(search.layers)
    given = f"(tokens, places, seen, {listed('past_', layers)})"
    names = f"logits, {listed('present_', layers)}"
    if "init_decoder" in search.node.attributes:
        branches = []
        for name, attribute in (("then", "init_decoder"), ("else", "decoder")):
            made = f"{name}_logits, {listed(f'{name}_present_', layers)}"
            branches.append(
                f"{name}_branch = {name}_graph () => ({made}) {{ {made} = {PLACE}.{attribute}{given} }}"
            )
        lines = ["at_first = Equal(step, first)", f"{names} = If(at_first) <{', '.join(branches)}>"]
    else:
        lines = [f"{names} = {PLACE}.decoder{given}"]
    size = search.whole("vocab_size", -1)
    cut = [
        f"size_of_vocabulary = Constant<value = int64[1] {{{size}}}>()",
        "last_cut = Slice(last, zero, size_of_vocabulary, one)",
    ]
    return [
        *lines,
        "final = Constant<value = int64 {-1}>()",
        "last = Gather<axis = 1>(logits, final)",
        *(cut if size > 0 else []),
        f"raw = Cast<to = 1>({'last_cut' if size > 0 else 'last'})",
        "each = Shape(raw)",
        "blank = Expand(nil, each)",
        "length = Shape<start = 1, end = 2>(sequence)",
        "wide = Cast<to = 7>(sequence)",
        *_filters(search, result),
    ]


def _filters(search: Search, result: str) -> list[str]:
    """The filters that the node asks for, in the order of onnxruntime; the last one makes ``result``."""
    steps: list[list[str]] = []
    if search.has("repetition_penalty"):
        steps.append(
            [
                "same = Shape(sequence)",
                "ones = Expand(unit, same)",
                "used_count = ScatterElements<axis = 1>(blank, wide, ones)",
                "used = Cast<to = 9>(used_count)",
                "nought = Constant<value = float {0}>()",
                "negative = Less(FROM, nought)",
                "multiplied = Mul(FROM, repetition_penalty)",
                "divided = Div(FROM, repetition_penalty)",
                "penalised = Where(negative, multiplied, divided)",
                "TO = Where(used, penalised, FROM)",
            ]
        )
    if (n := search.whole("no_repeat_ngram_size", 0)) > 0:
        steps.append(_no_repeats(n))
    if search.has("vocab_mask"):
        steps.append(["allowed = Cast<to = 9>(vocab_mask)", "TO = Where(allowed, FROM, lowest)"])
    if search.has("prefix_vocab_mask"):
        steps.append(
            [
                "prefix_allowed = Cast<to = 9>(prefix_vocab_mask)",
                "later = Greater(step, first)",
                "allowed_now = Or(later, prefix_allowed)",
                "TO = Where(allowed_now, FROM, lowest)",
            ]
        )
    if search.has("min_length"):
        steps.append(
            [
                "least = Cast<to = 7>(min_length)",
                "short = Less(length, least)",
                "vocabulary_size = Shape<start = 1, end = 2>(raw)",
                "vocabulary_end = Squeeze(vocabulary_size)",
                "every = Range(first, vocabulary_end, axis)",
                "is_eos = Equal(every, eos)",
                "not_yet = And(short, is_eos)",
                "TO = Where(not_yet, lowest, FROM)",
            ]
        )
    if (temperature := search.real("temperature", 1.0)) not in (0.0, 1.0):
        steps.append(
            [
                f"temperature = Constant<value = float {{{temperature!r}}}>()",
                "TO = Div(FROM, temperature)",
            ]
        )
    if "presence_mask" in search.inputs and search.has("presence_mask"):
        penalty = search.real("presence_penalty", 0.0)
        steps.append(
            [
                f"presence_penalty = Constant<value = float {{{penalty!r}}}>()",
                "present_tokens = Cast<to = 1>(presence_mask)",
                "penalties = Mul(present_tokens, presence_penalty)",
                "TO = Sub(FROM, penalties)",
            ]
        )
    names = ["raw", *(f"scores_{i}" for i in range(len(steps)))]
    lines = [
        line.replace("FROM", names[i]).replace("TO", names[i + 1])
        for i, step in enumerate(steps)
        for line in step
    ]
    return [*lines, f"{result} = Identity({names[-1]})"]


def _no_repeats(n: int) -> list[str]:
    """No token that would make n tokens come again as they came before."""
    lines = [
        f"n = Constant<value = int64[1] {{{n - 1}}}>()",
        "runs = Sub(length, n)",
        "windows = Max(runs, zero)",
        "words = Slice(wide, n, length, one)",
        "words_shape = Shape(words)",
        "match_0 = Expand(true, words_shape)",
    ]
    for i in range(n - 1):  # the i-th token of each window is that of the latest n - 1
        lines += [
            f"at_{i} = Constant<value = int64[1] {{{i}}}>()",
            f"to_{i} = Add(at_{i}, windows)",
            f"window_{i} = Slice(wide, at_{i}, to_{i}, one)",
            f"late_{i} = Add(at_{i}, windows)",
            f"late_end_{i} = Add(late_{i}, one)",
            f"latest_{i} = Slice(wide, late_{i}, late_end_{i}, one)",
            f"equal_{i} = Equal(window_{i}, latest_{i})",
            f"match_{i + 1} = And(match_{i}, equal_{i})",
        ]
    return [
        *lines,
        f"repeats = Cast<to = 6>(match_{n - 1})",
        'blocked_count = ScatterElements<axis = 1, reduction = "max">(blank, words, repeats)',
        "blocked = Cast<to = 9>(blocked_count)",
        "TO = Where(blocked, lowest, FROM)",
    ]


def _step_end(search: Search) -> list[str]:
    """What the chosen token changes."""
    return [
        "is_end = Equal(chosen, eos)",
        "ended = Or(done, is_end)",
        "chosen_narrow = Cast<to = 6>(chosen)",
        "token = Where(ended, pad, chosen_narrow)",
        "longer = Concat<axis = 1>(sequence, token)",
        "now = Expand(unit, column)",
        "wider = Concat<axis = 1>(seen, now)",
        "after = Add(next, unit)",
        "ended_number = Cast<to = 6>(ended)",
        "all_ended = ReduceMin<keepdims = 0>(ended_number)",
        "over = Cast<to = 9>(all_ended)",
        "more = Not(over)",
    ]
