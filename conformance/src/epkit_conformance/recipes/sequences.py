"""Recipes for sequences of tensors and for optional values. Nothing is computed, so all results are exact."""

from __future__ import annotations

import numpy as np
from onnx import helper

from epkit.dtypes import CODE

from .trial import Array, Maybe, Trial, draw, exactly, recipe


def _three(rng: np.random.Generator, dtype: str) -> list[Array]:
    """Matrices of one, two and three columns."""
    return [draw(rng, (2, columns), dtype) for columns in (1, 2, 3)]


@recipe("SequenceConstruct")
def sequence_construct(op: str, version: int, dtype: str, rng: np.random.Generator) -> Trial:
    """Of tensors of different shapes."""
    items = _three(rng, dtype)
    return Trial(items, [items])


@recipe("SequenceEmpty")
def sequence_empty(op: str, version: int, dtype: str, rng: np.random.Generator) -> Trial:
    """No tensors of a type."""
    return Trial([], [[]], {"dtype": CODE[dtype]})


@recipe("SequenceLength")
def sequence_length(op: str, version: int, dtype: str, rng: np.random.Generator) -> Trial:
    """Three."""
    return Trial([_three(rng, dtype)], [np.array(3)])


@recipe("SequenceAt")
def sequence_at(op: str, version: int, dtype: str, rng: np.random.Generator) -> Trial:
    """The last but one, from the end."""
    items = _three(rng, dtype)
    return Trial([items, np.array(-2)], exactly(items[-2]))


@recipe("SequenceInsert")
def sequence_insert(op: str, version: int, dtype: str, rng: np.random.Generator) -> Trial:
    """In front of the last, from the end."""
    items, new = _three(rng, dtype), draw(rng, (2, 4), dtype)
    return Trial([items, new, np.array(-1)], [[*items[:2], new, items[2]]])


@recipe("SequenceErase")
def sequence_erase(op: str, version: int, dtype: str, rng: np.random.Generator) -> Trial:
    """The one in the middle."""
    items = _three(rng, dtype)
    return Trial([items, np.array(1)], [[items[0], items[2]]])


@recipe("SplitToSequence")
def split_to_sequence(op: str, version: int, dtype: str, rng: np.random.Generator) -> Trial:
    """Into unequal parts along the last axis."""
    x = draw(rng, (2, 7), dtype)
    return Trial([x, np.array([3, 0, 4])], [[x[:, :3], x[:, 3:3], x[:, 3:]]], {"axis": -1}, frozenset({1}))


@recipe("ConcatFromSequence")
def concat_from_sequence(op: str, version: int, dtype: str, rng: np.random.Generator) -> Trial:
    """Floats along an axis that they have, others along a new one."""
    items = _three(rng, dtype)
    if "float" in dtype:
        return Trial([items], exactly(np.concatenate(items, 1)), {"axis": -1})
    items = [draw(rng, (2, 3), dtype) for _ in range(3)]
    return Trial([items], exactly(np.stack(items, 2)), {"axis": -1, "new_axis": 1})


# ---- optional values: of a tensor for floats, of a sequence for other types ----


def _content(rng: np.random.Generator, dtype: str) -> Array | list[Array]:
    return draw(rng, (2, 3), dtype) if "float" in dtype else _three(rng, dtype)


@recipe("Optional")
def optional(op: str, version: int, dtype: str, rng: np.random.Generator) -> Trial:
    """Something for signed numbers; for unsigned ones nothing, of a type that is told."""
    if dtype.startswith("uint"):
        return Trial([], [None], {"type": helper.make_tensor_type_proto(CODE[dtype], None)})
    content = _content(rng, dtype)
    return Trial([content], [content])


@recipe("OptionalGetElement")
def optional_get_element(op: str, version: int, dtype: str, rng: np.random.Generator) -> Trial:
    """What is inside; from version 18, half of the types are no optionals at all."""
    content = _content(rng, dtype)
    return Trial([content if version >= 18 and dtype.endswith("64") else Maybe(content)], [content])


@recipe("OptionalHasElement")
def optional_has_element(op: str, version: int, dtype: str, rng: np.random.Generator) -> Trial:
    """Something is; from version 18, unsigned numbers are left out."""
    if version >= 18 and dtype.startswith("uint"):
        return Trial([], [np.array(False)])
    return Trial([Maybe(_content(rng, dtype))], [np.array(True)])
