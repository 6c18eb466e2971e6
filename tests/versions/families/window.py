"""Convolutions and poolings."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..case import Case, cases_for
from ..data import Array, distinct, floats, ints, whole


@cases_for("Conv")
def conv(op: str, version: int) -> Iterator[Case]:
    x, w = floats(2, 4, 7, 6), floats(6, 4, 3, 3, seed=1)
    yield Case([x, w])
    yield Case([x, w, floats(6)], {"kernel_shape": (3, 3), "pads": (1, 0, 2, 1), "strides": (2, 1)})
    yield Case([x, floats(6, 2, 3, 3)], {"group": 2, "dilations": (2, 1)})
    yield Case([floats(2, 4, 9), floats(4, 1, 4)], {"group": 4, "auto_pad": "SAME_UPPER", "strides": (2,)})
    yield Case([floats(1, 2, 4, 5, 4), floats(3, 2, 2, 2, 3)], {"auto_pad": "SAME_LOWER"})
    yield Case([x, w], {"auto_pad": "VALID", "strides": (2, 2)})


@cases_for("ConvTranspose")
def conv_transpose(op: str, version: int) -> Iterator[Case]:
    x, w = floats(2, 4, 4, 3), floats(4, 6, 3, 2, seed=1)
    yield Case([x, w])
    yield Case([x, w, floats(6)], {"strides": (2, 3), "pads": (1, 0, 1, 1), "output_padding": (1, 2)})
    yield Case([x, floats(4, 3, 3, 2)], {"group": 2, "dilations": (2, 1)})
    yield Case([x, w], {"strides": (2, 2), "output_shape": (8, 7)})
    yield Case([floats(2, 4, 5), floats(4, 2, 3)], {"strides": (2,), "auto_pad": "SAME_UPPER"})


@cases_for("ConvInteger")
def conv_integer(op: str, version: int) -> Iterator[Case]:
    x = whole(1, 2, 5, 4, high=256, dtype=np.uint8)
    w = whole(3, 2, 3, 2, high=256, seed=1, dtype=np.uint8)
    yield Case([x, w])
    yield Case([x, w, np.uint8([3]).reshape(()), np.uint8([128]).reshape(())], {"pads": (1, 0, 1, 1)})


@cases_for("DeformConv")
def deform_conv(op: str, version: int) -> Iterator[Case]:
    x, w = floats(1, 2, 5, 5), floats(3, 2, 2, 2, seed=1)
    offset, mask = floats(1, 8, 4, 4, low=-1, high=1), floats(1, 4, 4, 4, low=0, high=1)
    yield Case([x, w, offset], {"kernel_shape": (2, 2)})
    yield Case([x, w, offset, floats(3), mask], {"kernel_shape": (2, 2)})
    grouped = floats(1, 16, 6, 6, low=-1, high=1)
    yield Case([x, floats(4, 1, 2, 2), grouped], {"group": 2, "offset_group": 2, "pads": (1, 1, 1, 1)})


@cases_for("CausalConvWithState")
def causal_conv(op: str, version: int) -> Iterator[Case]:
    x, w = floats(2, 3, 5), floats(3, 1, 4, seed=1)
    yield Case([x, w], outputs=2)
    yield Case([x, w, floats(3), floats(2, 3, 3)], {"activation": "silu"}, outputs=2)


@cases_for("AveragePool", "MaxPool", "LpPool")
def pool(op: str, version: int) -> Iterator[Case]:
    x = distinct(2, 3, 7, 6)
    square = {"kernel_shape": (3, 2)}
    yield Case([x], square)
    yield Case([x], {**square, "strides": (2, 2), "pads": (1, 0, 1, 1)})
    yield Case([distinct(1, 2, 9)], {"kernel_shape": (3,), "strides": (2,), "auto_pad": "SAME_UPPER"})
    yield Case([distinct(1, 2, 8)], {"kernel_shape": (3,), "strides": (2,), "auto_pad": "SAME_LOWER"})
    yield Case([distinct(1, 2, 4, 5, 4)], {"kernel_shape": (2, 2, 3), "auto_pad": "VALID"})
    yield from POOLS[op](x, version)


def _average(x: Array, version: int) -> Iterator[Case]:
    pads = {"kernel_shape": (3, 3), "strides": (2, 2), "pads": (1, 1, 1, 1)}
    if version >= 7:
        yield Case([x], {**pads, "count_include_pad": 1})
    if version >= 10:
        yield Case([x], {"kernel_shape": (3, 2), "strides": (3, 4), "ceil_mode": 1})
    if version >= 19:
        yield Case([x], {**pads, "dilations": (2, 1)})


def _max(x: Array, version: int) -> Iterator[Case]:
    if version >= 8:
        yield Case([x], {"kernel_shape": (3, 2), "strides": (2, 2), "pads": (1, 1, 1, 1)}, outputs=2)
        yield Case([x], {"kernel_shape": (2, 2), "storage_order": 1}, outputs=2)
    if version >= 10:
        yield Case([x], {"kernel_shape": (3, 2), "strides": (3, 4), "ceil_mode": 1})
        yield Case([x], {"kernel_shape": (3, 2), "dilations": (2, 3)}, outputs=2)


def _lp(x: Array, version: int) -> Iterator[Case]:
    yield Case([x], {"kernel_shape": (2, 2), "p": 1.0 if version < 2 else 1})
    if version >= 18:
        yield Case([x], {"kernel_shape": (3, 2), "strides": (3, 4), "ceil_mode": 1, "p": 3})
        yield Case([x], {"kernel_shape": (3, 2), "dilations": (2, 3)})


POOLS = {"AveragePool": _average, "MaxPool": _max, "LpPool": _lp}


@cases_for("GlobalAveragePool", "GlobalMaxPool")
def global_pool(op: str, version: int) -> Iterator[Case]:
    yield Case([floats(2, 3, 4, 5)])
    yield Case([floats(2, 3, 4)])


@cases_for("GlobalLpPool")
def global_lp(op: str, version: int) -> Iterator[Case]:
    yield Case([floats(2, 3, 4, 5)], twin=(2, {}))
    yield Case([floats(2, 3, 4)], {"p": 3.0 if version < 2 else 3}, twin=(2, {"p": 3}))


@cases_for("MaxUnpool")
def max_unpool(op: str, version: int) -> Iterator[Case]:
    x, places = floats(1, 1, 2, 2), np.array([[[[5, 7], [13, 15]]]])
    yield Case([x, places], {"kernel_shape": (2, 2), "strides": (2, 2)})
    yield Case(
        [x, places, ints(1, 1, 5, 5)], {"kernel_shape": (2, 2), "strides": (2, 2)}, expect=_unpooled_into_five
    )


def _unpooled_into_five(x: Array, *_: Array) -> list[Array]:
    """The indices count in the 4 x 4 plane that was pooled, of which the 5 x 5 result is a larger form."""
    result = np.zeros((1, 1, 5, 5), x.dtype)
    result[0, 0, 1:4:2, 1:4:2] = x[0, 0]
    return [result]


ROIS = np.array([[0, 0, 0, 3, 3], [1, 1, 1, 5, 4], [0, 2, 0, 4, 5]], np.float32)


@cases_for("MaxRoiPool")
def max_roi(op: str, version: int) -> Iterator[Case]:
    doubled = ROIS * np.float32([1, 2, 2, 2, 2])
    for rois, shape in (
        (ROIS, {"pooled_shape": (2, 2)}),
        (doubled, {"pooled_shape": (1, 3), "spatial_scale": 0.5}),
    ):
        yield Case([distinct(2, 3, 6, 6), rois], shape, twin=(1, shape))


@cases_for("RoiAlign")
def roi_align(op: str, version: int) -> Iterator[Case]:
    inputs = [floats(2, 3, 6, 6), ROIS[:, 1:], ints(0, 1, 0)]
    size = {"output_height": 2, "output_width": 3}
    yield Case(inputs, size)
    yield Case(inputs, {**size, "mode": "max", "sampling_ratio": 2, "spatial_scale": 0.5})
    if version >= 16:
        yield Case(inputs, {**size, "coordinate_transformation_mode": "output_half_pixel"})


@cases_for("Col2Im")
def columns(op: str, version: int) -> Iterator[Case]:
    yield Case([floats(1, 6, 9), ints(4, 5), ints(2, 3)], {"pads": (0, 0, 0, 0)})
    yield Case([floats(2, 8, 9), ints(4, 4), ints(2, 2)], {"pads": (1, 1, 1, 1), "strides": (2, 2)})
