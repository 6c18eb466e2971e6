"""The real thing: these need a GPU, and say so where there is none."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest
from benchmarks import cuda_models

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
    ("queries", "past", "mask"),
    [(64, 0, False), (64, 0, True), (1, 40, True), (1, 1500, True), (33, 7, False)],
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


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize(
    ("op", "direction", "more"),
    [
        ("LSTM", "forward", ""),
        ("LSTM", "bidirectional", ""),
        ("LSTM", "reverse", ""),
        ("LSTM", "forward", ", clip = 0.7"),
        ("GRU", "bidirectional", ", linear_before_reset = 1"),
        ("GRU", "forward", ""),
        ("RNN", "forward", ""),
    ],
)
def test_recurrent_layers_agree_with_the_cpu(dtype: Any, op: str, direction: str, more: str) -> None:
    t, gates, directions = (
        ("float" if dtype == np.float32 else "float16"),
        {"LSTM": 4, "GRU": 3, "RNN": 1}[op],
        1,
    )
    directions += direction == "bidirectional"
    width = gates * 64
    model = one_node(f"""
        ({t}[9, 3, 32] x, {t}[{directions}, {width}, 32] w, {t}[{directions}, {width}, 64] r,
         {t}[{directions}, {2 * width}] b, int32[3] lens, {t}[{directions}, 3, 64] h)
        => ({t}[9, {directions}, 3, 64] y, {t}[{directions}, 3, 64] yh) {{
            y, yh = {op}<hidden_size = 64, direction = "{direction}"{more}>(x, w, r, b, lens, h)
        }}
    """)
    random = np.random.default_rng(0)
    given = {
        value.name: (
            0.2 * random.standard_normal([d.dim_value for d in value.type.tensor_type.shape.dim])
        ).astype(dtype)
        for value in model.graph.input
    }
    given["lens"] = np.array([9, 1, 5], np.int32)
    agrees(model, given, 1e-4 if dtype == np.float32 else 1e-2)


@pytest.mark.parametrize("sizes", [(1, 64, 32), (5, 67, 33), (40, 256, 128)])
def test_products_of_bytes_agree_with_the_cpu(sizes: tuple[int, int, int]) -> None:
    m, k, n = sizes
    model = one_node(f"""
        (uint8[{m}, {k}] a, int8[{k}, {n}] b, uint8 za, int8[{n}] zb, float sa, float[{n}] sb, float sy, uint8 zy)
        => (int32[{m}, {n}] y, uint8[{m}, {n}] q) {{
            y = MatMulInteger(a, b, za, zb)
            q = QLinearMatMul(a, sa, za, b, sb, zb, sy, zy)
        }}
    """)
    random = np.random.default_rng(0)
    given = {
        "a": random.integers(0, 256, (m, k)).astype(np.uint8), "b": random.integers(-128, 128, (k, n)).astype(np.int8),
        "za": np.array(120, np.uint8), "zb": random.integers(-9, 9, n).astype(np.int8),
        "sa": np.array(0.02, np.float32), "sb": (0.01 + 0.01 * random.random(n)).astype(np.float32),
        "sy": np.array(0.7, np.float32), "zy": np.array(128, np.uint8),
    }  # fmt: skip
    agrees(model, given, 1.01)  # a tie may be rounded the other way: one code


@pytest.mark.parametrize("kind", ["float8e4m3fn", "float8e5m2"])
def test_products_of_float8_agree_with_the_cpu(kind: str) -> None:
    model = one_node(f"""
        (float[8, 64] x, float[64, 32] w, float s) => (float[8, 32] y) <{kind} z = {{0}}> {{
            a = QuantizeLinear(x, s, z)  b = DequantizeLinear(a, s, z)
            c = QuantizeLinear(w, s, z)  d = DequantizeLinear(c, s, z)  y = MatMul(b, d)
        }}
    """)
    random = np.random.default_rng(0)
    given = {
        "x": random.standard_normal((8, 64)).astype("f"),
        "w": random.standard_normal((64, 32)).astype("f"),
    }
    agrees(model, {**given, "s": np.array(0.01, np.float32)}, 1e-3)


@pytest.mark.parametrize(
    ("length", "total", "tokens", "kept"), [(5, 5, [5, 3], 12), (1, 9, [9, 6], 16), (3, 9, [9], 6)]
)
def test_grouped_queries_agree_with_the_cpu(length: int, total: int, tokens: list[int], kept: int) -> None:
    batch = len(tokens)
    model = one_node(f"""
        (float[{batch}, {length}, 64] q, float[{batch}, {length}, 32] k, float[{batch}, {length}, 32] v,
         float[{batch}, 2, {kept}, 16] pk, float[{batch}, 2, {kept}, 16] pv, int32[{batch}] n, int32[1] m,
         float[32, 8] c, float[32, 8] s) => (float[{batch}, {length}, 64] y, float[A, B, C, D] ok, float[E, F, G, H] ov) {{
            y, ok, ov = com.microsoft.GroupQueryAttention<num_heads = 4, kv_num_heads = 2, do_rotary = 1>
                (q, k, v, pk, pv, n, m, c, s)
        }}
    """)
    random = np.random.default_rng(0)
    given: dict[str, Any] = {
        value.name: random.standard_normal([d.dim_value for d in value.type.tensor_type.shape.dim]).astype(
            "f"
        )
        for value in model.graph.input
    }
    given |= {"n": np.array(tokens, np.int32) - 1, "m": np.array([total], np.int32)}
    with (
        epkit.load(model, ["cuda"], fallback="error", capture=True) as session,
        epkit.load(model, ["cpu"]) as reference,
    ):
        for _ in range(5):
            found, want = session.run(None, given)["y"], reference.run(None, given)["y"]
            for b, count in enumerate(tokens):  # rows of padding are not specified
                rows = slice(None, min(count, length))
                np.testing.assert_allclose(found[b, rows], want[b, rows], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("mode", ["linear", "circular"])
def test_steps_in_a_cache_agree_with_the_cpu(mode: str) -> None:
    model = onnx.parser.parse_model(f"""<ir_version: 11, opset_import: ["" : 24]> agraph
        (float16[2, 3, 40, 16] x, float16[2, 3, 4, 16] u, int64[2] i) => (float16[2, 3, 40, 16] y) {{
            y = TensorScatter<mode = "{mode}">(x, u, i)
        }}
    """)
    random = np.random.default_rng(0)
    x, u = (random.standard_normal(shape).astype(np.float16) for shape in ((2, 3, 40, 16), (2, 3, 4, 16)))
    agrees(model, {"x": x, "u": u, "i": np.array([36, 38 if mode == "circular" else 0])}, 0)


def test_the_first_of_each_row_agrees_with_the_cpu() -> None:
    model = one_node(
        "(float[7, 1000] x, int64[1] k) => (float[7, 10] v, int64[7, 10] i) { v, i = TopK(x, k) }"
    )
    x = np.random.default_rng(0).standard_normal((7, 1000)).astype("f")
    agrees(model, {"x": x, "k": np.array([10])}, 0)


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


@pytest.mark.parametrize(
    ("kind", "bits", "tolerance"), [("fp32", 0, 2e-3), ("fp16", 0, 5e-2), ("fp32", 4, 2e-3)]
)
@pytest.mark.parametrize("length", [1, 3, 9])
def test_a_decoder_agrees_with_the_cpu(
    tmp_path: Path, kind: str, bits: int, tolerance: float, length: int
) -> None:
    sizes = replace(cuda_models.LLAMA, layers=2, hidden=256, inner=512, words=512, heads=4, groups=2)
    path = cuda_models.llama(tmp_path, kind, length, 0 if length > 4 else 40, bits=bits, sizes=sizes)
    model = onnx.load(path)
    given = cuda_models.feeds_of(model)
    agrees(model, given, tolerance)


def test_what_stays_goes_in_turn_between_two_recordings() -> None:
    model = one_node("(float[8, 8] x) => (float[8, 8] y) { t = Transpose(x)  s = Sin(t)  y = Add(s, t) }")
    stay = epkit.RunOptions(on_device=True)
    with epkit.load(model, ["cuda"], fallback="error", capture=True) as session:
        want = np.random.default_rng(0).standard_normal((8, 8)).astype("f")
        y = session.run(None, {"x": want}, stay)["y"]
        want = np.sin(want.T) + want.T
        kept: list[Any] = []
        for run in range(12):
            y, want = session.run(None, {"x": y}, stay)["y"], np.sin(want.T) + want.T
            kept = [*kept, (y, want)] if run > 6 else []  # first none is kept, then all
        for found, value in kept:
            np.testing.assert_allclose(found.numpy(), value, rtol=1e-3, atol=1e-4)


def test_a_model_over_two_gpus() -> None:
    two = find_devices(Options(device=1))
    if not two.found:
        pytest.skip(f"one GPU: {two.reason}")
    model = one_node("(float[8, 8] x) => (float[8, 8] y) { a = Exp(x)  b = Sin(a)  y = Cos(b) }")
    providers = [("cuda", {"device": 0}), ("cuda", {"device": 1})]
    x = np.random.default_rng(0).standard_normal((8, 8)).astype("f")
    with epkit.load(
        model, providers, fallback="error", placement={"op:Sin": "cuda#2"}, capture=True
    ) as session:
        for _ in range(5):
            np.testing.assert_allclose(session(x=x)["y"], np.cos(np.sin(np.exp(x))), rtol=1e-4, atol=1e-4)
