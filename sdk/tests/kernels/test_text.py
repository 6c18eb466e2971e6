"""What the published cases of the text family leave out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from peer import assert_like_peer, ours


def text(*values: Any) -> Any:
    return np.array(values, dtype=object)


def test_normalizer() -> None:
    x = text("Mon", "tue", "Éa")
    assert ours("StringNormalizer", [x], 10, stopwords=("mon",)).tolist() == ["tue", "Éa"]
    assert ours("StringNormalizer", [x], 10, stopwords=("mon",), is_case_sensitive=1).tolist() == x.tolist()
    lower = ours("StringNormalizer", [x[None]], 10, case_change_action="LOWER")
    assert lower.tolist() == [["mon", "tue", "éa"]]
    assert ours("StringNormalizer", [x[None, :1]], 10, stopwords=("mon",)).tolist() == [[""]]


def test_split() -> None:
    parts, counts = ours("StringSplit", [text(" a  b c ", "")], 20, outputs=2, maxsplit=1)
    assert (parts.tolist(), counts.tolist()) == ([["a", "b c"], ["", ""]], [2, 0])
    parts, counts = ours("StringSplit", [text("a,,b")], 20, outputs=2, delimiter=",")
    assert (parts.tolist(), counts.tolist()) == ([["a", "", "b"]], [3])
    assert ours("StringSplit", [text().reshape(0, 2)], 20, outputs=2)[0].shape == (0, 2, 0)


def test_concat_of_scalars() -> None:
    y = ours("StringConcat", [np.array("a", dtype=object), np.array("b", dtype=object)], 20)
    assert (y.shape, y.item()) == ((), "ab")


PATTERNS = [
    (r"\w+", [True, False, False]),
    (r"[[:upper:]]on", [True, False, False]),
    (r"\QMo\E.", [True, False, False]),
    (r"(?P<a>M)on|\x{e9}", [True, True, False]),
    (r"[^]]+\z", [True, True, False]),
    (r"[]\d\s[]", [False, False, True]),
]


@pytest.mark.parametrize(("pattern", "want"), PATTERNS)
def test_re2(pattern: str, want: list[bool]) -> None:
    assert ours("RegexFullMatch", [text("Mon", "é", "]")], 20, pattern=pattern).tolist() == want


@pytest.mark.parametrize("pattern", [r"(a)\1", r"a(?=b)", r"(?<!a)b", r"\pL", r"(", r"(?U)a"])
def test_patterns_outside_re2_are_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match="pattern"):
        ours("RegexFullMatch", [text("a")], 20, pattern=pattern)


POOL = [2, 3, 5, 5, 4, 5, 6, 7, 1, 6, 7, 1, 2, 3, 4, 5, 1]


@pytest.mark.parametrize("mode", ["TF", "IDF", "TFIDF"])
@pytest.mark.parametrize("skips", [0, 1, 5])
@pytest.mark.parametrize(("shortest", "longest"), [(1, 1), (2, 2), (1, 2), (1, 3)])
def test_tf_idf(mode: str, skips: int, shortest: int, longest: int) -> None:
    tokens = np.random.default_rng(5).integers(0, 8, (3, 12))
    attributes = {
        "mode": mode,
        "min_gram_length": shortest,
        "max_gram_length": longest,
        "max_skip_count": skips,
        "ngram_counts": [0, 3, 11],
        "ngram_indexes": list(range(9)),
        "pool_int64s": POOL,
        "weights": [0.5 + i for i in range(9)],
    }
    assert_like_peer("TfIdfVectorizer", [tokens], 9, **attributes)
    assert_like_peer("TfIdfVectorizer", [tokens[0]], 9, **attributes)


def test_tf_idf_of_strings() -> None:
    lengths = {"min_gram_length": 1, "max_gram_length": 2, "max_skip_count": 1}
    pool = {"ngram_counts": (0, 2), "ngram_indexes": (2, 0, 1), "pool_strings": ("a", "b", "a", "b")}
    y = ours("TfIdfVectorizer", [text("a", "b", "q", "b")], 9, mode="TF", **lengths, **pool)
    assert y.tolist() == [2, 1, 1]
