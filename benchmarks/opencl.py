"""The OpenCL provider against onnxruntime's CPU provider: a product, ResNet-50 and BERT-base.

The product alone, without copies, stands beside a plain register-blocked kernel, and CLBlast where pyclblast is
installed.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper

import epkit

from .bert import HIDDEN, save_bert
from .measure import alternate, machine

RESULTS = Path(__file__).parent / "results" / "opencl.md"
SIZE = 1024
ROUNDS = 5

Feeds = Mapping[str, np.ndarray[Any, Any]]

LOAD = """
import sys, time, numpy as np, epkit
start = time.perf_counter()
with epkit.load(sys.argv[1], ["opencl"]) as session:
    session(x=np.zeros([int(n) for n in sys.argv[2].split(",")], np.float32))
print(time.perf_counter() - start)
"""


def main() -> None:
    """Measure, check that the results agree, print and write the table."""
    with tempfile.TemporaryDirectory() as folder:
        rows, shares, compiling = [], [], []
        for name, path, feeds in models(Path(folder)):
            ours, theirs, share = measure(path, feeds)
            rows.append((name, ours, theirs))
            shares.append((name, share))
            if not name.startswith("product"):
                compiling.append((name, *first_calls(path, feeds["x"].shape)))
    text = table(rows, shares, compiling, products())
    print(text)
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(text, encoding="utf-8")


def models(folder: Path) -> list[tuple[str, Path, Feeds]]:
    """Name, file and inputs; weights are random, shapes are real."""
    random = np.random.default_rng(0)

    def x(*shape: int) -> Feeds:
        return {"x": random.standard_normal(shape, np.float32)}

    product, bert, resnet = folder / "product.onnx", folder / "bert.onnx", folder / "resnet.onnx"
    save_product(product)
    save_bert(bert)
    onnx.save(resnet50(), resnet)
    return [
        (f"product of {SIZE}³", product, x(SIZE, SIZE)),
        ("ResNet-50, 1 picture", resnet, x(1, 3, 224, 224)),
        ("BERT-base, 128 tokens", bert, x(1, 128, HIDDEN)),
    ]


def save_product(path: Path) -> None:
    """y = x w for a constant w."""
    w = np.random.default_rng(1).standard_normal((SIZE, SIZE), np.float32)
    made = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [SIZE, SIZE]) for name in "xy"]
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "product",
        made[:1],
        made[1:],
        [onnx.numpy_helper.from_array(w, "w")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)


def resnet50() -> onnx.ModelProto:
    """He et al., "Deep Residual Learning for Image Recognition" (2016), normalisations folded."""
    random = np.random.default_rng(2)
    nodes: list[onnx.NodeProto] = []
    weights: list[onnx.TensorProto] = []

    def weight(*shape: int) -> str:
        scale = np.sqrt(2 / np.prod(shape[1:])) if len(shape) > 1 else 0.1
        name = f"w{len(weights)}"
        values = random.standard_normal(shape, np.float32) * np.float32(scale)
        weights.append(onnx.numpy_helper.from_array(values, name))
        return name

    def node(op_type: str, *inputs: str, **attributes: Any) -> str:
        name = f"v{len(nodes)}"
        nodes.append(helper.make_node(op_type, list(inputs), [name], **attributes))
        return name

    def conv(x: str, inner: int, outer: int, size: int, step: int = 1) -> str:
        w, b = weight(outer, inner, size, size), weight(outer)
        return node("Conv", x, w, b, strides=[step] * 2, pads=[size // 2] * 4, kernel_shape=[size] * 2)

    x = node("Relu", conv("x", 3, 64, 7, 2))
    x = node("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    width = 64
    for stage, blocks in enumerate((3, 4, 6, 3)):
        inner = 64 << stage
        for block in range(blocks):
            step = 2 if stage and not block else 1
            y = node("Relu", conv(x, width, inner, 1))
            y = node("Relu", conv(y, inner, inner, 3, step))
            y = conv(y, inner, 4 * inner, 1)
            x = node("Relu", node("Add", y, x if block else conv(x, width, 4 * inner, 1, step)))
            width = 4 * inner
    pooled = node("Flatten", node("GlobalAveragePool", x))
    nodes.append(helper.make_node("Gemm", [pooled, weight(width, 1000), weight(1000)], ["y"]))
    graph = helper.make_graph(
        nodes,
        "resnet",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 224, 224])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 1000])],
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)


def measure(path: Path, feeds: Feeds) -> tuple[float, float, dict[str, float]]:
    """Median seconds of ours and of onnxruntime, and the shares of our run by kind of event.

    Raises:
        AssertionError: if the results differ by more than 0.1 % of the largest value.
    """
    peer = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    with epkit.load(path, ["opencl"]) as session:
        found, want = session.run(None, dict(feeds))["y"], peer.run(["y"], dict(feeds))[0]
        np.testing.assert_allclose(found, want, rtol=1e-3, atol=1e-3 * float(np.abs(want).max()))
        runs = {
            "ours": lambda: session.run(None, dict(feeds)),
            "theirs": lambda: peer.run(["y"], dict(feeds)),
        }
        seconds = alternate(runs, ROUNDS)
        share = shares_of(session, feeds)
    return seconds["ours"], seconds["theirs"], share


def shares_of(session: epkit.Session, feeds: Feeds) -> dict[str, float]:
    """Of one profiled run: the host's time in enqueueing, and in waiting and copying, as shares of the whole."""
    profile = epkit.Profile()
    start = time.perf_counter()
    session.run(None, dict(feeds), epkit.RunOptions(profile=profile))
    whole = time.perf_counter() - start
    spent: dict[str, float] = defaultdict(float)
    for event in profile.recorder.events:
        spent[event.category] += event.duration / 1e9
    return {name: seconds / whole for name, seconds in spent.items()}


PLAIN = f"""
__kernel void plain(__global const float* a, __global const float* b, __global float* q) {{
  const int i = get_global_id(1) * 8, j = get_global_id(0) * 16;
  float16 sum[8];
  for (int r = 0; r < 8; r++) sum[r] = 0;
  for (int s = 0; s < {SIZE}; s++) {{
    const float16 y = vload16(0, b + s * {SIZE} + j);
#pragma unroll
    for (int r = 0; r < 8; r++) sum[r] = fma((float16)a[(i + r) * {SIZE} + s], y, sum[r]);
  }}
  for (int r = 0; r < 8; r++) vstore16(sum[r], 0, q + (i + r) * {SIZE} + j);
}}
"""


def products() -> dict[str, float]:
    """Median seconds of the product on the device, nothing copied: ours with a weight on the right, and its peers.

    Raises:
        AssertionError: if a product is wrong.
    """
    import pyopencl as cl

    from epkit_opencl.device import Options, find_devices, handle_of, limits_of, open_device
    from epkit_opencl.kernels.gemm import Side, multiply, pack
    from epkit_opencl.memory import ClStream, Lane, Tensor, new_buffer

    gpu = open_device(handle_of(find_devices(Options()).found[0]))
    stream = ClStream(gpu, limits_of(gpu.handle, Options()), Lane(gpu))
    context: Any = SimpleNamespace(stream=stream)
    random = np.random.default_rng(3)
    a, b = (random.standard_normal((SIZE, SIZE), np.float32) for _ in range(2))
    shape, found = a.shape, np.empty_like(a)
    left, right, out = (Tensor(new_buffer(gpu, a.nbytes), 0, shape, a.dtype) for _ in range(3))
    right.packed = {}
    for array, tensor in ((a, left), (b, right)):
        cl.enqueue_copy(stream.queue, tensor.buffer, array)

    def ours() -> None:
        panels = pack(context, Side(right, SIZE, 1), SIZE, SIZE, 1)
        multiply(context, Side(left, SIZE, 1), panels, 1, out, (1, SIZE, SIZE, SIZE))
        stream.queue.finish()

    kernel = cl.Program(gpu.context, PLAIN).build(["-cl-std=CL1.2"]).plain
    kernel.set_args(left.buffer, right.buffer, out.buffer)

    def plain() -> None:
        cl.enqueue_nd_range_kernel(stream.queue, kernel, (SIZE // 16, SIZE // 8), None)
        stream.queue.finish()

    runs: dict[str, Callable[[], None]] = {"epkit": ours, "a plain 8 x 16 register-blocked kernel": plain}
    with suppress(ImportError):
        runs["CLBlast"] = clblast(stream.queue, a, b)
    for name, run in runs.items():
        run()
        if name != "CLBlast":
            cl.enqueue_copy(stream.queue, found, out.buffer)
            np.testing.assert_allclose(found, a @ b, rtol=1e-3, atol=1e-2)
    return alternate(runs, ROUNDS)


def clblast(queue: Any, a: Any, b: Any) -> Callable[[], None]:
    """The product by pyclblast.

    Raises:
        ImportError: if it is not installed.
    """
    pyclblast: Any = import_module("pyclblast")
    import pyopencl.array as arrays

    x, y = (arrays.to_device(queue, item) for item in (a, b))
    z = arrays.zeros(queue, a.shape, a.dtype)

    def run() -> None:
        pyclblast.gemm(queue, SIZE, SIZE, SIZE, x, y, z, a_ld=SIZE, b_ld=SIZE, c_ld=SIZE)
        queue.finish()

    return run


def first_calls(path: Path, shape: tuple[int, ...]) -> tuple[float, float]:
    """Seconds of loading and the first run in a new process, with an empty cache of binaries and a full one."""
    with tempfile.TemporaryDirectory() as cache:
        environment = {**os.environ, "POCL_CACHE_DIR": cache, "XDG_CACHE_HOME": cache}
        command = [sys.executable, "-c", LOAD, str(path), ",".join(map(str, shape))]

        def once() -> float:
            done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
            return float(done.stdout)

        return once(), once()


def table(
    rows: list[tuple[str, float, float]],
    shares: list[tuple[str, dict[str, float]]],
    compiling: list[tuple[str, float, float]],
    alone: Mapping[str, float],
) -> str:
    """The results as Markdown."""
    rate = 2 * SIZE**3 / rows[0][1] / 1e9
    lines = [
        "# OpenCL",
        "",
        f"`python -m benchmarks opencl`; medians of {ROUNDS} alternating rounds, device: {device()}. {machine()}.",
        "",
        "| model | epkit | onnxruntime, CPU | epkit / onnxruntime |",
        "|---|---|---|---|",
    ]
    lines += [f"| {name} | {a * 1e3:.1f} ms | {b * 1e3:.1f} ms | {a / b:.2f} |" for name, a, b in rows]
    lines += ["", f"The product is {rate:.0f} GFLOP/s, copies of input and result included.", ""]
    lines += [f"| the product alone, {SIZE}³ | GFLOP/s | time / epkit's |", "|---|---|---|"]
    lines += [
        f"| {name} | {2 * SIZE**3 / seconds / 1e9:.0f} | {seconds / alone['epkit']:.2f} |"
        for name, seconds in alone.items()
    ]
    lines += [""] if "CLBlast" in alone else ["", "pyclblast is not installed.", ""]
    kinds = sorted({kind for _, share in shares for kind in share})
    lines += [f"| share of a profiled run | {' | '.join(kinds)} |", "|---" * (len(kinds) + 1) + "|"]
    lines += [f"| {name} | {' | '.join(f'{s.get(k, 0):.1%}' for k in kinds)} |" for name, s in shares]
    lines += [
        "",
        "A run enqueues its kernels (`partition`; `node` is inside it), and the transfer of the result waits for them: "
        "`transfer` is the wait and the copies together.",
    ]
    lines += ["", "| load and first run, new process | nothing cached | binaries cached |", "|---|---|---|"]
    lines += [f"| {name} | {cold:.1f} s | {warm:.1f} s |" for name, cold, warm in compiling]
    return "\n".join(lines) + "\n"


def device() -> str:
    """The device that the provider would choose."""
    from epkit_opencl.device import Options, find_devices

    return find_devices(Options()).found[0].description
