"""Products of bytes: sums, zero points and scales against onnxruntime and NumPy; what the library is asked for."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
import pytest
from cuda_standin import StandIn
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper

import epkit

SLOW = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]  # a source is compiled in between
FEW = settings(max_examples=12, deadline=None, suppress_health_check=SLOW)
KINDS = (np.int8, np.uint8)


def model_of(node: Any, feeds: dict[str, Any], result: Any, constants: set[str], domain: str = "") -> Any:
    """One node; constants are initializers, inputs have open sizes, but for vectors of one number."""
    code = helper.np_dtype_to_tensor_dtype
    inputs = [
        helper.make_tensor_value_info(
            name, code(x.dtype), [1] if x.shape == (1,) else [f"{name}{axis}" for axis in range(x.ndim)]
        )
        for name, x in feeds.items()
        if name not in constants
    ]
    kept = [numpy_helper.from_array(feeds[name], name) for name in constants]
    output = helper.make_tensor_value_info("y", code(np.dtype(result)), None)
    graph = helper.make_graph([node], "g", inputs, [output], kept)
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def compare(gpu: StandIn, node: Any, feeds: dict[str, Any], result: Any, constants: set[str]) -> None:
    model = model_of(node, feeds, result, constants)
    given_ = {name: x for name, x in feeds.items() if name not in constants}
    before = len(gpu.products)
    with epkit.load(model, ["cuda"], fallback="error", optimise="none") as session:
        found = [session.run(None, given_)["y"] for _ in range(2)][1]

    want = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(
        None, given_
    )
    assert found.dtype == want[0].dtype and found.shape == want[0].shape
    if found.dtype == np.float32:
        np.testing.assert_allclose(found, want[0], rtol=1e-5, atol=1e-5)
    else:
        np.testing.assert_array_equal(found, want[0])
    for left, right, *_ in gpu.products[before:]:
        assert left[1] % 16 == 0 and right[1] % 16 == 0


def integers(random: Any, kind: Any, *shape: int) -> Any:
    info = np.iinfo(kind)
    return random.integers(info.min, info.max + 1, shape).astype(kind)


@FEW
@given(st.data())
def test_sums_of_products_of_bytes(gpu: StandIn, draw: st.DataObject) -> None:
    choose = lambda *options: draw.draw(st.sampled_from(options))  # noqa: E731
    random = np.random.default_rng(draw.draw(st.integers(0, 99)))
    (a, b), (k, n) = (
        choose((np.uint8, np.int8), (np.uint8, np.uint8), (np.int8, np.int8)),
        choose((32, 5), (37, 40)),
    )
    shape = choose((1, k), (3, k), (2, 3, k))
    feeds = {"a": integers(random, a, *shape), "b": integers(random, b, k, n)}
    zeros = choose("", "a", "ab", "b by column")
    names = ["a", "b"]
    if zeros:
        feeds |= {"za": integers(random, a, 1)} if "a" in zeros else {}
        feeds |= {"zb": integers(random, b, *([n] if "column" in zeros else [1]))} if "b" in zeros else {}
        names += ["za" if "a" in zeros else "", *(["zb"] if "b" in zeros else [])]
    constants = set(choose((), ("b",), ("b", "zb"))) & set(feeds)
    if "b" in zeros and "column" in zeros and a == np.int8:
        return  # onnxruntime has no such kernel
    compare(gpu, helper.make_node("MatMulInteger", names, ["y"]), feeds, np.int32, constants)


@pytest.mark.parametrize("by_column", [False, True])
@pytest.mark.parametrize(("a", "b"), [(np.uint8, np.int8), (np.int8, np.int8), (np.uint8, np.uint8)])
def test_codes_times_codes(gpu: StandIn, a: Any, b: Any, by_column: bool) -> None:
    random, n = np.random.default_rng(0), 19
    each = n if by_column else 1
    feeds = {
        "a": integers(random, a, 4, 40), "sa": np.array([0.02], np.float32), "za": np.array([3], a),
        "b": integers(random, b, 40, n), "sb": (0.01 + 0.02 * random.random(each)).astype(np.float32),
        "zb": np.zeros(each, b) + b(120 if b == np.uint8 else 0), "sy": np.array([0.5], np.float32),
        "zy": np.array([7], a),
    }  # fmt: skip
    node = helper.make_node("QLinearMatMul", list(feeds), ["y"])
    compare(gpu, node, feeds, a, {"b", "sb", "zb"})
    assert len(gpu.products) == 2


@pytest.mark.parametrize("codes", [False, True])
@pytest.mark.parametrize(("transA", "transB"), [(0, 0), (1, 1)])
def test_a_product_with_a_bias_of_sums(gpu: StandIn, codes: bool, transA: int, transB: int) -> None:
    random = np.random.default_rng(0)
    a, b = integers(random, np.uint8, 4, 24), integers(random, np.int8, 24, 6)
    feeds = {
        "a": np.ascontiguousarray(a.T) if transA else a, "sa": np.array([0.02], np.float32),
        "za": np.array([100], np.uint8), "b": np.ascontiguousarray(b.T) if transB else b,
        "sb": np.array([0.01], np.float32), "zb": np.array([-3], np.int8),
        "c": random.integers(-500, 500, 6).astype(np.int32),
    }  # fmt: skip
    if codes:
        feeds |= {"sy": np.array([0.3], np.float32), "zy": np.array([9], np.uint8)}
    options = {"transA": transA, "transB": transB, "alpha": 1.0}
    node = helper.make_node("QGemm", list(feeds), ["y"], domain="com.microsoft", **options)
    compare(gpu, node, feeds, np.uint8 if codes else np.float32, {"b"})


def test_a_product_of_codes_in_float32(gpu: StandIn) -> None:
    random = np.random.default_rng(0)
    feeds = {
        "a": integers(random, np.uint8, 2, 3, 33), "b": integers(random, np.int8, 33, 8),
        "sa": np.array([0.02], np.float32), "sb": (0.1 * random.random(8)).astype(np.float32),
        "za": np.array([100], np.uint8), "zb": integers(random, np.int8, 8), "bias": random.random(8).astype(np.float32),
    }  # fmt: skip
    node = helper.make_node("MatMulIntegerToFloat", list(feeds), ["y"], domain="com.microsoft")
    compare(gpu, node, feeds, np.float32, {"b", "zb"})


def test_signed_codes_around_zero_are_read_where_they_are(gpu: StandIn) -> None:
    a, b = np.full((2, 32), 5, np.int8), np.full((32, 16), -7, np.int8)
    node = helper.make_node("MatMulInteger", ["a", "b"], ["y"])
    model = model_of(node, {"a": a, "b": b}, np.int32, {"b"})
    with epkit.load(model, ["cuda"], fallback="error", optimise="none", capture=True) as session:
        for run in range(5):
            before = gpu.launches
            np.testing.assert_array_equal(session(a=a)["y"], np.full((2, 16), -35 * 32))
            assert gpu.launches - before == (2, 1, 1, 0, 0)[run]  # the weight once; what becomes of the sums


def test_what_is_not_bytes_by_a_matrix_is_the_portable_operator_s(gpu: StandIn) -> None:
    random = np.random.default_rng(0)
    feeds = {"a": integers(random, np.uint8, 2, 3, 4), "b": integers(random, np.uint8, 2, 4, 5)}
    compare(gpu, helper.make_node("MatMulInteger", ["a", "b"], ["y"]), feeds, np.int32, set())
    assert gpu.products == []
