"""Operators on strings. They run on the host: no array library of a device has strings."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from ._axes import choice
from ._bounds import bounded
from ._re2 import as_python
from .operator import op


def strings(values: Any, shape: Sequence[int]) -> Any:
    """An array of Python strings (NumPy would turn a list of them into fixed-width ones)."""
    result = np.empty(len(values), dtype=object)
    result[:] = values
    return result.reshape(tuple(shape))


@op("StringConcat", since=20)
def string_concat(xp: Any, x: Any, y: Any) -> Any:
    """x + y as strings, broadcast."""
    x, y = np.broadcast_arrays(np.asarray(x, dtype=object), np.asarray(y, dtype=object))
    return strings([a + b for a, b in zip(x.flat, y.flat, strict=True)], x.shape)


@op("StringSplit", since=20)
def string_split(xp: Any, x: Any, *, delimiter: str | None = None, maxsplit: int | None = None) -> Any:
    """The parts of each string, filled up with "" along a new last axis, and their number."""
    limit = -1 if maxsplit is None else maxsplit
    texts = np.asarray(x, dtype=object).flat
    parts = [t.split(delimiter, limit) if delimiter else t.strip().split(None, limit) for t in texts]
    width = max(map(len, parts), default=0)
    padded = [part for row in parts for part in (*row, *[""] * (width - len(row)))]
    counts = np.asarray([len(row) for row in parts], dtype=np.int64)
    return strings(padded, (*x.shape, width)), counts.reshape(x.shape)


@op("StringNormalizer", since=10)
def string_normalizer(
    xp: Any,
    x: Any,
    *,
    case_change_action: str = "NONE",
    is_case_sensitive: int = 0,
    locale: str | None = None,
    stopwords: Sequence[str] | None = None,
) -> Any:
    """The strings that are no stop words, in the case asked for; a single "" if none is left.

    The locale is not looked at: Python's case mapping is that of Unicode.
    """
    if not (x.ndim == 1 or (x.ndim == 2 and x.shape[0] == 1)):
        raise ValueError(f"expected an input [C] or [1, C], got shape {x.shape}")
    change: dict[str, Any] = {"NONE": str, "LOWER": str.lower, "UPPER": str.upper}
    choice(case_change_action, tuple(change), "case_change_action")
    key: Any = str if is_case_sensitive else str.lower
    dropped = {key(word) for word in stopwords or ()}
    kept = [change[case_change_action](text) for text in x.flat if key(text) not in dropped] or [""]
    return strings(kept, (len(kept),) if x.ndim == 1 else (1, len(kept)))


@op("RegexFullMatch", since=20)
def regex_full_match(xp: Any, x: Any, *, pattern: str = "") -> Any:
    """Whether each string matches the whole pattern, which is in RE2's syntax."""
    try:
        regex = re.compile(as_python(pattern))
    except re.error as error:
        raise ValueError(f"pattern {pattern!r} is not a regular expression: {error}") from error
    found = [regex.fullmatch(text) is not None for text in np.asarray(x, dtype=object).flat]
    return np.asarray(found, dtype=np.bool_).reshape(x.shape)


@op("TfIdfVectorizer", since=9)
def tf_idf_vectorizer(
    xp: Any,
    x: Any,
    *,
    max_gram_length: int,
    max_skip_count: int,
    min_gram_length: int,
    mode: str,
    ngram_counts: Sequence[int],
    ngram_indexes: Sequence[int],
    pool_int64s: Sequence[int] | None = None,
    pool_strings: Sequence[str] | None = None,
    weights: Sequence[float] | None = None,
) -> Any:
    """y[row, ngram_indexes[i]] = how often the i-th n-gram of the pool is in the row (TF).

    IDF has the gram's weight where it occurs at all, TFIDF the count times the weight. The tokens of an
    n-gram may be 1 to ``max_skip_count`` + 1 apart, all at the same distance.
    """
    choice(mode, ("TF", "IDF", "TFIDF"), "mode")
    if (pool_int64s is None) == (pool_strings is None):
        raise ValueError("exactly one of pool_int64s and pool_strings must be given")
    if x.ndim not in (1, 2) or not ngram_indexes or min(ngram_indexes) < 0:
        raise ValueError(f"input {x.shape} must be [C] or [N, C], ngram_indexes {ngram_indexes} not negative")
    if not 1 <= min_gram_length <= max_gram_length <= len(ngram_counts) or max_skip_count < 0:
        raise ValueError(
            f"min_gram_length {min_gram_length}, max_gram_length {max_gram_length}, max_skip_count "
            f"{max_skip_count} and {len(ngram_counts)} ngram_counts do not fit together"
        )
    pool = np.asarray(pool_int64s if pool_strings is None else strings(pool_strings, (-1,)))
    vocabulary, pool_codes = np.unique(pool, return_inverse=True)
    rows = np.asarray(x, dtype=pool.dtype).reshape(-1 if x.ndim == 2 else 1, x.shape[-1])
    codes = lookup(vocabulary, rows)
    outputs = np.asarray(ngram_indexes, dtype=np.int64)
    result = np.zeros(bounded((len(rows), int(outputs.max()) + 1), outputs), dtype=np.float32)
    first = 0
    ends = [*ngram_counts[1:], len(pool)]
    for n, (start, end) in enumerate(zip(ngram_counts, ends, strict=True), 1):
        grams = pool_codes[start:end]
        if not 0 <= start <= end <= len(pool) or len(grams) % n:
            raise ValueError(f"ngram_counts {tuple(ngram_counts)} do not divide a pool of {len(pool)}")
        grams = grams.reshape(-1, n)
        if first + len(grams) > len(outputs):
            raise ValueError(f"ngram_indexes has only {len(outputs)} entries, the pool has more n-grams")
        if min_gram_length <= n <= max_gram_length:
            for step in range(1, 2 if n == 1 else max_skip_count + 2):
                row, gram = found(codes, grams, n, step, len(vocabulary))
                np.add.at(result, (row, outputs[first + gram]), 1)
        first += len(grams)
    if mode == "IDF":
        result = np.minimum(result, 1)
    if mode != "TF" and weights is not None:
        if len(weights) != len(outputs):
            raise ValueError(f"weights has {len(weights)} values, ngram_indexes {len(outputs)}")
        scale = np.ones(result.shape[1], dtype=np.float32)
        scale[outputs] = weights
        result = result * scale
    return xp.asarray(result if x.ndim == 2 else result[0])


def lookup(table: Any, values: Any) -> Any:
    """The positions of ``values`` in a sorted table, -1 where they are not in it."""
    if not len(table):
        return np.full(values.shape, -1)
    place = np.minimum(np.searchsorted(table, values), len(table) - 1)
    return np.where(table[place] == values, place, -1)


def found(codes: Any, grams: Any, n: int, step: int, base: int) -> tuple[Any, Any]:
    """Where the tokens ``step`` apart spell one of the grams: (row, gram), found letter by letter."""
    count = codes.shape[1] - (n - 1) * step
    if count < 1 or not len(grams):
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    spelled, known = np.zeros((len(codes), count), dtype=np.int64), np.zeros(len(grams), dtype=np.int64)
    alive = np.ones(spelled.shape, dtype=np.bool_)
    for k in range(n):
        token = codes[:, k * step : k * step + count]
        level = np.unique(known * base + grams[:, k])
        known = np.searchsorted(level, known * base + grams[:, k])
        spelled = lookup(level, spelled * base + token)
        alive &= (token >= 0) & (spelled >= 0)
    owner = np.zeros(len(level), dtype=np.int64)
    owner[known] = np.arange(len(grams))
    row, column = np.nonzero(alive)
    return row, owner[spelled[row, column]]
