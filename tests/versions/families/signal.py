"""Signals and text."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..case import Case, cases_for
from ..data import Array, floats, text


@cases_for("DFT")
def fourier(op: str, version: int) -> Iterator[Case]:
    real, both = floats(2, 6, 5, 1), floats(2, 6, 5, 2)

    def case(x: Array, length: int | None, axis: int | None, **attributes: int) -> Case:
        number = None if length is None else np.array(length)
        if version < 20:
            return Case([x, number], {**attributes, **({} if axis is None else {"axis": axis})})
        return Case([x, number, None if axis is None else np.array(axis)], attributes)

    yield case(real, None, 1)
    yield case(real, 8, 2)
    yield case(real, None, 1, onesided=1)
    yield case(both, None, -2)
    yield case(both, 4, 1, inverse=1)


@cases_for("STFT")
def short_time(op: str, version: int) -> Iterator[Case]:
    signal, step, length = floats(2, 32, 1), np.array(4), np.array(8)
    yield Case([signal, step, floats(8, low=0), length])
    yield Case([signal, step, None, length], {"onesided": 0})
    yield Case([floats(1, 32, 2), step, floats(8, low=0)], {"onesided": 0})


@cases_for("BlackmanWindow", "HammingWindow", "HannWindow")
def window(op: str, version: int) -> Iterator[Case]:
    yield Case([np.array(8)])
    yield Case([np.array(7)], {"periodic": 0, "output_datatype": 11})


@cases_for("MelWeightMatrix")
def mel(op: str, version: int) -> Iterator[Case]:
    edges = np.array(20, np.float32), np.array(4000, np.float32)
    yield Case([np.array(8), np.array(64), np.array(16000), *edges])


@cases_for("RegexFullMatch")
def regex(op: str, version: int) -> Iterator[Case]:
    yield Case([text("www.a.com", "b.net", "x")], {"pattern": r"(www\.)?[\w.]+\.(com|net)"})


@cases_for("StringConcat")
def concat(op: str, version: int) -> Iterator[Case]:
    yield Case([text("a", "b", "ö").reshape(3, 1), text("x", "")])


@cases_for("StringNormalizer")
def normalizer(op: str, version: int) -> Iterator[Case]:
    words = text("monday", "Tuesday", "WEDNESDAY")
    yield Case([words], {"case_change_action": "UPPER", "stopwords": ["Monday"]})
    yield Case([words], {"case_change_action": "LOWER", "stopwords": ["tuesday"], "is_case_sensitive": 1})
    yield Case([words.reshape(1, 3)], {"stopwords": ["monday"]})


@cases_for("StringSplit")
def split(op: str, version: int) -> Iterator[Case]:
    lines = text("a b  c", " d ", "", "e,f,,g").reshape(2, 2)
    yield Case([lines], outputs=2)
    yield Case([lines[:, 1]], outputs=2)
    yield Case([text("a", "e,f,,g,", ",h")], {"delimiter": ",", "maxsplit": 2}, outputs=2)


@cases_for("TfIdfVectorizer")
def n_grams(op: str, version: int) -> Iterator[Case]:
    base = {"min_gram_length": 1, "max_gram_length": 2, "max_skip_count": 1}
    pool = {"ngram_counts": [0, 3], "ngram_indexes": [0, 1, 2, 3, 4], "pool_int64s": [2, 3, 5, 2, 3, 5, 2]}
    numbers = np.array([[2, 3, 5, 2], [5, 2, 3, 3]])
    for mode in ("TF", "IDF", "TFIDF"):
        yield Case([numbers], {**base, **pool, "mode": mode, "weights": [0.5, 2.0, 1.0, 3.0, 1.5]})
    words = {**pool, "pool_strings": list("abcabca")}
    del words["pool_int64s"]
    yield Case([text("a", "b", "c", "a")], {**base, **words, "mode": "TF"})
