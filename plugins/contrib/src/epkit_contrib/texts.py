"""Operators on strings and characters: Tokenizer, MurmurHash3, WordConvEmbedding."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from onnx import TensorProto
from onnx.defs import OpSchema

from epkit.kernels._re2 import as_python
from epkit.kernels.text import strings

from ._infer import attr, dims, put
from .declare import contrib

START, END = "\x02", "\x03"
INT = (OpSchema.AttrType.INT, None)


def infer_tokens(ctx: Any) -> None:
    """One more axis, as long as the longest list of tokens."""
    x = dims(ctx, 0)
    put(ctx, 0, TensorProto.STRING, None if x is None else x if 0 in x else [*x, None])


@contrib(
    "Tokenizer",
    inputs=[("X", "T")],
    outputs=[("Y", "T")],
    types={"T": ["tensor(string)"]},
    attributes={
        "mark": OpSchema.AttrType.INT,
        "mincharnum": OpSchema.AttrType.INT,
        "pad_value": OpSchema.AttrType.STRING,
        "separators": (OpSchema.AttrType.STRINGS, None),
        "tokenexp": (OpSchema.AttrType.STRING, None),
    },
    infer=infer_tokens,
)
def tokenizer(
    xp: Any,
    x: Any,
    *,
    mark: int,
    mincharnum: int,
    pad_value: str,
    separators: Sequence[str] | None = None,
    tokenexp: str | None = None,
) -> Any:
    """The tokens of each string along a new last axis, filled up with ``pad_value``.

    Tokens are what lies between matches of ``separators``, or the matches of ``tokenexp``, if they have
    ``mincharnum`` characters; single characters for the separator "" and the expression ".". With ``mark``
    they stand between U+0002 and U+0003.
    """
    if x.ndim not in (1, 2):
        raise ValueError(f"input X of shape {x.shape} should have one or two axes")
    single = tokenexp == "." or (separators is not None and list(separators) == [""])
    if bool(separators) == bool(tokenexp) or mincharnum < 1 or (single and mincharnum > 1):
        raise ValueError(
            f"attributes separators={separators}, tokenexp={tokenexp!r} and mincharnum={mincharnum}: "
            "one of the first two and a positive number (1 for single characters) are needed"
        )
    if 0 in x.shape:
        return strings([], x.shape)
    if single:
        found = [list(text) for text in x.reshape(-1).tolist()]
    elif tokenexp:
        pattern = compiled(tokenexp)
        found = [[m.group() for m in pattern.finditer(text) if m.group()] for text in x.reshape(-1).tolist()]
        found = [[token for token in row if len(token) >= mincharnum] for row in found]
    else:
        patterns = [compiled(separator) for separator in separators or ()]
        found = [split(text, patterns, mincharnum) for text in x.reshape(-1).tolist()]
    width = max(map(len, found))
    if not width:
        return strings([], (*x.shape, 0))
    if mark:
        found = [[START, *row, END] for row in found]
        width += 2
    padded = [token for row in found for token in (*row, *[pad_value] * (width - len(row)))]
    return strings(padded, (*x.shape, width))


def compiled(pattern: str) -> re.Pattern[str]:
    """The regular expression."""
    try:
        return re.compile(as_python(pattern))
    except re.error as error:
        raise ValueError(f"the expression {pattern!r} is not valid: {error}") from None


def split(text: str, patterns: list[re.Pattern[str]], shortest: int) -> list[str]:
    """What lies between the matches of each pattern in turn."""
    parts = [text]
    for pattern in patterns:
        parts = [piece for part in parts for piece in between(part, pattern) if len(piece) >= shortest]
    return parts


def between(text: str, pattern: re.Pattern[str]) -> list[str]:
    """The text outside the matches that are not empty."""
    pieces, last = [], 0
    for match in pattern.finditer(text):
        if match.group():
            pieces.append(text[last : match.start()])
            last = match.end()
    return [*pieces, text[last:]]


# ---- hashing


@contrib(
    "MurmurHash3",
    inputs=[("X", "T1")],
    outputs=[("Y", "T2")],
    types={
        "T1": [f"tensor({n})" for n in ("float", "double", "int32", "int64", "uint32", "uint64", "string")],
        "T2": ["tensor(int32)", "tensor(uint32)"],
    },
    attributes={"positive": 1, "seed": 0},
    infer=lambda ctx: put(
        ctx, 0, TensorProto.UINT32 if attr(ctx, "positive", 1) else TensorProto.INT32, dims(ctx, 0)
    ),
)
def murmur_hash3(xp: Any, x: Any, *, positive: int = 1, seed: int = 0) -> Any:
    """The 32-bit MurmurHash3 of each element's bytes, or of the string in UTF-8."""
    if positive not in (0, 1):
        raise ValueError(f"attribute positive={positive} is neither 0 nor 1")
    if x.dtype.kind in "OUT":
        texts = [text.encode() for text in np.asarray(x, dtype=object).reshape(-1).tolist()]
        lengths = np.array([len(text) for text in texts], dtype=np.uint32)
        width = -(-max(map(len, texts), default=0) // 4) * 4
        data = np.frombuffer(b"".join(text.ljust(width, b"\0") for text in texts), np.uint8).reshape(
            -1, width
        )
    else:
        flat = np.ascontiguousarray(np.asarray(x.tolist(), dtype=x.dtype)).reshape(-1)
        data = flat.view(np.uint8).reshape(-1, x.dtype.itemsize)
        lengths = np.full(flat.shape, x.dtype.itemsize, np.uint32)
    with np.errstate(over="ignore"):
        hashed = murmur(data.view("<u4"), lengths, np.uint32(seed & 0xFFFFFFFF))
    return xp.asarray(hashed.reshape(x.shape).view(np.uint32 if positive else np.int32))


def rotated(x: Any, bits: int) -> Any:
    """The bits of each word moved round."""
    return (x << np.uint32(bits)) | (x >> np.uint32(32 - bits))


def murmur(words: Any, lengths: Any, seed: Any) -> Any:
    """MurmurHash3_x86_32 of rows of words that are zero from their length (in bytes) on."""
    state = np.full(lengths.shape, seed, np.uint32)
    for i in range(words.shape[1]):
        mixed = rotated(words[:, i] * np.uint32(0xCC9E2D51), 15) * np.uint32(0x1B873593)
        full = rotated(state ^ mixed, 13) * np.uint32(5) + np.uint32(0xE6546B64)
        state = np.where(lengths >= 4 * (i + 1), full, np.where(lengths > 4 * i, state ^ mixed, state))
    state = state ^ lengths
    state = (state ^ (state >> np.uint32(16))) * np.uint32(0x85EBCA6B)
    state = (state ^ (state >> np.uint32(13))) * np.uint32(0xC2B2AE35)
    return state ^ (state >> np.uint32(16))


# ---- words as characters


def infer_words(ctx: Any) -> None:
    """One vector a word."""
    x, w = dims(ctx, 0), dims(ctx, 1)
    put(ctx, 0, TensorProto.FLOAT, None if x is None else [*x[:-1], w[0] if w else None])


@contrib(
    "WordConvEmbedding",
    inputs=[("Sequence", "T"), ("W", "T1"), ("B", "T1"), ("C", "T1")],
    outputs=[("Y", "T1")],
    types={"T": ["tensor(int32)"], "T1": ["tensor(float)"]},
    attributes={"char_embedding_size": INT, "conv_window_size": INT, "embedding_size": INT},
    infer=infer_words,
)
def word_conv_embedding(
    xp: Any,
    x: Any,
    w: Any,
    b: Any,
    c: Any,
    *,
    char_embedding_size: int | None = None,
    conv_window_size: int | None = None,
    embedding_size: int | None = None,
) -> Any:
    """max over places of tanh(W (embeddings C of the characters in a window) + B): one vector a word.

    A word has as many characters as are not 0, and at least those of one window; an empty word gives 0.
    """
    if w.ndim != 4 or w.shape[1] != 1 or b.shape != w.shape[:1] or c.ndim != 2 or c.shape[1] != w.shape[3]:
        raise ValueError(f"inputs W {w.shape}, B {b.shape} and C {c.shape} do not fit together")
    for name, given, size in (
        ("char_embedding_size", char_embedding_size, c.shape[1]),
        ("conv_window_size", conv_window_size, w.shape[2]),
        ("embedding_size", embedding_size, w.shape[0]),
    ):
        if given is not None and given != size:
            raise ValueError(f"attribute {name}={given} differs from the {size} of the inputs")
    window = w.shape[2]
    if x.ndim < 1 or x.shape[-1] < window:
        raise ValueError(f"input Sequence of shape {x.shape} has words shorter than the window of {window}")
    if x.size and (xp.min(x) < 0 or xp.max(x) >= c.shape[0]):
        raise ValueError(f"input Sequence has characters outside the {c.shape[0]} of C")
    length = xp.sum(x != 0, axis=-1)
    letters = xp.take(c, x, axis=0)
    places = x.shape[-1] - window + 1
    taken = xp.stack([letters[..., k : k + places, :] for k in range(window)], axis=-2)
    y = xp.matmul(
        xp.reshape(taken, (*x.shape[:-1], places, window * c.shape[1])), xp.reshape(w, (w.shape[0], -1)).T
    )
    read = xp.arange(places) <= (xp.maximum(length, xp.asarray(window)) - window)[..., None]
    y = xp.max(xp.where(read[..., None], y, xp.asarray(-xp.inf, dtype=y.dtype)), axis=-2)
    return xp.where((length > 0)[..., None], xp.tanh(y + b), xp.zeros_like(y))
