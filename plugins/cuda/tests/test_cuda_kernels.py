"""The package's own kernels: their sources, run on the host, against NumPy and onnxruntime; and through NVRTC."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from cuda_standin import StandIn
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import helper

import epkit
import epkit.errors
from epkit_cuda import nvrtc
from epkit_cuda.kernels import WITH_SOURCES, all_sources, rows
from epkit_cuda.source import PRELUDE, stored

ARCHITECTURES = ("sm_80", "sm_90", "sm_100")
FEW = settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def model_of(nodes: Any, feeds: dict[str, Any], opset: int = 21) -> onnx.ModelProto:
    """A model of nodes whose inputs have the types of the feeds, every dimension symbolic."""
    inputs = [
        helper.make_tensor_value_info(
            name,
            helper.np_dtype_to_tensor_dtype(value.dtype),
            [f"{name}{axis}" for axis in range(value.ndim)],
        )
        for name, value in feeds.items()
    ]
    graph = helper.make_graph(nodes, "g", inputs, [onnx.ValueInfoProto(name="y")])
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    return onnx.shape_inference.infer_shapes(helper.make_model(graph, opset_imports=opsets, ir_version=10))


def ours(nodes: Any, feeds: dict[str, Any], opset: int = 21, **options: Any) -> Any:
    """The result, all nodes on the device."""
    model = model_of(nodes, feeds, opset)
    with epkit.load(model, [("cuda", options)], fallback="error", optimise="none") as session:
        return session.run(None, feeds)["y"]


def theirs(nodes: Any, feeds: dict[str, Any], opset: int = 21) -> Any:
    """The result of onnxruntime."""
    text = model_of(nodes, feeds, opset).SerializeToString()
    return onnxruntime.InferenceSession(text, providers=["CPUExecutionProvider"]).run(None, feeds)[0]


def data(*shape: int, seed: int = 0, dtype: Any = np.float32) -> Any:
    return np.asarray(np.random.default_rng(seed).standard_normal(shape)).astype(dtype)


@FEW
@given(st.data())
def test_a_chain_reads_what_is_broadcast_or_transposed(gpu: StandIn, draw: st.DataObject) -> None:
    full = draw.draw(st.lists(st.sampled_from([1, 2, 3, 40]), max_size=3))
    feeds = {}
    for name in "abc":
        kept = draw.draw(st.integers(0, len(full)))
        shape = [n if draw.draw(st.booleans()) else 1 for n in full[len(full) - kept :]]
        feeds[name] = data(*shape[::-1], seed=ord(name))
    nodes = [helper.make_node("Transpose", [name], [f"{name}t"]) for name in "abc"]
    nodes += [
        helper.make_node("Add", ["at", "bt"], ["s"]),
        helper.make_node("Tanh", ["s"], ["t"]),
        helper.make_node("Mul", ["t", "ct"], ["m"]),
        helper.make_node("Greater", ["m", "at"], ["g"]),
        helper.make_node("Where", ["g", "m", "bt"], ["y"]),
    ]
    before = gpu.launches
    a, b, c = (value.T for value in feeds.values())
    m = np.tanh(a + b) * c
    want = np.where(m > a, m, b)
    found = ours(nodes, feeds)
    assert found.shape == want.shape
    np.testing.assert_allclose(found, want, rtol=1e-5, atol=1e-6)
    assert gpu.launches - before <= 2


UNARY = [
    "Sigmoid",
    "Softplus",
    "Erf",
    "Elu",
    "Selu",
    "HardSigmoid",
    "LeakyRelu",
    "Round",
    "Sign",
    "Abs",
    "Reciprocal",
    "Softsign",
    "Exp",
]


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_unary_formulas_against_onnxruntime(gpu: StandIn, dtype: Any) -> None:
    nodes = [helper.make_node(name, ["x"], [name]) for name in UNARY]
    nodes.append(helper.make_node("Concat", UNARY, ["y"], axis=0))
    x = np.array([-7.5, -2.5, -1, -0.25, 0.5, 1.5, 3, 80], dtype)
    found = ours(nodes, {"x": x})
    known = [name for name in UNARY if dtype == np.float32 or name not in ("Round", "Sign", "Abs", "Erf")]
    single = theirs(nodes, {"x": x.astype(np.float32)}).reshape(len(UNARY), -1)
    for name, have, want in zip(UNARY, found.reshape(len(UNARY), -1), single, strict=True):
        tolerance = {"rtol": 1e-5, "atol": 1e-6} if dtype == np.float32 else {"rtol": 1e-3, "atol": 1e-3}
        with np.errstate(over="ignore"):
            np.testing.assert_allclose(have, want.astype(dtype), **tolerance, err_msg=name)
    assert known


@pytest.mark.parametrize("name", ["Softmax", "LogSoftmax"])
@pytest.mark.parametrize(
    ("shape", "axis", "opset"), [((3, 40, 5), 1, 21), ((2, 300), -1, 21), ((2, 3, 5), 1, 11)]
)
def test_softmax(gpu: StandIn, name: str, shape: Any, axis: int, opset: int) -> None:
    nodes, feeds = [helper.make_node(name, ["x"], ["y"], axis=axis)], {"x": 9 * data(*shape)}
    np.testing.assert_allclose(ours(nodes, feeds, opset), theirs(nodes, feeds, opset), rtol=2e-5, atol=1e-6)
    assert gpu.launches == 1


def test_normalisations(gpu: StandIn) -> None:
    x, g, b = data(4, 3, 70), data(70, seed=1), data(70, seed=2)
    layer = [helper.make_node("LayerNormalization", ["x", "g", "b"], ["y"], epsilon=1e-3)]
    np.testing.assert_allclose(
        ours(layer, {"x": x, "g": g, "b": b}), theirs(layer, {"x": x, "g": g, "b": b}), rtol=1e-4, atol=1e-5
    )
    rms = [helper.make_node("RMSNormalization", ["x", "g"], ["y"], epsilon=1e-3)]
    want = x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-3) * g
    np.testing.assert_allclose(ours(rms, {"x": x, "g": g}, 23), want, rtol=1e-4, atol=1e-5)
    instance = [helper.make_node("InstanceNormalization", ["x", "g", "b"], ["y"])]
    feeds = {"x": x, "g": g[:3], "b": b[:3]}
    np.testing.assert_allclose(ours(instance, feeds), theirs(instance, feeds), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", sorted(rows.REDUCTIONS))
def test_reductions_over_any_axes(gpu: StandIn, name: str) -> None:
    x = data(3, 40, 5)
    for axes in ([1], [0, 2], [2]):
        nodes = [
            helper.make_node("Constant", [], ["axes"], value_ints=axes),
            helper.make_node(f"Reduce{name}", ["x", "axes"], ["y"], keepdims=axes[0] % 2),
        ]
        np.testing.assert_allclose(ours(nodes, {"x": x}), theirs(nodes, {"x": x}), rtol=2e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.int64, np.bool_])
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_gather(gpu: StandIn, dtype: Any, axis: int) -> None:
    x, indices = data(3, 4, 5, dtype=dtype), np.array([[0, -1], [2, -3]], np.int32)
    found = ours([helper.make_node("Gather", ["x", "i"], ["y"], axis=axis)], {"x": x, "i": indices})
    np.testing.assert_array_equal(found, np.take(x, indices, axis))
    assert gpu.launches == 1 and gpu.implicit_reads == 0


@pytest.mark.parametrize("capture", [False, True])
def test_a_wrong_index_is_an_error_of_that_run_alone(gpu: StandIn, capture: bool) -> None:
    feeds = {"x": data(300, 2), "i": np.array([3, 299])}
    model = model_of([helper.make_node("Gather", ["x", "i"], ["y"], name="look_up")], feeds)
    with epkit.load(model, ["cuda"], fallback="error", capture=capture) as session:
        for run in range(8):
            if run in (1, 6):
                with pytest.raises(epkit.errors.RunError, match="out of range in look_up"):
                    session.run(None, {**feeds, "i": np.array([3, 300])})
            np.testing.assert_array_equal(session.run(None, feeds)["y"], feeds["x"][[3, 299]])
    assert bool(gpu.graph_launches) == capture


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("points", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize(
    ("m", "k", "n"), [(3, 72, 6), (3, 96, 7), (1, 4096, 5), (9, 72, 6)]
)  # by bytes, by sixteen bytes, a block for two columns, unpacked first
def test_products_with_narrow_weights(
    gpu: StandIn, bits: int, points: bool, dtype: Any, m: int, k: int, n: int
) -> None:
    block = 32
    blocks, random = -(-k // block), np.random.default_rng(0)
    feeds = {
        "a": data(m, k, dtype=dtype),
        "q": random.integers(0, 256, (n, blocks, block * bits // 8), np.uint8),
        "s": (0.1 + random.random(n * blocks)).astype(dtype),
    }
    if points:
        feeds["z"] = random.integers(0, 256, (n * -(-blocks * bits // 8)), np.uint8)
    attributes = {"K": k, "N": n, "block_size": block, "bits": bits}
    node = helper.make_node("MatMulNBits", list(feeds), ["y"], domain="com.microsoft", **attributes)
    model = model_of([node], feeds)
    model.graph.output[0].CopyFrom(
        helper.make_tensor_value_info("y", helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), ["m", "n"])
    )
    with epkit.load(model, ["cuda"], fallback="error") as session:
        found = session.run(None, feeds)["y"]
    stored_ = feeds["q"].reshape(n, -1)
    parts = [(stored_ >> shift) & ((1 << bits) - 1) for shift in range(0, 8, bits)]
    weight = np.stack(parts, -1).reshape(n, -1)[:, :k].astype(np.float64)
    zero = np.full((n, blocks), 1 << (bits - 1), np.float64)
    if points:
        packed = feeds["z"].reshape(n, -1)
        parts = [(packed >> shift) & ((1 << bits) - 1) for shift in range(0, 8, bits)]
        zero = np.stack(parts, -1).reshape(n, -1)[:, :blocks].astype(np.float64)
    at = np.arange(k) // block
    weight = (weight - zero[:, at]) * feeds["s"].reshape(n, blocks)[:, at]
    tolerance = 1e-4 if dtype == np.float32 else 2e-2
    want = feeds["a"].astype(np.float64) @ weight.T
    np.testing.assert_allclose(found, want, rtol=tolerance, atol=10 * tolerance)


@FEW
@given(st.sampled_from([((), ()), ((3,), ()), ((), (2,)), ((2, 1), (3,)), ((1, 1), (3,))]), st.booleans())
def test_products_of_any_batches(gpu: StandIn, batches: Any, vector: bool) -> None:
    a, b = data(*batches[0], 4, 7), data(7) if vector else data(*batches[1], 7, 5, seed=1)
    nodes = [helper.make_node("MatMul", ["a", "b"], ["y"])]
    np.testing.assert_allclose(ours(nodes, {"a": a, "b": b}), a @ b, rtol=1e-5, atol=1e-5)


CONVOLUTIONS: list[tuple[Any, Any, dict[str, Any]]] = [
    ((2, 3, 9, 11), (5, 3, 3, 3), {"pads": [1, 1, 1, 1]}),
    ((2, 3, 9, 11), (5, 3, 3, 2), {"strides": [2, 1], "pads": [0, 1, 2, 0], "dilations": [1, 2]}),
    ((1, 4, 8, 8), (6, 2, 3, 3), {"group": 2, "auto_pad": "SAME_UPPER", "strides": [2, 2]}),
    ((1, 4, 7, 8), (4, 1, 2, 3), {"group": 4, "auto_pad": "SAME_LOWER"}),
    ((1, 2, 7), (4, 2, 3), {"auto_pad": "VALID"}),  # the library has no plan: the portable operator
]


@pytest.mark.parametrize(("shape", "weight", "attributes"), CONVOLUTIONS)
@pytest.mark.parametrize("bias", [False, True])
def test_convolution(gpu: StandIn, shape: Any, weight: Any, attributes: dict[str, Any], bias: bool) -> None:
    feeds = {"x": data(*shape), "w": data(*weight, seed=1)}
    if bias:
        feeds["b"] = data(weight[0], seed=2)
    nodes = [helper.make_node("Conv", list(feeds), ["y"], **attributes)]
    np.testing.assert_allclose(ours(nodes, feeds), theirs(nodes, feeds), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_operands_are_rounded_and_sums_are_not(gpu: StandIn, precision: str) -> None:
    a, b = np.full((1, 4096), 1 + 2**-13, np.float32), np.ones((4096, 1), np.float32)
    found = ours([helper.make_node("MatMul", ["a", "b"], ["y"])], {"a": a, "b": b}, precision=precision)
    assert found.dtype == np.float32 and found.item() == 4096  # 1 + 2^-13 is 1 in either type
    strict = ours([helper.make_node("MatMul", ["a", "b"], ["y"])], {"a": a, "b": b})
    assert abs(strict.item() - 4096.5) < 1e-2


# ---- the compiler ----


def together(sources: list[str]) -> str:
    """Sources as one, each in a namespace of its own: the beginning is compiled once."""
    bodies = (
        source.removeprefix(PRELUDE).replace("__global__ void ", f"__global__ void k{number}_")
        for number, source in enumerate(sources)
    )
    return PRELUDE + "\n".join(f"namespace n{i} {{ {body} }}" for i, body in enumerate(bodies))


def some_sources() -> list[str]:
    """Each kind of kernel once."""
    return [
        rows.softmax_source(stored("float16"), log=True),
        rows.norm_source(stored("bfloat16"), centred=True, bias=True, each=True),
        rows.reduce_source(stored("float32"), "L2"),
        *(family.sources()[-1] for family in WITH_SOURCES),
    ]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_nvrtc_compiles_each_kind_of_kernel(gpu: StandIn, architecture: str) -> None:
    ours(
        [helper.make_node("Sigmoid", ["x"], ["s"]), helper.make_node("Add", ["s", "x"], ["y"])],
        {"x": data(3)},
    )
    assert nvrtc.compiled(together([*some_sources(), *gpu.sources]), architecture)[:4] == b"\x7fELF"


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_nvrtc_compiles_every_kernel(architecture: str) -> None:
    assert nvrtc.compiled(together(all_sources()), architecture)[:4] == b"\x7fELF"


def test_a_wrong_source_is_told_with_its_line() -> None:
    with pytest.raises(epkit.errors.CompileError, match="line 2: wrong wrong;"):
        nvrtc.compiled('extern "C" __global__ void f() {\nwrong wrong;\n}', "sm_90")


def test_the_compiler_is_no_newer_than_the_driver() -> None:
    names = ("libnvrtc.so.13", "/some/where/libnvrtc.so.12", "libnvrtc.so")
    assert [nvrtc.generation(name) for name in names] == [13, 12, 0]
    with pytest.raises(epkit.errors.CompileError, match="not installed"):
        nvrtc.library(-1)
