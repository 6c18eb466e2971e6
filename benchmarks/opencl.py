"""The OpenCL provider against onnxruntime's CPU provider: a product, ResNet-50 and BERT-base.

The product alone, without copies, stands beside a plain register-blocked kernel, and CLBlast where pyclblast is
installed (it needs libclblast-dev).
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper

import epkit

from .bert import HIDDEN, save_bert
from .measure import PAUSE, alternate, machine
from .opencl_convolutions import convolutions
from .opencl_products import products
from .opencl_shares import Shares, shares_of

RESULTS = Path(__file__).parent / "results" / "opencl.md"
SIZE = 1024
ROUNDS = 9

Feeds = Mapping[str, np.ndarray[Any, Any]]

LOAD = """
import sys, time, numpy as np, pyopencl as cl, epkit
build, spent = cl.Program.build, []
def timed(*arguments, **named):
    start = time.perf_counter()
    try:
        return build(*arguments, **named)
    finally:
        spent.append(time.perf_counter() - start)
cl.Program.build = timed
start = time.perf_counter()
with epkit.load(sys.argv[1], ["opencl"]) as session:
    session(x=np.zeros([int(n) for n in sys.argv[2].split(",")], np.float32))
print(time.perf_counter() - start, sum(spent), len(spent))
"""


class First(NamedTuple):
    """Loading and a first run: seconds in all, seconds in which the driver built programs, and their number."""

    whole: float
    building: float
    programs: int


def main() -> None:
    """Measure, check that the results agree, print and write the table."""
    with tempfile.TemporaryDirectory() as folder:
        rows, shares, compiling = [], [], []
        for name, path, feeds in models(Path(folder)):
            rows.append((name, *measure(path, feeds)))
            shares.append((name, shares_of(path, feeds)))
            if not name.startswith("product"):
                compiling.append((name, *first_calls(path, feeds["x"].shape)))
    text = table(rows, shares, compiling, products(SIZE, ROUNDS)) + layers(convolutions(ROUNDS))
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


def measure(path: Path, feeds: Feeds) -> tuple[float, float]:
    """Median seconds of ours and of onnxruntime.

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
        seconds = alternate(runs, ROUNDS, pause=PAUSE)
    return seconds["ours"], seconds["theirs"]


def first_calls(path: Path, shape: tuple[int, ...]) -> tuple[First, First]:
    """Loading and the first run in a new process, with an empty cache of binaries and choices, and with a full one."""
    with tempfile.TemporaryDirectory() as cache:
        environment = {
            **os.environ,
            "POCL_CACHE_DIR": cache,
            "XDG_CACHE_HOME": cache,
            "EPKIT_CACHE_DIR": cache,
        }
        command = [sys.executable, "-c", LOAD, str(path), ",".join(map(str, shape))]

        def once() -> First:
            done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
            whole, building, programs = done.stdout.split()
            return First(float(whole), float(building), int(programs))

        return once(), once()


def table(
    rows: list[tuple[str, float, float]],
    shares: list[tuple[str, Shares]],
    compiling: list[tuple[str, First, First]],
    alone: Mapping[str, float],
) -> str:
    """The results as Markdown."""
    lines = [
        "# OpenCL",
        "",
        f"`python -m benchmarks opencl`; medians of {ROUNDS} alternating rounds, device: {device()}. {machine()}.",
        "",
        "| model | epkit | onnxruntime, CPU | epkit / onnxruntime |",
        "|---|---|---|---|",
    ]
    lines += [f"| {name} | {a * 1e3:.1f} ms | {b * 1e3:.1f} ms | {a / b:.2f} |" for name, a, b in rows]
    lines += ["", f"| the product alone, {SIZE}³ | GFLOP/s | time / epkit's |", "|---|---|---|"]
    lines += [
        f"| {name} | {2 * SIZE**3 / seconds / 1e9:.0f} | {seconds / alone['epkit']:.2f} |"
        for name, seconds in alone.items()
    ]
    lines += [] if "CLBlast" in alone else ["", "pyclblast is not installed."]
    lines += ["", "| of a run | launches | kernels | copies | launch overhead |", "|---|---|---|---|---|"]
    lines += [
        f"| {name} | {s.launches} | {s.kernels:.1%} | {s.copies:.1%} | {s.overhead:.1%} |"
        for name, s in shares
    ]
    lines += [
        "",
        "By the device's clock, medians; the overhead is the time in which the device had nothing to do.",
        "",
        "| load and first run, new process | nothing cached | of it building | programs | cached | of it building |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {name} | {cold.whole:.1f} s | {cold.building:.1f} s | {cold.programs} | {warm.whole:.1f} s "
        f"| {warm.building:.1f} s |"
        for name, cold, warm in compiling
    ]
    lines += ["", "With nothing cached the fastest way of each large product is measured too."]
    return "\n".join(lines) + "\n"


def layers(measured: list[tuple[str, tuple[int, int, int], dict[str, float]]]) -> str:
    """The ways of convolutions as Markdown."""
    ways = list(measured[0][2])
    lines = ["", f"| 3 x 3 layer | {' | '.join(ways)} |", "|---" * (len(ways) + 1) + "|"]
    for network, (inner, outer, size), seconds in measured:
        times = " | ".join(f"{seconds[way] * 1e3:.2f} ms" for way in ways)
        lines.append(f"| {network}, {inner} to {outer} channels, {size} x {size} | {times} |")
    lines += ["", "The fastest is measured at the first run, and its name kept (see docs/opencl.md)."]
    return "\n".join(lines) + "\n"


def device() -> str:
    """The device that the provider would choose."""
    from epkit_opencl.device import Options, find_devices

    return find_devices(Options()).found[0].description
