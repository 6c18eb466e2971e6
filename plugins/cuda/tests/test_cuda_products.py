"""Products: what cuBLASLt is asked for (a fake of it computes columns first), and bias and activation inside."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import fake_cublaslt
import ml_dtypes
import numpy as np
import pytest
from cuda_standin import StandIn
from cuda_standin_arrays import DeviceArray
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper
from test_cuda_kernels import data, model_of, ours

import epkit
from epkit_cuda.cublaslt import Products, alignment

DTYPES = [np.float32, np.float64, np.float16, ml_dtypes.bfloat16, np.int8]


def products() -> Products:
    return Products(fake_cublaslt, lambda nbytes: SimpleNamespace(data=SimpleNamespace(ptr=nbytes)))


def laid(values: Any, transposed: bool, gap: int) -> Any:
    """The values in memory that has its rows (or columns) dense, with a gap after each."""
    source = values.swapaxes(-1, -2) if transposed else values
    wide = np.zeros((*source.shape[:-1], source.shape[-1] + gap), source.dtype)
    wide[..., : source.shape[-1]] = source
    view = wide[..., : source.shape[-1]]
    return view.swapaxes(-1, -2) if transposed else view


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_the_library_is_asked_for_the_right_product(draw: st.DataObject) -> None:
    dtype = draw.draw(st.sampled_from(DTYPES))
    m, k, n = (draw.draw(st.sampled_from([1, 2, 3, 8])) for _ in range(3))
    batch = draw.draw(st.sampled_from([(), (1,), (3,)]))
    random = np.random.default_rng(0)
    a, b = (
        laid(
            random.integers(-4, 5, (*batch, *shape)).astype(dtype),
            draw.draw(st.booleans()),
            draw.draw(st.integers(0, 2)),
        )
        for shape in ((m, k), (k, n))
    )
    if batch == (3,) and draw.draw(st.booleans()):
        b = np.broadcast_to(b[:1], b.shape)
    result = {np.int8: np.int32}.get(dtype, dtype)
    out = np.zeros((*batch, m, n), result)
    has_bias = not batch and dtype != np.int8 and draw.draw(st.booleans())
    bias = random.integers(-4, 5, n).astype(dtype) if has_bias else None
    activation = draw.draw(st.sampled_from(["", "relu", "gelu_tanh"])) if has_bias else ""
    machine = StandIn()
    arrays = [None if x is None else DeviceArray(x, machine) for x in (a, b, out, bias)]
    assert products().multiply(*arrays[:3], "fp32", 99, arrays[3], activation)
    wide = np.float64
    want = a.astype(wide) @ b.astype(wide) + (0 if bias is None else bias.astype(wide))
    if activation == "relu":
        want = np.maximum(want, 0)
    elif activation:
        want = 0.5 * want * (1 + np.tanh(np.sqrt(2 / np.pi) * (want + 0.044715 * want**3)))
    np.testing.assert_allclose(out.astype(wide), want, rtol=1e-2, atol=1e-3)


def test_plans_are_kept_and_given_back() -> None:
    made, machine = products(), StandIn()
    x = DeviceArray(np.ones((4, 4), np.float32), machine)
    before = len(fake_cublaslt.heuristics)
    for _ in range(3):
        assert made.multiply(x, x, x, "tf32", 99)
    assert len(fake_cublaslt.heuristics) == before + 1
    assert not made.multiply(DeviceArray(np.ones((4, 8), np.float32)[:, ::2], machine), x, x, "fp32", 99)


def test_no_algorithm_is_said_and_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fake_cublaslt, "unsupported", True)
    held = len(fake_cublaslt.objects)
    x = DeviceArray(np.ones((4, 4), np.float32), StandIn())
    assert not products().multiply(x, x, x, "fp32", 99)
    assert len(fake_cublaslt.objects) == held


def test_addresses_say_their_alignment() -> None:
    assert [alignment(address) for address in (0, 1, 48, 4096)] == [256, 1, 16, 256]


@pytest.mark.parametrize("activation", ["", "Relu", "Gelu"])
@pytest.mark.parametrize("bias", [True, False])
def test_what_follows_a_product_with_a_weight_is_done_with_it(
    gpu: StandIn, bias: bool, activation: str
) -> None:
    x, w, c = data(2, 3, 8), data(8, 5, seed=1), data(5, seed=2)
    nodes = [helper.make_node("MatMul", ["x", "w"], ["p"])]
    last, want = "p", x @ w
    if bias:
        nodes.append(helper.make_node("Add", ["c", last], ["s"]))
        last, want = "s", want + c
    if activation:
        attributes = {"approximate": "tanh"} if activation == "Gelu" else {}
        nodes.append(helper.make_node(activation, [last], ["t"], **attributes))
        gelu = 0.5 * want * (1 + np.tanh(np.sqrt(2 / np.pi) * (want + 0.044715 * want**3)))
        last, want = "t", np.maximum(want, 0) if activation == "Relu" else gelu
    nodes[-1].output[0] = "y"
    model = model_of(nodes, {"x": x, "w": w, "c": c})
    for name, value in (("w", w), ("c", c)):
        model.graph.input.remove(next(item for item in model.graph.input if item.name == name))
        model.graph.initializer.append(helper.make_tensor(name, 1, value.shape, value.ravel().tolist()))
    with epkit.load(model, ["cuda"], fallback="error", optimise="none") as session:
        np.testing.assert_allclose(session(x=x)["y"], want, rtol=1e-5, atol=1e-5)
    inside = {"": "", "Relu": "relu", "Gelu": "gelu_tanh"}[activation]
    assert gpu.products == [((6, 8), (8, 5), bias, inside)] and gpu.launches == 0


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("rows", [1, 3])
def test_a_few_rows_are_streamed_by_a_kernel(gpu: StandIn, rows: int, dtype: Any) -> None:
    x, w, c = (
        data(rows, 512, dtype=dtype),
        data(131, 512, seed=1, dtype=dtype),
        data(131, seed=2, dtype=dtype),
    )
    nodes = [helper.make_node("Gemm", ["x", "w", "c"], ["y"], transB=1)]
    found = ours(nodes, {"x": x, "w": w, "c": c})
    want = x.astype(np.float64) @ w.T.astype(np.float64) + c
    tolerance = 1e-4 if dtype == np.float32 else 3e-2
    np.testing.assert_allclose(found, want, rtol=tolerance, atol=tolerance)
    assert gpu.launches == 1 and gpu.products == []


@pytest.mark.parametrize(("alpha", "beta"), [(1.0, 1.0), (0.5, 2.0)])
def test_a_gemm_with_relu(gpu: StandIn, alpha: float, beta: float) -> None:
    a, b, c = data(7, 4), data(7, 5, seed=1), data(5, seed=2)
    options = {"transA": 1, "activation": "Relu", "alpha": alpha, "beta": beta}
    nodes = [helper.make_node("FusedGemm", ["a", "b", "c"], ["y"], domain="com.microsoft", **options)]
    model = model_of(nodes, {"a": a, "b": b, "c": c})
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", 1, [4, 5]))
    with epkit.load(model, ["cuda"], fallback="error") as session:
        found = session.run(None, {"a": a, "b": b, "c": c})["y"]
    np.testing.assert_allclose(found, np.maximum(alpha * a.T @ b + beta * c, 0), rtol=1e-5, atol=1e-5)
