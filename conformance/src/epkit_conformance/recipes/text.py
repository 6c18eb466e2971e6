"""Recipes for texts."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from epkit.dtypes import numpy_dtype

from .trial import Array, Trial, draw, recipe


def _texts(*values: str) -> Array:
    return np.array(values, object)


@recipe("StringConcat")
def string_concat(op: str, version: int, dtype: str, rng: np.random.Generator) -> Trial:
    """Each with each."""
    a, b = draw(rng, (3, 1), dtype), draw(rng, (4,), dtype)
    return Trial([a, b], [np.array([[x + y for y in b] for x in a[:, 0]], object)])


@recipe("StringNormalizer")
def string_normalizer(op: str, version: int, dtype: str, rng: np.random.Generator) -> Trial:
    """Without stop words in any case; what is left in lower case."""
    x = _texts("Monday", "TUESDAY", "", "monday", "Ärger", "wednesday")
    how = {"case_change_action": "LOWER", "is_case_sensitive": 0, "stopwords": ["monday", "Wednesday"]}
    return Trial([x], [_texts("tuesday", "", "ärger")], {**how, "locale": "en_US"})


@recipe("StringSplit")
def string_split(op: str, version: int, dtype: str, rng: np.random.Generator) -> Trial:
    """At most twice; shorter rows are filled up with empty texts."""
    x = _texts("a,b,c,d", "no", "", ",x")
    rows = [["a", "b", "c,d"], ["no", "", ""], ["", "", ""], ["", "x", ""]]
    return Trial([x], [np.array(rows, object), np.array([3, 1, 1, 2])], {"delimiter": ",", "maxsplit": 2})


@recipe("RegexFullMatch")
def regex_full_match(op: str, version: int, dtype: str, rng: np.random.Generator) -> Trial:
    """From end to end, and not only somewhere."""
    pattern = r"[a-z]+\d{2,3}(x|yz)?"
    x = _texts("ab12", "ab12yz", "12", "ab1", "zab123x", "ab12 ", "AB12", "")
    return Trial(
        [x], [np.array([re.fullmatch(pattern, text) is not None for text in x])], {"pattern": pattern}
    )


@recipe("TfIdfVectorizer")
def tf_idf(op: str, version: int, dtype: str, rng: np.random.Generator) -> Trial:
    """Counts of one word and of pairs with at most one word between, times weights."""
    words: list[Any] = ["a", "b", "c", "d"] if dtype == "string" else [1, 2, 3, 4]
    a, b, c, d = words
    rows = [[a, b, a, c, b, a], [d, d, a, b, d, c]]
    singles, pairs = [a, c], [(a, b), (b, a), (d, c)]
    weights, places = [1.0, 0.5, 2.0, 0.25, 3.0], [2, 0, 1, 4, 3]
    want = np.zeros((2, 5))
    for row, found in zip(rows, want, strict=True):
        counts = [row.count(word) for word in singles]
        near = [(row[i], row[i + gap]) for gap in (1, 2) for i in range(len(row) - gap)]
        counts += [near.count(pair) for pair in pairs]
        for place, count, weight in zip(places, counts, weights, strict=True):
            found[place] = count * weight
    how: dict[str, Any] = {"mode": "TFIDF", "min_gram_length": 1, "max_gram_length": 2, "max_skip_count": 1}
    how |= {"ngram_counts": [0, 2], "ngram_indexes": places, "weights": weights}
    how["pool_strings" if dtype == "string" else "pool_int64s"] = [
        *singles,
        *(w for pair in pairs for w in pair),
    ]
    return Trial([np.array(rows, object).astype(numpy_dtype(dtype))], [want], how, result="float32")
