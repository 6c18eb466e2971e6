"""The real thing: these need a GPU, and say so where there is none."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest

import epkit
from epkit_cuda.device import Options, find_devices

FOUND = find_devices(Options())
EXPECTED = "EPKIT_EXPECT_CUDA"
"""Set to 1 where a GPU must be there."""

if os.environ.get(EXPECTED) == "1" and not FOUND.found:
    raise RuntimeError(f"{EXPECTED}=1, and there is no GPU: {FOUND.reason}")

pytestmark = pytest.mark.skipif(not FOUND.found, reason=f"no GPU: {FOUND.reason} ({FOUND.remedy})")

MODEL = onnx.parser.parse_model("""
    <ir_version: 10, opset_import: ["" : 21]>
    agraph (float[N, 64] x, float[64, 32] w, float[32] g, float[32] b) => (float[N, 32] y, float[A, B] t) {
        p = MatMul(x, w)  r = Relu(p)  n = LayerNormalization(r, g, b)  s = Softmax(n)  y = Mul(s, n)
        t = Transpose(y)
    }
""")


def feeds(rows: int, seed: int) -> dict[str, Any]:
    random = np.random.default_rng(seed)
    shapes = {"x": (rows, 64), "w": (64, 32), "g": (32,), "b": (32,)}
    return {name: random.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


@pytest.mark.parametrize("capture", [False, True])
@pytest.mark.parametrize(
    ("precision", "tolerance"), [("fp32", 1e-4), ("tf32", 2e-2), ("fp16", 2e-2), ("bf16", 2e-1)]
)
def test_a_model_agrees_with_the_cpu(capture: bool, precision: str, tolerance: float) -> None:
    options = {"precision": precision}
    with (
        epkit.load(MODEL, [("cuda", options)], fallback="error", capture=capture) as session,
        epkit.load(MODEL, ["cpu"]) as reference,
    ):
        for run in range(6):
            given = feeds(3 + 5 * (run % 2), run)
            for name, want in reference.run(None, given).items():
                found = session.run(None, given)[name]
                np.testing.assert_allclose(found, want, rtol=tolerance, atol=tolerance)


def test_convolution_agrees_with_the_cpu() -> None:
    model = onnx.parser.parse_model("""
        <ir_version: 10, opset_import: ["" : 21]>
        agraph (float[2, 8, 17, 19] x, float[16, 4, 3, 3] w) => (float[2, 16, A, B] y) {
            y = Conv<group = 2, pads = [1, 0, 2, 1], strides = [2, 1]>(x, w)
        }
    """)
    random = np.random.default_rng(0)
    given = {
        "x": random.standard_normal((2, 8, 17, 19)).astype(np.float32),
        "w": random.standard_normal((16, 4, 3, 3)).astype(np.float32),
    }
    with epkit.load(model, ["cuda"], fallback="error") as session, epkit.load(model, ["cpu"]) as reference:
        np.testing.assert_allclose(
            session.run(None, given)["y"], reference.run(None, given)["y"], rtol=1e-4, atol=1e-4
        )


def one_node(text: str) -> onnx.ModelProto:
    return onnx.parser.parse_model(
        f"""<ir_version: 11, opset_import: ["" : 23, "com.microsoft" : 1]> agraph {text}"""
    )


def agrees(model: onnx.ModelProto, given: dict[str, Any], tolerance: float, **options: Any) -> None:
    """Five runs, the last of them a replay, against the CPU."""
    with (
        epkit.load(model, [("cuda", options)], fallback="error", capture=True, optimise="all") as session,
        epkit.load(model, ["cpu"]) as reference,
    ):
        for _ in range(5):
            for name, want in reference.run(None, given).items():
                found = session.run(None, given)[name]
                np.testing.assert_allclose(
                    found.astype("f"), want.astype("f"), rtol=tolerance, atol=tolerance, err_msg=name
                )


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize(
    ("queries", "past", "mask"), [(64, 0, False), (64, 0, True), (1, 40, True), (33, 7, False)]
)
def test_attention_agrees_with_the_cpu(dtype: Any, queries: int, past: int, mask: bool) -> None:
    t = "float" if dtype == np.float32 else "float16"
    kept = f", {t}[2, 2, {past}, 64] pk, {t}[2, 2, {past}, 64] pv" if past else ""
    names = f"q, k, v, {'m' if mask else ''}{', pk, pv' if past else ''}" if mask or past else "q, k, v"
    model = one_node(f"""
        ({t}[2, {queries}, 256] q, {t}[2, {queries}, 128] k, {t}[2, {queries}, 128] v,
         {t}[2, 1, {queries}, {past + queries}] m{kept}) => ({t}[2, {queries}, 256] y) {{
            y = Attention<q_num_heads = 4, kv_num_heads = 2, is_causal = {int(not mask)}>({names})
        }}
    """)
    random = np.random.default_rng(0)
    given = {
        value.name: random.standard_normal([d.dim_value for d in value.type.tensor_type.shape.dim]).astype(
            dtype
        )
        for value in model.graph.input
    }
    agrees(model, given, 1e-4 if dtype == np.float32 else 1e-2)


@pytest.mark.parametrize("rows", [1, 3, 40])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_products_with_bias_and_activation_agree_with_the_cpu(rows: int, dtype: Any) -> None:
    t = "float" if dtype == np.float32 else "float16"
    random = np.random.default_rng(0)
    model = one_node(f"""
        ({t}[{rows}, 512] x, {t}[512, 256] w, {t}[256] b) => ({t}[{rows}, 256] y) {{
            p = MatMul(x, w)  s = Add(p, b)  y = Relu(s)
        }}
    """)
    for name, shape in (("w", (512, 256)), ("b", (256,))):
        model.graph.input.remove(next(value for value in model.graph.input if value.name == name))
        values = (0.1 * random.standard_normal(shape)).astype(dtype)
        model.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
    agrees(
        model, {"x": random.standard_normal((rows, 512)).astype(dtype)}, 1e-4 if dtype == np.float32 else 1e-2
    )


@pytest.mark.parametrize("precision", ["fp32", "tf32", "fp16", "bf16"])
def test_a_residual_block_agrees_with_the_cpu(precision: str) -> None:
    model = one_node("""
        (float[2, 16, 17, 19] x, float[32, 16, 3, 3] w, float[32] b, float[2, 32, 9, 10] z) => (float[2, 32, A, B] y) {
            c = Conv<pads = [1, 1, 1, 1], strides = [2, 2]>(x, w, b)  s = Add(c, z)  r = Relu(s)
            y = MaxPool<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>(r)
        }
    """)
    random = np.random.default_rng(0)
    given = {
        value.name: random.standard_normal([d.dim_value for d in value.type.tensor_type.shape.dim]).astype(
            "f"
        )
        for value in model.graph.input
    }
    agrees(
        model, given, {"fp32": 1e-4, "tf32": 2e-2, "fp16": 2e-2, "bf16": 2e-1}[precision], precision=precision
    )


def test_a_value_goes_to_cupy_and_back_without_a_copy() -> None:
    import cupy

    from epkit.runtime.on_device import DeviceArray

    options = epkit.RunOptions(on_device=["y"])
    with (
        epkit.load(MODEL, ["cuda"], fallback="error", capture=True) as session,
        epkit.load(MODEL, ["cpu"]) as reference,
    ):
        for run in range(6):
            given = feeds(3, run)
            mine = {name: cupy.asarray(value) for name, value in given.items()}
            found = session.run(None, mine, options)
            assert isinstance(found["y"], DeviceArray) and isinstance(found["t"], np.ndarray)
            array = cupy.from_dlpack(found["y"])
            assert array.data.ptr == found["y"].tensor.array.data.ptr
            want = reference.run(None, given)["y"]
            np.testing.assert_allclose(cupy.asnumpy(array), want, rtol=1e-4, atol=1e-4)
            np.testing.assert_allclose(found["y"].numpy(), want, rtol=1e-4, atol=1e-4)


def test_published_node_tests() -> None:
    from test_cuda_nodes import NEVER, cases, check

    failed, on_gpu = [], 0
    for name, case in cases().items():
        if any(word in name for word in NEVER):
            continue
        try:
            on_gpu += bool(check(case))
        except Exception as error:
            failed.append(f"{name}: {str(error).splitlines()[:1]}")
    assert not failed, "\n".join(failed)
    assert on_gpu > 0.75 * len(cases())
