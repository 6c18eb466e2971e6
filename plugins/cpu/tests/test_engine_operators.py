"""Operators of the native engine against onnxruntime, on every instruction set of the machine."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnxruntime
import pytest
from engine_models import RANDOM, all_native, check, make, normal
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import helper

import epkit
from epkit.errors import RunError
from epkit_cpu.native import isas

BY_CHANCE = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
pytestmark = pytest.mark.skipif(not isas(), reason="the package was built without a compiler")

# ---- elementwise chains ----

UNARY = [
    "Relu",
    "Tanh",
    "Sigmoid",
    "Neg",
    "Abs",
    "Exp",
    "Erf",
    "Floor",
    "Ceil",
    "Round",
    "Softplus",
    "Elu",
    "Sin",
]
BINARY = ["Add", "Sub", "Mul", "Div", "Max", "Min"]


@BY_CHANCE
@given(data=st.data())
def test_chains_of_any_shape(isa: str, data: st.DataObject) -> None:
    """A random expression over inputs that broadcast; every value is kept within reach of exp."""
    rank = data.draw(st.integers(0, 4))
    full = [data.draw(st.sampled_from([1, 2, 3, 17, 64])) for _ in range(rank)]
    feeds, nodes, values = {}, [], []
    for index in range(data.draw(st.integers(1, 4))):
        cut = data.draw(st.integers(0, rank))
        shape = [d if data.draw(st.booleans()) else 1 for d in full[cut:]]
        feeds[f"x{index}"] = np.asarray(np.clip(normal(*shape), -2, 2))
        values.append(f"x{index}")
    for index in range(data.draw(st.integers(1, 8))):
        name = f"v{index}"
        if data.draw(st.booleans()):
            nodes.append(
                helper.make_node(
                    data.draw(st.sampled_from(UNARY)), [data.draw(st.sampled_from(values))], [f"{name}_"]
                )
            )
        else:
            pair = [data.draw(st.sampled_from(values)), data.draw(st.sampled_from(values))]
            nodes.append(helper.make_node(data.draw(st.sampled_from(BINARY)), pair, [f"{name}_"]))
        nodes.append(helper.make_node("Clip", [f"{name}_", "low", "high"], [name]))
        values.append(name)
    weights = {"low": np.array(-3, np.float32), "high": np.array(3, np.float32)}
    # a floor just below and above a whole number differs by 1 between libraries that round exp differently
    rough = any(node.op_type in ("Floor", "Ceil", "Round") for node in nodes)
    model = make(nodes, feeds, [values[-1]], weights)
    with epkit.load(model) as session:
        assert all_native(session)
        found = session.run(None, feeds)[values[-1]]
    peer = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (wanted,) = peer.run(None, feeds)
    assert found.shape == wanted.shape
    near = np.isclose(found, wanted, rtol=1e-3, atol=1e-4, equal_nan=True)
    assert near.mean() > 0.9 if rough and near.size > 8 else near.all() or rough


@pytest.mark.parametrize("dtype", ["int32", "int64", "uint8", "float64"])
def test_arithmetic_of_other_types(isa: str, dtype: str) -> None:
    feeds = {
        "a": RANDOM.integers(1, 50, (3, 70)).astype(dtype),
        "b": RANDOM.integers(1, 9, (70,)).astype(dtype),
    }
    ops = ["Add", "Sub", "Mul", "Div"] + (["Max", "Min"] if dtype != "uint8" else [])
    nodes = [helper.make_node(op, ["a", "b"], [op]) for op in ops]
    nodes += [
        helper.make_node("Less", ["a", "b"], ["less"]),
        helper.make_node("Where", ["less", "a", "b"], ["where"]),
    ]
    check(nodes, feeds, [*ops, "less", "where"])


def test_an_integer_division_by_zero_is_an_error_and_not_the_end(isa: str) -> None:
    nodes = [helper.make_node("Div", ["a", "b"], ["y"], name="div")]
    a, b = np.arange(4), np.array([1, 2, 0, 4])
    with epkit.load(make(nodes, {"a": a, "b": b}, ["y"], {})) as session:
        with pytest.raises(RunError, match="division by zero") as caught:
            session(a=a, b=b)
        assert caught.value.where.node == "div"
        assert session(a=a, b=b + 1)["y"].tolist() == [0, 0, 2, 0]


# ---- products ----


@BY_CHANCE
@given(
    m=st.integers(1, 70),
    n=st.sampled_from([1, 3, 16, 33, 64, 130]),
    k=st.sampled_from([1, 2, 31, 64, 257]),
    batch=st.sampled_from([(), (3,), (2, 3)]),
    constant=st.booleans(),
)
def test_matmul_with_bias_and_activation(
    isa: str, m: int, n: int, k: int, batch: tuple[int, ...], constant: bool
) -> None:
    a, b, bias = normal(*batch, m, k), normal(k, n), normal(n)
    nodes = [
        helper.make_node("MatMul", ["a", "b"], ["p"]),
        helper.make_node("Add", ["p", "bias"], ["s"]),
        helper.make_node("Relu", ["s"], ["y"]),
    ]
    weights = {"bias": bias} | ({"b": b} if constant else {})
    check(nodes, {"a": a} | ({} if constant else {"b": b}), ["y"], weights, atol=1e-3)


@pytest.mark.parametrize(
    ("a", "b"),
    [((5,), (5, 3)), ((2, 5), (5,)), ((2, 1, 4, 5), (3, 5, 2)), ((1, 4, 5), (6, 5, 2)), ((0, 5), (5, 2))],
)
def test_matmul_of_odd_ranks(isa: str, a: tuple[int, ...], b: tuple[int, ...]) -> None:
    check([helper.make_node("MatMul", ["a", "b"], ["y"])], {"a": normal(*a), "b": normal(*b)}, ["y"])


@pytest.mark.parametrize("c", [(), (1,), (7,), (1, 7), (4, 1), (4, 7)])
def test_gemm(isa: str, c: tuple[int, ...]) -> None:
    node = helper.make_node("Gemm", ["a", "b", "c"], ["y"], alpha=0.5, beta=2.0, transA=1, transB=1)
    check([node], {"a": normal(9, 4), "c": normal(*c)}, ["y"], {"b": normal(7, 9)})


# ---- images ----


@BY_CHANCE
@given(
    channels=st.sampled_from([1, 3, 16, 20, 32]),
    filters=st.sampled_from([1, 8, 16, 40]),
    size=st.integers(5, 14),
    kernel=st.sampled_from([1, 2, 3, 5]),
    stride=st.integers(1, 2),
    dilation=st.integers(1, 2),
    pads=st.lists(st.integers(0, 2), min_size=4, max_size=4),
    depthwise=st.booleans(),
    threads=st.integers(1, 3),
)
def test_convolutions_in_a_row(
    isa: str,
    channels: int,
    filters: int,
    size: int,
    kernel: int,
    stride: int,
    dilation: int,
    pads: list[int],
    depthwise: bool,
    threads: int,
) -> None:
    """Two convolutions, a residual, pooling, and a reader in the planar layout between."""
    group, filters = (channels, channels) if depthwise else (1, filters)
    if size + min(pads[0] + pads[2], pads[1] + pads[3]) < (kernel - 1) * dilation + 1:
        return
    attributes: dict[str, Any] = {
        "group": group,
        "pads": pads,
        "strides": [stride] * 2,
        "dilations": [dilation] * 2,
    }
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["c"], **attributes),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("Conv", ["r", "v"], ["d"], pads=[1] * 4),
        helper.make_node("Add", ["d", "r"], ["s"]),
        helper.make_node("Clip", ["s", "", "high"], ["t"]),
        helper.make_node("Transpose", ["t"], ["turned"], perm=[0, 2, 3, 1]),
        helper.make_node("GlobalAveragePool", ["t"], ["mean"]),
        helper.make_node("Mul", ["t", "mean"], ["weighed"]),
    ]
    weights = {
        "w": normal(filters, channels // group, kernel, kernel) / kernel,
        "b": normal(filters),
        "v": normal(filters, filters, 3, 3) / (3 * np.sqrt(np.float32(filters))),
        "high": np.array(6, np.float32),
    }
    feeds = {"x": normal(2, channels, size, size)}
    check(nodes, feeds, ["turned", "mean", "weighed"], weights, atol=1e-3, threads=threads)


@pytest.mark.parametrize("kind", ["MaxPool", "AveragePool"])
@pytest.mark.parametrize("ceil", [0, 1])
def test_pooling(isa: str, kind: str, ceil: int) -> None:
    attributes: dict[str, Any] = {
        "kernel_shape": [3, 2],
        "strides": [2, 1],
        "pads": [1, 0, 1, 1],
        "ceil_mode": ceil,
    }
    nodes = [helper.make_node("Conv", ["x", "w"], ["c"]), helper.make_node(kind, ["c"], ["y"], **attributes)]
    check(nodes, {"x": normal(1, 4, 9, 8)}, ["y"], {"w": normal(32, 4, 1, 1)})


def test_padding_goes_into_the_convolution(isa: str) -> None:
    nodes = [
        helper.make_node("Pad", ["x", "pads"], ["p"]),
        helper.make_node("Conv", ["p", "w"], ["y"], strides=[2, 2]),
    ]
    weights = {"pads": np.array([0, 0, 0, 1, 0, 0, 2, 1]), "w": normal(5, 3, 3, 3)}
    check(nodes, {"x": normal(1, 3, 8, 8)}, ["y"], weights)


@pytest.mark.parametrize("channels", [4, 32])
@pytest.mark.parametrize("size", [(50, 1), (1, 1), (9, 1, 1)])
def test_convolutions_over_images_of_one_column(isa: str, channels: int, size: tuple[int, ...]) -> None:
    kernel = [min(n, 3) for n in size]
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["c"], strides=[2, *[1] * (len(size) - 1)]),
        helper.make_node("Relu", ["c"], ["y"]),
    ]
    weights = {"w": normal(24, channels, *kernel), "b": normal(24)}
    check(nodes, {"x": normal(2, channels, *size)}, ["y"], weights, atol=1e-4)


def test_a_convolution_after_a_value_of_unknown_rank(isa: str) -> None:
    """The rank of x is that of the weights: nothing else is possible."""
    nodes = [
        helper.make_node("Reshape", ["x", "shape"], ["r"]),
        helper.make_node("Conv", ["r", "w"], ["c"]),
        helper.make_node("Relu", ["c"], ["y"]),
    ]
    feeds = {"x": normal(24, 7), "shape": np.array([1, 8, 21], np.int64)}
    model = make(nodes, feeds, ["y"], {"w": normal(5, 8, 3)})
    model.graph.input[1].type.tensor_type.shape.dim[0].dim_param = "rank"
    wanted = onnxruntime.InferenceSession(model.SerializeToString()).run(None, feeds)[0]
    with epkit.load(model, ["cpu"]) as session:
        assert all_native(session)
        np.testing.assert_allclose(session.run(None, feeds)["y"], wanted, 1e-4, 1e-5)


def test_tails_that_vanish_are_zero(isa: str) -> None:
    """Far from 0 activations and what is made of them hold no denormal numbers, which would cost a hundredfold."""
    x = np.linspace(-200, 0, 4001, dtype=np.float32).reshape(1, -1)
    wide = x.astype(np.float64)
    inner = np.sqrt(2 / np.pi) * (wide + 0.044715 * wide**3)
    with np.errstate(all="ignore"):
        exact = {
            "none": 0.5 * wide * np.vectorize(math.erfc)(-wide / np.sqrt(2)),
            "tanh": wide / (1 + np.exp(-2 * inner)),
        }
    for kind, wanted in exact.items():
        node = helper.make_node("Gelu", ["x"], ["y"], approximate=kind)
        model = make([node], {"x": x}, ["y"], {})
        model.opset_import[0].version = 20
        with epkit.load(model, ["cpu"]) as session:
            found = session.run(None, {"x": x})["y"]
        assert not ((found != 0) & (np.abs(found) < np.finfo(np.float32).tiny)).any(), kind
        np.testing.assert_allclose(found, wanted, 2e-5, 1e-36)


def test_a_skip_that_repeats(isa: str) -> None:
    """Positions of a sequence are added to each item of a batch."""
    x, skip, scale = normal(3, 5, 32), normal(5, 32), normal(32)
    nodes = [
        helper.make_node(
            "SkipLayerNormalization",
            ["x", "s", "g"],
            ["y", "", "", "t"],
            domain="com.microsoft",
            epsilon=1e-5,
        )
    ]
    model = make(nodes, {"x": x}, ["y", "t"], {"s": skip, "g": scale})
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    for dim, size in zip(model.graph.input[0].type.tensor_type.shape.dim[1:], (5, 32), strict=True):
        dim.dim_value = size
    total = x.astype(np.float64) + skip
    center = total - total.mean(-1, keepdims=True)
    with epkit.load(model, ["cpu"]) as session:
        assert all_native(session)
        found = session.run(None, {"x": x})
    np.testing.assert_allclose(found["t"], total, 1e-6, 1e-6)
    wanted = center / np.sqrt((center**2).mean(-1, keepdims=True) + 1e-5) * scale
    np.testing.assert_allclose(found["y"], wanted, 1e-4, 1e-5)


def test_transposed_convolution(isa: str) -> None:
    node = helper.make_node(
        "ConvTranspose", ["x", "w", "b"], ["y"], strides=[2, 2], pads=[1, 0, 1, 2], output_padding=[1, 0]
    )
    check([node], {"x": normal(2, 6, 5, 4)}, ["y"], {"w": normal(6, 7, 3, 3), "b": normal(7)})


# ---- movement ----


@BY_CHANCE
@given(data=st.data())
def test_movement(isa: str, data: st.DataObject) -> None:
    shape = data.draw(st.lists(st.integers(1, 9), min_size=1, max_size=4))
    rank = len(shape)
    kind = np.dtype(data.draw(st.sampled_from(["float32", "int64", "uint8", "float64", "bool"])))
    x = RANDOM.integers(0, 2 if kind.kind == "b" else 100, shape).astype(kind)
    axis = data.draw(st.integers(-rank, rank - 1))
    steps = data.draw(st.lists(st.sampled_from([-2, -1, 1, 3]), min_size=rank, max_size=rank))
    weights = {
        "starts": np.array([-1 if s < 0 else 1 for s in steps]),
        "ends": np.array([-100 if s < 0 else 100 for s in steps]),
        "axes": np.arange(rank),
        "steps": np.array(steps),
        "indices": RANDOM.integers(-shape[axis], shape[axis], (2, 3)),
        "repeats": RANDOM.integers(0, 3, rank),
    }
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], perm=data.draw(st.permutations(range(rank)))),
        helper.make_node("Slice", ["x", "starts", "ends", "axes", "steps"], ["s"]),
        helper.make_node("Concat", ["x", "x", "x"], ["c"], axis=axis),
        helper.make_node("Gather", ["x", "indices"], ["g"], axis=axis),
        helper.make_node("Tile", ["x", "repeats"], ["r"]),
        helper.make_node("Split", ["c"], ["c1", "c2", "c3"], axis=axis, num_outputs=3),
    ]
    check(nodes, {"x": x}, ["t", "s", "c", "g", "r", "c1", "c3"], weights)


@pytest.mark.parametrize(
    "kind", ["ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceL2", "ReduceLogSumExp"]
)
@pytest.mark.parametrize("axes", [[0], [1], [2], [0, 1], [1, 2], [0, 2], [0, 1, 2], None])
def test_reductions(isa: str, kind: str, axes: list[int] | None) -> None:
    weights = {} if axes is None else {"axes": np.array(axes)}
    nodes = [
        helper.make_node(kind, ["x", *weights], ["kept"]),
        helper.make_node(kind, ["x", *weights], ["gone"], keepdims=0),
    ]
    # around 1: a sum that cancels has no right digits in float32, whoever makes it
    check(nodes, {"x": 1 + normal(7, 33, 40)}, ["kept", "gone"], weights)


def test_top_k_and_extremes(isa: str) -> None:
    x = RANDOM.integers(0, 20, (4, 50, 3)).astype(np.float32)  # with ties
    nodes = [
        helper.make_node("TopK", ["x", "k"], ["v", "i"], axis=1),
        helper.make_node("TopK", ["x", "k"], ["w", "j"], axis=1, largest=0),
        helper.make_node("ArgMax", ["x"], ["a"], axis=1),
        helper.make_node("ArgMin", ["x"], ["b"], axis=-1, keepdims=0, select_last_index=1),
        helper.make_node("CumSum", ["x", "axis"], ["s"], reverse=1),
    ]
    check(nodes, {"x": x}, ["v", "i", "w", "j", "a", "b", "s"], {"k": np.array([7]), "axis": np.array(1)})


# ---- 8-bit integers, resizing ----


@pytest.mark.parametrize("kind", ["uint8", "int8"])
def test_quantised(isa: str, kind: str) -> None:
    zeros = RANDOM.integers(0, 9, 24).astype(kind)
    weights = {"s": np.array(0.03, np.float32), "z": np.array(7, kind), "t": np.abs(normal(24)), "u": zeros}
    weights |= {"b": RANDOM.integers(0, 100, (24, 33)).astype(kind), "bz": np.array(5, kind)}
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "t", "u"], ["d"], axis=-1),
        helper.make_node("MatMulInteger", ["q", "b", "z", "bz"], ["m"]),
    ]
    check(nodes, {"x": normal(5, 24)}, ["q", "d", "m"], weights)


@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
@pytest.mark.parametrize("coordinates", ["half_pixel", "align_corners", "asymmetric"])
@pytest.mark.parametrize("scale", [[1, 1, 2, 4], [1, 1, 0.7, 3]])
def test_resize(isa: str, mode: str, coordinates: str, scale: list[float]) -> None:
    if mode == "nearest" or coordinates == "align_corners":
        scale = [
            1,
            1,
            *(np.ceil(scale[2:])),
        ]  # with others rounding decides, and onnxruntime rounds in float32
    node = helper.make_node(
        "Resize", ["x", "", "scales"], ["y"], mode=mode, coordinate_transformation_mode=coordinates
    )
    check([node], {"x": normal(2, 3, 7, 10)}, ["y"], {"scales": np.array(scale, np.float32)})


# ---- sequences ----


@pytest.mark.parametrize("cell", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
def test_recurrent(isa: str, cell: str, direction: str) -> None:
    gates, d = {"LSTM": 4, "GRU": 3, "RNN": 1}[cell], 2 if direction == "bidirectional" else 1
    weights = {"w": normal(d, gates * 9, 5), "r": normal(d, gates * 9, 9), "b": normal(d, 2 * gates * 9)}
    node = helper.make_node(cell, ["x", "w", "r", "b"], ["y", "h"], hidden_size=9, direction=direction)
    check([node], {"x": normal(11, 3, 5)}, ["y", "h"], weights, atol=1e-4)
