"""Sequences and optionals by their definitions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from peer import data, ours

A, B, C = data(2, 3), data(1, 3), data(4)


def at(value: int) -> Any:
    return np.int64(value)


def same(got: Any, want: Any) -> bool:
    return len(got) == len(want) and all(np.array_equal(g, w) for g, w in zip(got, want, strict=True))


def test_lists() -> None:
    assert ours("SequenceEmpty", [], 11, dtype=7) == []
    assert same(ours("SequenceConstruct", [A, C], 11), [A, C])
    assert same(ours("SequenceInsert", [[A, B], C], 11), [A, B, C])
    assert same(ours("SequenceInsert", [[A, B], C, at(-2)], 11), [C, A, B])
    assert same(ours("SequenceInsert", [[A, B], C, at(2)], 11), [A, B, C])
    assert same(ours("SequenceErase", [[A, B, C]], 11), [A, B])
    assert same(ours("SequenceErase", [[A, B, C], at(-3)], 11), [B, C])
    assert np.array_equal(ours("SequenceAt", [[A, B], at(-1)], 11), B)
    length = ours("SequenceLength", [[A, B]], 11)
    assert (int(length), length.dtype, length.shape) == (2, np.int64, ())


def test_concat() -> None:
    assert np.array_equal(ours("ConcatFromSequence", [[A, B]], 11, axis=-2), np.concatenate([A, B]))
    assert np.array_equal(ours("ConcatFromSequence", [[A, A]], 11, axis=-1, new_axis=1), np.stack([A, A], -1))


SPLITS: list[tuple[Any, dict[str, Any], list[tuple[int, ...]]]] = [
    (None, {}, [(1, 3), (1, 3)]),
    (None, {"keepdims": 0, "axis": 1}, [(2,), (2,), (2,)]),
    (np.int64(2), {"axis": -1}, [(2, 2), (2, 1)]),
    (np.int32([0, 3]), {"axis": 1, "keepdims": 0}, [(2, 0), (2, 3)]),
]


@pytest.mark.parametrize(("split", "attributes", "shapes"), SPLITS)
def test_split(split: Any, attributes: Any, shapes: Any) -> None:
    assert [p.shape for p in ours("SplitToSequence", [A, split], 11, **attributes)] == shapes


def test_optionals() -> None:
    assert ours("Optional", [], 15) is None
    assert ours("OptionalGetElement", [A], 18) is A
    for inputs, want in (([], False), ([None], False), ([A], True), ([[]], True)):
        has = ours("OptionalHasElement", inputs, 18)
        assert (bool(has), has.dtype, has.shape) == (want, np.bool_, ())


REFUSED: list[tuple[str, list[Any], dict[str, Any], str]] = [
    ("SequenceAt", [[A], at(1)], {}, "position 1"),
    ("SequenceErase", [[]], {}, "position -1"),
    ("SequenceInsert", [[A], B, at(3)], {}, "position 3"),
    ("ConcatFromSequence", [[]], {"axis": 0}, "no element"),
    ("ConcatFromSequence", [[A, B]], {"axis": 0, "new_axis": 1}, "stacked"),
    ("SplitToSequence", [A, np.array([1, 3])], {}, "cover"),
    ("SplitToSequence", [A, np.int64(0)], {}, "positive"),
    ("OptionalGetElement", [None], {}, "empty"),
]


@pytest.mark.parametrize(("name", "inputs", "attributes", "words"), REFUSED)
def test_refused(name: str, inputs: Any, attributes: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ours(name, inputs, 18, **attributes)
