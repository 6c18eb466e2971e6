"""Float8: codes against ml_dtypes and the standard's reference, products with their scales."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import cuda_emulator
import fake_cublaslt
import ml_dtypes
import numpy as np
import pytest
from cuda_standin import StandIn
from cuda_standin_arrays import DeviceArray
from onnx import helper, numpy_helper

import epkit
from epkit.testing.oracle import expected
from epkit_cuda.cublaslt import Products
from epkit_cuda.source import PRELUDE, stored

KINDS = (ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2)


def emulated(body: str, source: Any, target: Any) -> Any:
    text = f"""{PRELUDE}
extern "C" __global__ void f(int n, const {stored(source.dtype)}* p, {stored(target.dtype)}* q) {{
  for (int i = threadIdx.x; i < n; i += blockDim.x) {body};
}}
"""
    cuda_emulator.run(text, "f", 1, 1, [np.int32(source.size), source, target])
    return target


@pytest.mark.parametrize("kind", KINDS)
def test_every_code_is_widened_and_narrowed(kind: Any) -> None:
    codes = np.arange(256, dtype=np.uint8).view(kind)
    want = codes.astype(np.float32)
    np.testing.assert_array_equal(emulated("q[i] = widen(p[i])", codes, np.zeros(256, np.float32)), want)
    finite = want[np.isfinite(want)]
    between = np.concatenate([finite, (finite[1:] + finite[:-1]) / 2, np.nextafter(finite, 0), finite * 1.01])
    most = float(ml_dtypes.finfo(kind).max)
    rounded = np.clip(between, -most, most).astype(kind)
    found = emulated("narrow(p[i], q[i])", between.astype(np.float32), np.zeros(between.size, kind))
    np.testing.assert_array_equal(found.view(np.uint8), rounded.view(np.uint8))
    odd = np.array([np.inf, -np.inf, 1e30, np.nan], np.float32)
    saturated = emulated("narrow(p[i], q[i])", odd, np.zeros(4, kind)).astype(np.float32)
    np.testing.assert_array_equal(saturated, [most, -most, most, np.nan])


def model_of(
    kinds: tuple[Any, Any], sizes: tuple[int, int, int], follow: bool, each: bool = False
) -> tuple[Any, dict[str, Any]]:
    """x in float32, quantised and back, times a weight in float8, perhaps a bias and Relu."""
    m, k, n = sizes
    random, code = np.random.default_rng(0), helper.np_dtype_to_tensor_dtype
    zeros = [np.zeros((), kind) for kind in kinds]
    constants = {
        "sx": np.array(0.05, np.float32), "zx": zeros[0], "sw": np.array(0.02, np.float32), "zw": zeros[1],
        "w": (random.standard_normal((k, n)) * 40).astype(kinds[1]), "b": random.standard_normal(n).astype(np.float32),
    }  # fmt: skip
    if each:
        constants["sw"] = (0.01 + 0.02 * random.random(n)).astype(np.float32)
        constants["zw"] = np.zeros(n, kinds[1])
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "sx", "zx"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "sx", "zx"], ["d"]),
        helper.make_node("DequantizeLinear", ["w", "sw", "zw"], ["v"]),
        helper.make_node("MatMul", ["d", "v"], ["p" if follow else "y"]),
    ]
    if follow:
        nodes += [helper.make_node("Add", ["p", "b"], ["s"]), helper.make_node("Relu", ["s"], ["y"])]
    kept = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    infos = [helper.make_tensor_value_info("x", 1, ["m", k]), helper.make_tensor_value_info("y", 1, ["m", n])]
    graph = helper.make_graph(nodes, "g", infos[:1], infos[1:], kept)
    assert code(zeros[0].dtype)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    return model, {"x": random.standard_normal((m, k)).astype(np.float32)}


@pytest.mark.parametrize("follow", [False, True])
@pytest.mark.parametrize("sizes", [(3, 32, 16), (2, 9, 5)])
@pytest.mark.parametrize("kinds", [(KINDS[0], KINDS[0]), (KINDS[1], KINDS[0])])
def test_products_of_dequantised_codes_are_the_library_s(
    gpu: StandIn, kinds: Any, sizes: Any, follow: bool
) -> None:
    model, feeds = model_of(kinds, sizes, follow)
    with epkit.load(model, ["cuda"], fallback="error", optimise="none") as session:
        found = session.run(None, feeds)["y"]
    np.testing.assert_allclose(found, expected(model, feeds)["y"], rtol=1e-5, atol=1e-4)
    names = tuple(np.dtype(kind).name for kind in kinds)
    (product,) = gpu.products
    assert (product[2:] == names) == (sizes[1] % 16 == 0)


@pytest.mark.parametrize("follow", [False, True])
@pytest.mark.parametrize("sizes", [(3, 32, 16), (2, 9, 5)])
def test_scales_of_columns_are_factors_of_the_library_s_sums(gpu: StandIn, sizes: Any, follow: bool) -> None:
    model, feeds = model_of((KINDS[0], KINDS[0]), sizes, follow, each=True)
    with epkit.load(model, ["cuda"], fallback="error", optimise="none") as session:
        found = session.run(None, feeds)["y"]
    np.testing.assert_allclose(found, expected(model, feeds)["y"], rtol=1e-5, atol=1e-4)
    names = (np.dtype(KINDS[0]).name,) * 2
    assert (gpu.products[-1][2:] == names) == (sizes[1] % 16 == 0)


@pytest.mark.parametrize("kinds", [(KINDS[0], KINDS[0]), (KINDS[1], KINDS[0])])
def test_cublaslt_is_given_the_scales(kinds: Any) -> None:
    random, machine = np.random.default_rng(0), StandIn()
    a = random.standard_normal((4, 32)).astype(kinds[0])
    b = np.ascontiguousarray(random.standard_normal((32, 16)).astype(kinds[1]).T).T
    out, scales = np.zeros((4, 16), np.float32), [np.array([value], np.float32) for value in (0.5, 3)]
    products = Products(fake_cublaslt, lambda nbytes: SimpleNamespace(data=SimpleNamespace(ptr=nbytes)))
    left, right, target, *factors = (DeviceArray(item, machine) for item in (a, b, out, *scales))
    assert products.multiply(left, right, target, "fp32", 99, scales=(factors[0], factors[1]))
    want = a.astype(np.float32) @ b.astype(np.float32) * 1.5
    np.testing.assert_allclose(out, want, rtol=1e-5, atol=1e-5)
