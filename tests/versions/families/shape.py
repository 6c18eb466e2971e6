"""Operators that move elements by shapes, axes and sizes."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from ..case import Case, cases_for
from ..data import Array, distinct, floats, ints, whole


@cases_for("Concat")
def concat(op: str, version: int) -> Iterator[Case]:
    a, b = floats(2, 3, 4), floats(2, 5, 4, seed=1)
    if version < 4:
        yield Case([a, b])
    yield Case([a, b], {"axis": 1})
    yield Case([a, a, a], {"axis": 2})
    if version >= 11:
        yield Case([a, b], {"axis": -2})


@cases_for("Reshape")
def reshape(op: str, version: int) -> Iterator[Case]:
    x = floats(2, 3, 4)
    for shape in ((6, 4), (4, -1), (0, 2, 6), (24,), (2, -1, 1, 4)):
        yield Case([x], {"shape": shape}) if version < 5 else Case([x, ints(*shape)])
    if version >= 14:
        yield Case([floats(0, 3), ints(3, 0, 2)], {"allowzero": 1})


@cases_for("Flatten")
def flatten(op: str, version: int) -> Iterator[Case]:
    yield Case([floats(2, 3, 4)])
    for axis in (0, 1, 2, 3, *((-1, -3) if version >= 11 else ())):
        yield Case([floats(2, 3, 4)], {"axis": axis})


@cases_for("Squeeze", "Unsqueeze")
def squeeze(op: str, version: int) -> Iterator[Case]:
    x = floats(2, 1, 3, 1)
    if op == "Squeeze":
        yield Case([x])
    for axes in ((1,), (1, 3), *(((-1,), (-3, -1)) if version >= 11 else ())):
        yield Case([x], {"axes": axes}) if version < 13 else Case([x, ints(*axes)])


@cases_for("Transpose")
def transpose(op: str, version: int) -> Iterator[Case]:
    yield Case([floats(2, 3, 4)])
    yield Case([floats(2, 3, 4)], {"perm": (1, 2, 0)})
    yield Case([floats(2, 1, 3, 4)], {"perm": (0, 3, 1, 2)})


@cases_for("Expand")
def expand(op: str, version: int) -> Iterator[Case]:
    for shape in ((3, 4), (2, 3, 4), (1, 1), (5, 1, 4)):
        yield Case([floats(3, 1), ints(*shape)])


@cases_for("Tile")
def tile(op: str, version: int) -> Iterator[Case]:
    x = floats(2, 3)
    if version < 6:  # one axis at a time; the numbers have the data's type
        yield Case(
            [x, np.array(3, np.float32), np.array(1, np.float32)],
            expect=lambda x, tiles, axis: [np.concatenate([x] * int(tiles), int(axis))],
        )
    else:
        yield Case([x, ints(2, 3)])
        yield Case([x, ints(1, 0)])


@cases_for("Slice")
def slices(op: str, version: int) -> Iterator[Case]:
    x = floats(4, 5, 6)
    if version < 10:
        yield Case([x], {"starts": (1, 0), "ends": (3, 1000)})
        yield Case([x], {"starts": (1, -3), "ends": (-1, 5), "axes": (2, 0)})
        return
    yield Case([x, ints(1, 0), ints(3, 1000)])
    yield Case([x, ints(1, -3), ints(-1, 5), ints(2, 0)])
    yield Case([x, ints(1, 0), ints(1000, 5), ints(1, 2), ints(2, 3)])
    yield Case([x, *(ints(a).astype(np.int32) for a in (-1, -1000, 1, -2))])
    yield Case([x, ints(-9, 2), ints(-(1 << 40), -9), ints(1, 0), ints(-2, -1)])  # begins at 0, not before
    if version >= 11:
        yield Case([x, ints(3), ints(-5), ints(-3), ints(-1)])


@cases_for("Split")
def split(op: str, version: int) -> Iterator[Case]:
    x = floats(2, 6, 3)
    halves, parts = [slice(0, 3), slice(3, 6)], [slice(0, 2), slice(2, 3), slice(3, 6)]
    if version == 1:  # the lengths are an attribute, or an input of the data's type
        yield Case([x], {"axis": 1}, outputs=2, expect=lambda x: [x[:, s] for s in halves])
        yield Case([x], {"axis": 1, "split": (2, 1, 3)}, outputs=3, expect=lambda x: [x[:, s] for s in parts])
        yield Case(
            [x, np.array([2, 1, 3], np.float32)],
            {"axis": 1},
            outputs=3,
            expect=lambda x, lengths: [x[:, s] for s in parts],
            retype=False,
        )
        return
    count = {"num_outputs": 2} if version >= 18 else {}
    yield Case([x], {**count}, outputs=2)
    yield Case([x], {"axis": 1, **count}, outputs=2)
    if version < 13:
        yield Case([x], {"axis": 1, "split": (2, 1, 3)}, outputs=3)
    else:
        yield Case([x, ints(2, 1, 3)], {"axis": -2}, outputs=3)
    if version >= 18:  # the last part is smaller
        yield Case([x], {"axis": 1, "num_outputs": 4}, outputs=4)


@cases_for("Pad")
def pad(op: str, version: int) -> Iterator[Case]:
    x, amounts = floats(2, 3, 4), (0, 1, 2, 1, 0, 1)
    modes = ("constant", "reflect", "edge", *(("wrap",) if version >= 19 else ()))
    for mode in modes:
        if version < 11:
            name = "paddings" if version < 2 else "pads"
            yield Case([x], {name: amounts, "mode": mode, "value": 1.5})
        else:
            value = np.array(1.5, np.float32) if mode == "constant" else None
            yield Case([x, ints(*amounts), *([] if value is None else [value])], {"mode": mode})
    if version < 11:
        amounts = (0, -1, 1, 0, 0, -2)
        name = "paddings" if version < 2 else "pads"
        yield Case([x], {name: amounts}, expect=lambda x: [np.pad(x[:, 1:, :2], ((0, 0), (0, 0), (1, 0)))])
    else:
        yield Case([x, ints(0, -1, 1, 0, 0, -2)])
    if version >= 18:
        yield Case([x, ints(1, 0, 2, 1), None, ints(-1, 0)])


@cases_for("DepthToSpace", "SpaceToDepth")
def blocks(op: str, version: int) -> Iterator[Case]:
    x = floats(2, 8, 2, 3) if op == "DepthToSpace" else floats(2, 2, 4, 6)
    yield Case([x], {"blocksize": 2})
    if version >= (11 if op == "DepthToSpace" else 28):
        for mode in ("DCR", "CRD"):
            yield Case(
                [x], {"blocksize": 2, "mode": mode}, expect=_space_to_depth(mode) if op[0] == "S" else None
            )


def _space_to_depth(mode: str) -> Callable[[Array], list[Array]]:
    """DCR puts the position in the block before the channel, CRD after it."""

    def compute(x: Array) -> list[Array]:
        b, c, h, w = x.shape
        split = x.reshape(b, c, h // 2, 2, w // 2, 2)
        order = (0, 3, 5, 1, 2, 4) if mode == "DCR" else (0, 1, 3, 5, 2, 4)
        return [split.transpose(order).reshape(b, c * 4, h // 2, w // 2)]

    return compute


@cases_for("Shape", "Size")
def sizes(op: str, version: int) -> Iterator[Case]:
    yield Case([floats(2, 3, 4)])
    yield Case([np.array(1.0, np.float32)])
    if op == "Shape" and version >= 15:
        yield Case([floats(2, 3, 4)], {"start": 1})
        yield Case([floats(2, 3, 4)], {"start": -2, "end": -1})


@cases_for("CenterCropPad")
def center(op: str, version: int) -> Iterator[Case]:
    yield Case([floats(5, 4, 3), ints(3, 6, 3)])
    yield Case([floats(5, 4, 3), ints(8, 2)], {"axes": (0, -1)})


@cases_for("Trilu")
def triangle(op: str, version: int) -> Iterator[Case]:
    yield Case([floats(2, 4, 5)])
    yield Case([floats(2, 4, 5), np.array(1)], {"upper": 0})
    yield Case([floats(4, 5), np.array(-2)])


@cases_for("ReverseSequence")
def reverse(op: str, version: int) -> Iterator[Case]:
    yield Case([floats(4, 3, 2), ints(1, 4, 2)])
    yield Case([floats(3, 4, 2), ints(1, 4, 2)], {"batch_axis": 0, "time_axis": 1})


@cases_for("Compress")
def compress(op: str, version: int) -> Iterator[Case]:
    kept = np.array([False, True, True])
    yield Case([distinct(2, 3), kept], {"axis": 1})
    yield Case([distinct(2, 3), kept])
    if version >= 11:
        yield Case([distinct(3, 2), kept], {"axis": -2})


@cases_for("Unique")
def unique(op: str, version: int) -> Iterator[Case]:
    x = whole(4, 3, high=3).astype(np.float32)
    yield Case([x], outputs=4)
    yield Case([x], {"sorted": 0}, outputs=4)
    yield Case([x[[0, 1, 0, 2]]], {"axis": 0}, outputs=4)


@cases_for("NonZero")
def nonzero(op: str, version: int) -> Iterator[Case]:
    yield Case([whole(3, 4, high=3).astype(np.float32)])
