"""Operators one by one on the native engine: as the portable kernel has them, and onnxruntime."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from native_node import Array, agree, native, one_node

import epkit
from epkit_cpu.native import isas

BY_CHANCE = settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
pytestmark = pytest.mark.skipif(not isas(), reason="the package was built without a compiler")
every_isa = pytest.mark.parametrize("isa", isas() or ("none",))
NUMBERS = ("float32", "float64", "int64", "int32", "uint8", "bool", "float16")


def numbers(pick: Any, dtype: str, *shape: int) -> Array:
    generator = np.random.default_rng(pick(st.integers(0, 99)))
    if dtype.startswith("float"):
        return np.asarray(4 * generator.standard_normal(shape)).astype(dtype)
    low, high = 0 if dtype in ("uint8", "bool") else -9, 2 if dtype == "bool" else 9
    return np.asarray(generator.integers(low, high, shape)).astype(dtype)


def dims(pick: Any, least: int = 0, most: int = 4) -> list[int]:
    return list(pick(st.lists(st.integers(0, 5), min_size=least, max_size=most)))


# ---- chains ----


@every_isa
@BY_CHANCE
@given(data=st.data())
def test_elementwise(isa: str, data: st.DataObject) -> None:
    pick = data.draw
    shape = dims(pick)
    op = pick(st.sampled_from(["CastLike", "Shrink", "Mod", "BitShift", "Pow", "SwiGLU"]))
    how: dict[str, Any] = {}
    opset, other = 21, [n if pick(st.booleans()) else 1 for n in shape]
    if op == "CastLike":
        inputs = [numbers(pick, pick(st.sampled_from(NUMBERS)), *shape)]
        inputs.append(numbers(pick, pick(st.sampled_from(NUMBERS)), 2))
        if inputs[0].dtype.kind == "f" and inputs[1].dtype == np.uint8:
            inputs[0] = np.abs(inputs[0])
    elif op == "Shrink":
        inputs = [numbers(pick, "float32", *shape)]
        how = {"lambd": pick(st.sampled_from([0.5, 2.0])), "bias": pick(st.sampled_from([0.0, 1.5]))}
    elif op == "Mod":
        opset, how = 28, {"fmod": pick(st.integers(0, 1))}
        kind = pick(st.sampled_from(["float32", "float64", "int32"]))
        inputs = [numbers(pick, kind, *shape), numbers(pick, kind, *other)]
        assume(kind != "int32" or inputs[1].all())
    elif op == "BitShift":
        kind = pick(st.sampled_from(["uint8", "int32", "uint64", "int8", "int64"]))
        opset, how = 28, {"direction": pick(st.sampled_from(["LEFT", "RIGHT"]))}
        inputs = [
            numbers(pick, "uint8", *shape).astype(kind),
            8 * numbers(pick, "uint8", *other).astype(kind),
        ]
    elif op == "Pow":
        kinds = pick(st.sampled_from([("float32", "int64"), ("float32", "float64"), ("int32", "float32")]))
        inputs = [1 + np.abs(numbers(pick, kinds[0], *shape)), numbers(pick, kinds[1], *other)]
        if kinds[0] == "int32":
            inputs[1] = np.abs(inputs[1]) / 2
    else:
        opset, inputs = 28, [numbers(pick, "float32", *shape) for _ in range(2)]
    model, feeds = one_node(op, inputs, opset=opset, fixed=True, **how)
    agree(model, feeds, isa, rtol=1e-5)


def test_shrink_keeps_what_is_no_number_at_zero() -> None:
    x = np.array([np.nan, -np.inf, np.inf, -0.5, 0.5, 0.6], np.float32)
    for isa in isas():
        agree(*one_node("Shrink", [x]), isa)


@every_isa
def test_dropout_of_inference_is_the_input(isa: str) -> None:
    x = np.arange(6, dtype=np.float32)
    model, feeds = one_node("Dropout", [x, np.array(0.5, np.float32), np.array(False)], constants=(1, 2))
    np.testing.assert_array_equal(native(model, feeds, isa)["o0"], x)


# ---- choice ----


@every_isa
@BY_CHANCE
@given(data=st.data())
def test_non_zero_and_compress(isa: str, data: st.DataObject) -> None:
    pick = data.draw
    x = numbers(pick, pick(st.sampled_from(NUMBERS)), *dims(pick, 1))
    x = np.asarray(np.where(x == 1, -0.0 if x.dtype.kind == "f" else 0, x)).astype(x.dtype)
    agree(*one_node("NonZero", [x]), isa, beside_onnxruntime=x.dtype in (np.float32, np.int64, np.bool_))
    axis = pick(st.one_of(st.none(), st.integers(-x.ndim, x.ndim - 1)))
    size = x.size if axis is None else x.shape[axis]
    condition = numbers(pick, "bool", pick(st.integers(0, size)))
    how: dict[str, Any] = {} if axis is None else {"axis": axis}
    model, feeds = one_node("Compress", [x, condition], **how)
    agree(model, feeds, isa)


@every_isa
@BY_CHANCE
@given(data=st.data())
def test_one_hot(isa: str, data: st.DataObject) -> None:
    pick = data.draw
    indices = numbers(pick, pick(st.sampled_from(["int64", "int32", "float32"])), *dims(pick, 1))
    depth = np.array(pick(st.integers(0, 7)), pick(st.sampled_from(["int64", "float32"])))
    values = numbers(pick, pick(st.sampled_from(NUMBERS)), 2)
    axis = pick(st.integers(-indices.ndim - 1, indices.ndim))
    opset = pick(st.sampled_from([9, 11]))
    agree(*one_node("OneHot", [indices, depth, values], axis=axis, opset=opset), isa)


@every_isa
@BY_CHANCE
@given(data=st.data())
def test_reverse_sequence(isa: str, data: st.DataObject) -> None:
    pick = data.draw
    x = numbers(pick, pick(st.sampled_from(NUMBERS)), *dims(pick, 2))
    time = pick(st.integers(0, 1))
    lengths = np.array([pick(st.integers(0, x.shape[time])) for _ in range(x.shape[1 - time])], np.int64)
    model, feeds = one_node("ReverseSequence", [x, lengths], time_axis=time, batch_axis=1 - time)
    agree(model, feeds, isa)


@every_isa
@BY_CHANCE
@given(data=st.data())
def test_cumulated(isa: str, data: st.DataObject) -> None:
    pick = data.draw
    x = numbers(pick, pick(st.sampled_from(["float32", "float64", "int32", "int64"])), *dims(pick, 1))
    axis = np.array(pick(st.integers(-x.ndim, x.ndim - 1)))
    how: dict[str, Any] = {"exclusive": pick(st.integers(0, 1)), "reverse": pick(st.integers(0, 1))}
    for op in ("CumSum", "CumProd"):
        agree(*one_node(op, [x, axis], opset=26, **how), isa, rtol=1e-4)


# ---- images ----


@every_isa
@BY_CHANCE
@given(data=st.data())
def test_non_max_suppression(isa: str, data: st.DataObject) -> None:
    """Boxes and scores of few values: many are equal, and many overlap."""
    pick = data.draw
    batch, classes, count = pick(st.integers(1, 2)), pick(st.integers(1, 3)), pick(st.integers(0, 40))
    generator = np.random.default_rng(pick(st.integers(0, 99)))
    boxes = generator.integers(0, 9, (batch, count, 4)).astype(np.float32)
    scores = (generator.integers(0, 12, (batch, classes, count)) / 8).astype(np.float32)
    inputs: list[Array | None] = [boxes, scores, np.array([pick(st.integers(0, 6))])]
    inputs.append(np.array([pick(st.sampled_from([0.0, 0.3, 0.7]))], np.float32))
    if pick(st.booleans()):
        inputs.append(np.array([0.5], np.float32))
    model, feeds = one_node("NonMaxSuppression", inputs, opset=11, center_point_box=pick(st.integers(0, 1)))
    agree(model, feeds, isa)


@every_isa
def test_suppression_beside_onnxruntime(isa: str) -> None:
    generator = np.random.default_rng(3)
    low, extent = generator.random((2, 300, 2)), generator.random((2, 300, 2)) / 3
    boxes = np.concatenate([low, low + extent], 2).astype(np.float32)
    scores = generator.permuted(np.tile(np.linspace(0, 1, 300, dtype=np.float32), (2, 4, 1)), axis=2)
    options = [np.array([20]), np.array([0.4], np.float32), np.array([0.3], np.float32)]
    agree(*one_node("NonMaxSuppression", [boxes, scores, *options], opset=11), isa, beside_onnxruntime=True)


@every_isa
@BY_CHANCE
@given(data=st.data())
def test_grid_sample(isa: str, data: st.DataObject) -> None:
    pick = data.draw
    n, channels = pick(st.integers(1, 2)), pick(st.integers(1, 5))
    height, width = pick(st.integers(1, 6)), pick(st.integers(1, 6))
    x = numbers(pick, "float32", n, channels, height, width)
    grid = numbers(pick, "float32", n, pick(st.integers(0, 4)), pick(st.integers(1, 5)), 2) / 3
    if pick(st.booleans()) and grid.size:
        grid[0, 0, 0] = pick(st.sampled_from([np.nan, np.inf, -1.0, 1.0]))
    how: dict[str, Any] = {
        "mode": pick(st.sampled_from(["nearest", "linear", "cubic"])),
        "align_corners": pick(st.integers(0, 1)),
    }
    how["padding_mode"] = pick(st.sampled_from(["zeros", "border", "reflection"]))
    agree(*one_node("GridSample", [x, grid], opset=20, **how), isa, rtol=1e-4, atol=1e-4)


@every_isa
@BY_CHANCE
@given(data=st.data())
def test_resize_by_any_scale(isa: str, data: st.DataObject) -> None:
    """Positions are exact: where rounding decides, it decides as in the portable kernel."""
    pick = data.draw
    x = numbers(pick, "float32", 1, 2, pick(st.integers(1, 9)), pick(st.integers(1, 9)))
    axes = pick(st.sampled_from([None, [2, 3], [3, -2]]))
    if pick(st.booleans()):
        given_sizes: list[Array | None] = [None, None, np.array([pick(st.integers(1, 20)) for _ in range(2)])]
    else:
        scales = [pick(st.sampled_from([0.6, 0.7, 1.5, 2.0, 2.3, 1 / 3])) for _ in range(2)]
        given_sizes = [None, np.array(scales, np.float32), None]
    if axes is None:
        given_sizes = [v if v is None else np.concatenate([np.ones(2, v.dtype), v]) for v in given_sizes]
        given_sizes = [v if v is None or v.dtype.kind == "f" else np.array([1, *v[1:]]) for v in given_sizes]
        if given_sizes[2] is not None:
            given_sizes[2][:2] = x.shape[:2]
    modes = ["half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners", "asymmetric"]
    how: dict[str, Any] = {"mode": pick(st.sampled_from(["nearest", "linear", "cubic"]))}
    how["coordinate_transformation_mode"] = pick(st.sampled_from(modes))
    how["nearest_mode"] = pick(st.sampled_from(["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"]))
    if axes is not None:
        how["axes"] = axes
    inputs: list[Array | None] = [x, *given_sizes]
    while inputs[-1] is None:
        inputs.pop()
    agree(
        *one_node("Resize", inputs, opset=19, kind=onnx.TensorProto.FLOAT, **how), isa, rtol=1e-4, atol=1e-4
    )


@every_isa
@BY_CHANCE
@given(data=st.data())
def test_norms(isa: str, data: st.DataObject) -> None:
    pick = data.draw
    shape = (pick(st.integers(1, 2)), pick(st.integers(1, 9)), *dims(pick, 0, 2))
    x = numbers(pick, "float32", *shape)
    how: dict[str, Any] = {"size": pick(st.integers(1, 6)), "alpha": pick(st.sampled_from([1e-4, 0.3]))}
    agree(*one_node("LRN", [x], **how, beta=pick(st.sampled_from([0.75, 0.5]))), isa)
    x[0] = 0
    axis = pick(st.integers(-x.ndim, x.ndim - 1))
    agree(*one_node("LpNormalization", [x], axis=axis, p=pick(st.integers(1, 2))), isa)


@every_isa
def test_group_normalization_until_opset_20(isa: str) -> None:
    x = np.random.default_rng(1).standard_normal((2, 6, 5)).astype(np.float32)
    scale, bias = np.array([1, 2, 3], np.float32), np.array([0, 1, -1], np.float32)
    inputs: list[Array | None] = [x, scale, bias]
    how: dict[str, Any] = {"constants": (1, 2), "fixed": True, "opset": 18, "kind": onnx.TensorProto.FLOAT}
    model, feeds = one_node("GroupNormalization", inputs, **how, num_groups=3)
    agree(model, feeds, isa, atol=1e-5)


@every_isa
@BY_CHANCE
@given(data=st.data())
def test_bias_softmax(isa: str, data: st.DataObject) -> None:
    pick = data.draw
    shape = [pick(st.integers(1, 4)) for _ in range(4)]
    axis, inner = pick(st.integers(1, 3)), pick(st.integers(0, 1))
    missing = pick(st.integers(0, axis))
    bias = [1 if (axis - missing <= i < axis if inner else i < missing) else n for i, n in enumerate(shape)]
    inputs = [numbers(pick, "float32", *shape), numbers(pick, "float32", *bias)]
    how: dict[str, Any] = {"axis": axis, "is_inner_broadcast": inner}
    agree(*one_node("BiasSoftmax", inputs, domain="com.microsoft", **how), isa)


# ---- products ----

EQUATIONS = (
    *(
        "ij,jk->ik",
        "bij,bjk->bik",
        "bhid,bhjd->bhij",
        "bhij,bhjd->bihd",
        "bqhd,bkhd->bhqk",
        "i,j->ij",
        "bi,bi->b",
    ),
    *("ijk,kl->ijl", "abc,cb->a", "ab,cb->ca", "nchw,cd->ndhw", "ab->ba", "abcd->cadb", "bi,bij->bj"),
)


@every_isa
@BY_CHANCE
@given(data=st.data())
def test_einsum(isa: str, data: st.DataObject) -> None:
    pick = data.draw
    equation = pick(st.sampled_from(EQUATIONS))
    sizes = {c: pick(st.integers(1, 6)) for c in sorted(set(equation) - set(",->"))}
    terms = equation.partition("->")[0].split(",")
    inputs = [numbers(pick, "float32", *(sizes[c] for c in term)) for term in terms]
    model, feeds = one_node("Einsum", inputs, equation=equation)
    agree(model, feeds, isa, rtol=1e-4, atol=1e-4, beside_onnxruntime=True)


def test_sizes_of_one_spread_in_einsum() -> None:
    x, y = np.ones((1, 3, 4), np.float32), np.ones((5, 4, 2), np.float32)
    model, feeds = one_node("Einsum", [x, y], equation="bij,bjk->bik")
    with epkit.load(model) as session:
        np.testing.assert_array_equal(session.run(None, feeds)["o0"], np.full((5, 3, 2), 4, np.float32))


@every_isa
@BY_CHANCE
@given(data=st.data())
def test_depthwise_convolution_of_codes(isa: str, data: st.DataObject) -> None:
    pick = data.draw
    generator = np.random.default_rng(pick(st.integers(0, 99)))
    channels, kernel = pick(st.integers(2, 20)), [pick(st.integers(1, 5)) for _ in range(2)]
    dtype = pick(st.sampled_from(["uint8", "int8"]))
    x, w = (
        generator.integers(0, 127, s).astype(dtype) for s in ((2, channels, 7, 9), (channels, 1, *kernel))
    )
    scales = [np.array(v, np.float32) for v in (0.02, 0.01, 0.3)]
    zeros = [np.array(generator.integers(0, 9), dtype) for _ in range(3)]
    inputs = [x, scales[0], zeros[0], w, scales[1], zeros[1], scales[2], zeros[2]]
    inputs.append(generator.integers(-900, 900, channels).astype(np.int32))
    how: dict[str, Any] = {"group": channels, "strides": [pick(st.integers(1, 3)) for _ in range(2)]}
    how["pads"] = [pick(st.integers(0, 2)) for _ in range(4)]
    model, feeds = one_node("QLinearConv", inputs, constants=range(1, 9), **how)
    agree(model, feeds, isa)
