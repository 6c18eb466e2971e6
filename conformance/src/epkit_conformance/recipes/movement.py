"""Recipes for operators that move elements."""

from __future__ import annotations

import numpy as np

from .trial import Trial, axes_of, draw, exactly, recipe


@recipe("Transpose")
def transpose(op: str, version: int, dtype: str, rng: np.random.Generator) -> Trial:
    """A cycle of three axes."""
    x = draw(rng, (3, 5, 7), dtype)
    return Trial([x], exactly(np.transpose(x, (2, 0, 1))), {"perm": [2, 0, 1]})


@recipe("Reshape")
def reshape(op: str, version: int, dtype: str, rng: np.random.Generator) -> Trial:
    """With -1 and 0."""
    x = draw(rng, (3, 4, 5), dtype)
    if version < 5:
        return Trial([x], exactly(x.reshape(3, 20)), {"shape": [0, -1]})
    return Trial([x, np.array([0, -1])], exactly(x.reshape(3, 20)), fixed=frozenset({1}))


@recipe("Flatten")
def flatten(op: str, version: int, dtype: str, rng: np.random.Generator) -> Trial:
    """In the middle; from the end where the version knows that."""
    x = draw(rng, (2, 3, 4, 5), dtype)
    return Trial([x], exactly(x.reshape(6, 20)), {"axis": 2 if version < 11 else -2})


@recipe("Squeeze Unsqueeze")
def squeeze(op: str, version: int, dtype: str, rng: np.random.Generator) -> Trial:
    """Two axes, one of them negative where the version knows that."""
    axes = (0, 2) if version < 11 else (0, -2)
    full, flat = draw(rng, (1, 5, 1, 3), dtype), (5, 3)
    more, attributes, fixed = axes_of(version, 13, axes)
    if op == "Squeeze":
        return Trial([full, *more], exactly(full.reshape(flat)), attributes, fixed)
    return Trial([full.reshape(flat), *more], exactly(full), attributes, fixed)


@recipe("Concat")
def concat(op: str, version: int, dtype: str, rng: np.random.Generator) -> Trial:
    """Three tensors, one of them empty, along the last axis."""
    parts = [draw(rng, (3, size), dtype) for size in (2, 0, 5)]
    return Trial(parts, exactly(np.concatenate(parts, 1)), {"axis": 1 if version < 11 else -1})


@recipe("Split")
def split(op: str, version: int, dtype: str, rng: np.random.Generator) -> Trial:
    """Into unequal parts."""
    x = draw(rng, (3, 7), dtype)
    parts = [x[:, :2], x[:, 2:]]
    if version < 2:
        return Trial([x, np.array([2, 5], x.dtype)], exactly(*parts), {"axis": 1}, frozenset({1}))
    if version < 13:
        return Trial([x], exactly(*parts), {"axis": 1, "split": [2, 5]})
    return Trial([x, np.array([2, 5])], exactly(*parts), {"axis": 1}, frozenset({1}))


@recipe("Slice")
def slice_(op: str, version: int, dtype: str, rng: np.random.Generator) -> Trial:
    """From the end, and backwards where the version has steps."""
    x = draw(rng, (5, 8), dtype)
    if version < 10:
        return Trial([x], exactly(x[1:4, -3:]), {"axes": [0, 1], "starts": [1, -3], "ends": [4, 100]})
    numbers = [np.array(value) for value in ([1, -1], [4, -9], [0, 1], [1, -3])]
    return Trial([x, *numbers], exactly(x[1:4, ::-3]), fixed=frozenset({1, 2, 3, 4}))


@recipe("Pad")
def pad(op: str, version: int, dtype: str, rng: np.random.Generator) -> Trial:
    """Different widths on each side, and a value."""
    x = draw(rng, (3, 4), dtype)
    value = np.asarray("pad" if dtype == "string" else 1).astype(x.dtype)
    want = np.full((6, 7), value, x.dtype)
    want[1:4, :4] = x
    if version < 11:
        name = "paddings" if version < 2 else "pads"
        return Trial([x], exactly(want), {name: [1, 0, 2, 3], "value": 1.0, "mode": "constant"})
    return Trial([x, np.array([1, 0, 2, 3]), value], exactly(want), fixed=frozenset({1, 2}))


@recipe("Tile")
def tile(op: str, version: int, dtype: str, rng: np.random.Generator) -> Trial:
    """Repeats of two and three."""
    x = draw(rng, (2, 3), dtype)
    if version < 6:
        more = [np.array(2, x.dtype), np.array(1, x.dtype)]
        return Trial([x, *more], exactly(np.tile(x, (1, 2))), fixed=frozenset({1, 2}))
    return Trial([x, np.array([2, 3])], exactly(np.tile(x, (2, 3))), fixed=frozenset({1}))


@recipe("Expand")
def expand(op: str, version: int, dtype: str, rng: np.random.Generator) -> Trial:
    """In both directions."""
    x = draw(rng, (3, 1), dtype)
    return Trial([x, np.array([2, 1, 4])], exactly(np.broadcast_to(x, (2, 3, 4))), fixed=frozenset({1}))


@recipe("Gather")
def gather(op: str, version: int, dtype: str, rng: np.random.Generator) -> Trial:
    """Along axis 1, from the end where the version knows that."""
    x = draw(rng, (3, 5, 2), dtype)
    indices = np.array([[0, 4], [3, 1]]) if version < 11 else np.array([[0, -1], [-2, 1]])
    return Trial([x, indices], exactly(np.take(x, indices, axis=1)), {"axis": 1})


@recipe("GatherElements")
def gather_elements(op: str, version: int, dtype: str, rng: np.random.Generator) -> Trial:
    """Along axis 0, from the end too."""
    x = draw(rng, (4, 3), dtype)
    indices = np.array([[0, -1, 2], [3, 1, -4]])
    return Trial([x, indices], exactly(np.take_along_axis(x, indices, axis=0)), {"axis": 0})


@recipe("ScatterElements")
def scatter_elements(op: str, version: int, dtype: str, rng: np.random.Generator) -> Trial:
    """Distinct places along axis 1."""
    x, updates = draw(rng, (3, 5), dtype), draw(rng, (3, 2), dtype)
    indices = np.array([[0, 4], [1, -2], [2, 0]])
    want = x.copy()
    np.put_along_axis(want, indices, updates, axis=1)
    return Trial([x, indices, updates], exactly(want), {"axis": 1})


@recipe("Trilu")
def trilu(op: str, version: int, dtype: str, rng: np.random.Generator) -> Trial:
    """The lower half of each of two matrices."""
    x = draw(rng, (2, 4, 5), dtype)
    return Trial([x, np.array(-1)], exactly(np.tril(x, -1)), {"upper": 0}, frozenset({1}))


@recipe("DepthToSpace SpaceToDepth")
def depth(op: str, version: int, dtype: str, rng: np.random.Generator) -> Trial:
    """Blocks of two."""
    deep = draw(rng, (2, 8, 3, 5), dtype)
    blocks = deep.reshape(2, 2, 2, 2, 3, 5)
    flat = np.ascontiguousarray(blocks.transpose(0, 3, 4, 1, 5, 2)).reshape(2, 2, 6, 10)
    pair = (deep, flat) if op == "DepthToSpace" else (flat, deep)
    return Trial([pair[0]], exactly(pair[1]), {"blocksize": 2})
