"""Resizing against the ONNX reference implementation, tree ensembles against a walk in Python."""

from __future__ import annotations

import ctypes
import itertools
from typing import Any

import numpy as np
import onnx
import onnx.reference
import pytest
from math_library import ISAS, call, parallel
from onnx import helper

I64, P, C, F = ctypes.c_int64, ctypes.c_void_p, ctypes.c_int32, ctypes.c_float
MODES = ["nearest", "linear", "cubic"]
COORDINATES = ["half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners", "asymmetric",
               "tf_crop_and_resize"]  # fmt: skip
NEAREST = ["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"]


class Axis(ctypes.Structure):
    _fields_ = [("in_", I64), ("out", I64), ("up", ctypes.c_double), ("down", ctypes.c_double), ("mode", C), ("coordinates", C), ("nearest", C),
                ("exclude_outside", C), ("cubic_a", F), ("start", F), ("end", F), ("extrapolation", F)]  # fmt: skip


def resized(isa: str, x: Any, axis: int, parameters: Axis) -> Any:
    """x resized along one axis."""
    taps = call(isa, "resize_taps", C(parameters.mode), returns=I64)
    index, weight = np.empty((parameters.out, taps), np.int32), np.empty((parameters.out, taps), np.float32)
    call(isa, "resize_table", ctypes.byref(parameters), index, weight)
    shape = [*x.shape[:axis], parameters.out, *x.shape[axis + 1 :]]
    out = np.empty(shape, np.float32)
    outer, inner = int(np.prod(x.shape[:axis])), int(np.prod(x.shape[axis + 1 :]))
    call(
        isa,
        "resize_f32",
        ctypes.byref(parameters),
        index,
        weight,
        np.ascontiguousarray(x),
        out,
        outer,
        inner,
        parallel(2),
    )
    return out


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("mode", range(3))
@pytest.mark.parametrize("coordinates", range(6))
def test_resize(isa: str, mode: int, coordinates: int) -> None:
    x = np.random.default_rng(0).standard_normal((1, 2, 7, 9)).astype(np.float32)
    for sizes, nearest, exclude in itertools.product([(14, 18), (5, 20), (1, 4)], range(4), [0, 1]):
        # One output with pytorch_half_pixel is at 0 in the specification, at -0.5 in its reference implementation.
        unclear = sizes[0] == 1 and (coordinates == 3 or (coordinates == 2 and mode == 2))
        if (mode and nearest) or (exclude and mode != 2) or unclear:
            continue
        roi = np.array([0, 0, 0.1, -0.2, 1, 1, 0.8, 1.1], np.float32)
        attributes = {"mode": MODES[mode], "coordinate_transformation_mode": COORDINATES[coordinates],
                      "nearest_mode": NEAREST[nearest], "exclude_outside": exclude, "extrapolation_value": 9.0}  # fmt: skip
        node = helper.make_node("Resize", ["x", "roi", "", "sizes"], ["y"], **attributes)
        values = [
            helper.make_tensor_value_info(n, t, None)
            for n, t in (("x", 1), ("roi", 1), ("sizes", 7), ("y", 1))
        ]
        model = helper.make_model(helper.make_graph([node], "g", values[:3], values[3:]),
                                  opset_imports=[helper.make_opsetid("", 19)])  # fmt: skip
        feeds = {"x": x, "roi": roi, "sizes": np.array([1, 2, *sizes])}
        (exact,) = onnx.reference.ReferenceEvaluator(model).run(None, feeds)
        found = x
        for axis, size in ((2, sizes[0]), (3, sizes[1])):
            before = x.shape[axis]
            found = resized(isa, found, axis, Axis(before, size, size, before, mode, coordinates, nearest, exclude, -0.75,
                                                   roi[axis], roi[axis + 4], 9.0))  # fmt: skip
        np.testing.assert_allclose(found, exact, rtol=1e-4, atol=1e-5, err_msg=str((sizes, nearest, exclude)))


class Trees(ctypes.Structure):
    _fields_ = [("nodes", P), ("roots", P), ("trees", I64), ("table", P), ("leaf_begin", P), ("entry_column", P),
                ("entry_weight", P), ("features", I64), ("columns", I64), ("reduction", I64)]  # fmt: skip


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("reduction", range(3))
@pytest.mark.parametrize("name", ["f32", "f64"])
@pytest.mark.parametrize("rows", [1, 3, 150])
def test_trees(isa: str, reduction: int, name: str, rows: int) -> None:
    generator = np.random.default_rng(reduction)
    features, columns, trees, depth, kind = (
        5,
        3,
        37,
        4,
        np.dtype(name.replace("f64", "f8").replace("f32", "f4")),
    )
    fields: Any = [("threshold", kind), ("feature", "i4"), ("child", "i4", (4,))]
    nodes: list[Any] = []
    leaves = 1

    def grow(level: int) -> int:
        nonlocal leaves
        if level == depth or (level and generator.random() < 0.2):
            leaves += 1
            return ~(leaves - 1)
        index = len(nodes)
        nodes.append(None)
        ways = grow(level + 1), grow(level + 1)
        nodes[index] = (generator.integers(-1, 2), generator.integers(features), generator.choice(ways, 4))
        return index

    roots = np.array([-1, *(grow(0) for _ in range(trees - 1))], np.int32)  # a first tree of one leaf
    table = np.array(nodes, np.dtype(fields, align=True))
    begin = np.concatenate([[0], np.cumsum(generator.integers(0, 3, leaves))]).astype(np.int32)
    column = generator.integers(0, columns, begin[-1]).astype(np.int32)
    weight = generator.standard_normal(begin[-1]).astype(kind)
    x = generator.integers(-1, 2, (rows, features)).astype(kind)
    x[generator.random(x.shape) < 0.1] = np.nan
    into, identity = [(np.add, 0.0), (np.minimum, np.inf), (np.maximum, -np.inf)][reduction]
    votes = np.full((leaves, columns), identity, kind)
    into.at(votes, (np.repeat(np.arange(leaves), np.diff(begin)), column), weight)
    exact = np.full((rows, columns), identity)
    for r, at in itertools.product(range(rows), roots):
        while at >= 0:
            value, threshold = x[r, table[at]["feature"]], table[at]["threshold"]
            at = table[at]["child"][int(value <= threshold) + 2 * int(value >= threshold)]
        exact[r] = into(exact[r], votes[~at])
    for dense in (True, False):
        parts = [votes.ctypes.data, None, None, None]
        if not dense:
            parts = [None, *(part.ctypes.data for part in (begin, column, weight))]
        ensemble = Trees(table.ctypes.data, roots.ctypes.data, trees, *parts, features, columns, reduction)
        out = np.empty((rows, columns), kind)
        call(isa, f"trees_{name}", ctypes.byref(ensemble), x, out, rows, parallel(2))
        np.testing.assert_allclose(out, exact, rtol=1e-5, atol=1e-5)
