"""Single-thread times of the math kernels beside onnxruntime's for one node: ``python bench.py [family ...]``.

GFLOP/s, the share of the multiply-add peak that the same run measured, and the ratio of times (below 1 is faster
than onnxruntime). Every figure is the best of several short runs: the machine may be shared.
"""

from __future__ import annotations

import ctypes
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx.parser
import onnxruntime

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from math_library import ISAS, aligned, call, library, scratch
from test_native_attention import Attention
from test_native_conv import Conv, blocked
from test_native_gemm import Epilogue, Gemm
from test_native_int8 import GemmInt8, Requantise
from test_native_nbits import NBits
from test_native_recurrent import Recurrent

Array = np.ndarray[Any, Any]
I64 = ctypes.c_int64
ISA = ISAS[-1]
rng = np.random.default_rng(0)


@dataclass
class Measure:
    """What is compared: our call, and a model of one node with its inputs; operations of one call, in 1e9."""

    name: str
    ours: Callable[[], Any]
    model: str
    constants: dict[str, Array]
    feeds: dict[str, Array]
    giga: float


def floats(*shape: int) -> Array:
    return rng.standard_normal(shape).astype(np.float32)


def bound(name: str, struct: Any, *pointers: Array) -> Callable[[], Any]:
    """The kernel with its arguments; whatever it points to is kept alive by the closure."""
    function = getattr(library(), f"epk_{name}_{ISA}")
    arguments = [ctypes.byref(struct), *[ctypes.c_void_p(array.ctypes.data) for array in pointers], None]
    return lambda: (function(*arguments), struct, pointers)


def matmul(kind: str) -> Iterator[Measure]:
    shapes = [
        (128, 768, 768),
        (128, 768, 3072),
        (128, 3072, 768),
        (1, 768, 3072),
        (16, 768, 768),
        (1000, 1000, 1000),
    ]
    for m, k, n in shapes:
        a, b, out = floats(m, k), floats(k, n), np.zeros((m, n), np.float32)
        packed = aligned(call(ISA, f"gemm_packed_size_{kind}", k, n, returns=I64))
        call(ISA, f"gemm_pack_{kind}", b, k, n, n, 1, packed, None)
        g = Gemm(m, n, k, a.ctypes.data, k, 1, None, 0, 0, packed.ctypes.data, out.ctypes.data, n, 1, None, None, None,
                 Epilogue(1.0))  # fmt: skip
        ours = bound(
            f"gemm_{kind}", g, scratch(ISA, f"gemm_scratch_{kind}", ctypes.byref(g), ctypes.c_int(1))
        )
        keep = lambda ours=ours, data=(a, out, packed): (ours(), data)  # noqa: E731
        model = f"(float[{m},{k}] x) => (float[{m},{n}] y) {{ y = MatMul(x, w) }}"
        yield Measure(f"matmul {kind} {m}x{k}x{n}", keep, model, {"w": b}, {"x": a}, 2e-9 * m * k * n)


def matmul_int8() -> Iterator[Measure]:
    for m, k, n in [(128, 768, 768), (128, 3072, 768), (1, 768, 3072)]:
        a, b = rng.integers(0, 255, (m, k), np.uint8), rng.integers(-127, 127, (k, n), np.int8)
        out, multiplier, zero = (
            np.zeros((m, n), np.uint8),
            np.array([1e-4], np.float32),
            np.array([0], np.int8),
        )
        packed = aligned(call(ISA, "gemm_packed_size_int8", k, n, returns=I64))
        call(ISA, "gemm_pack_int8", b, k, n, n, 1, 1, zero, 1, packed, None)
        g = GemmInt8(m, n, k, a.ctypes.data, k, 0, 128, packed.ctypes.data, out.ctypes.data, n, 1, None, None,
                     Requantise(2, None, multiplier.ctypes.data, 0, 128, 0, 255))  # fmt: skip
        ours = bound("gemm_int8", g, scratch(ISA, "gemm_scratch_int8", ctypes.byref(g), ctypes.c_int(1)))
        keep = lambda ours=ours, data=(a, out, multiplier, packed): (ours(), data)  # noqa: E731
        constants = {"w": b, "s": np.array(0.01, np.float32), "xz": np.array(128, np.uint8), "wz": np.array(0, np.int8),
                     "t": np.array(1.0, np.float32)}  # fmt: skip
        model = f"(uint8[{m},{k}] x) => (uint8[{m},{n}] y) {{ y = QLinearMatMul(x, s, xz, w, s, wz, t, xz) }}"
        yield Measure(f"matmul int8 {m}x{k}x{n}", keep, model, constants, {"x": a}, 2e-9 * m * k * n)


def nbits() -> Iterator[Measure]:
    for bits, m, k, n in [(4, 1, 4096, 4096), (8, 1, 4096, 4096), (4, 128, 2048, 2048)]:
        a, out = floats(m, k), np.zeros((m, n), np.float32)
        b = rng.integers(0, 255, (n, k // 32, 4 * bits), np.uint8)
        scales = floats(n, k // 32)
        g = NBits(
            m, n, k, bits, 32, *[x.ctypes.data for x in (a, b, scales)], None, out.ctypes.data, Epilogue(1.0)
        )
        ours = bound("nbits", g, scratch(ISA, "nbits_scratch", ctypes.byref(g), ctypes.c_int(1)))
        keep = lambda ours=ours, data=(a, b, scales, out): (ours(), data)  # noqa: E731
        attributes = f"K = {k}, N = {n}, bits = {bits}, block_size = 32"
        model = f"(float[{m},{k}] x) => (float[{m},{n}] y) {{ y = com.microsoft.MatMulNBits<{attributes}>(x, w, s) }}"
        yield Measure(
            f"nbits {bits} {m}x{k}x{n}", keep, model, {"w": b, "s": scales}, {"x": a}, 2e-9 * m * k * n
        )


# channels, filters, size, kernel, stride, padding, groups
CONVS = [(3, 64, 224, 7, 2, 3, 1), (64, 64, 56, 1, 1, 0, 1), (64, 64, 56, 3, 1, 1, 1), (64, 256, 56, 1, 1, 0, 1),
         (128, 128, 56, 3, 2, 1, 1), (128, 128, 28, 3, 1, 1, 1), (256, 512, 56, 1, 2, 0, 1), (256, 256, 14, 3, 1, 1, 1),
         (1024, 256, 14, 1, 1, 0, 1), (512, 512, 7, 3, 1, 1, 1), (512, 2048, 7, 1, 1, 0, 1), (32, 32, 112, 3, 1, 1, 32),
         (96, 96, 112, 3, 2, 1, 96), (960, 960, 7, 3, 1, 1, 960),
         (64, 64, 56, 7, 1, 3, 64), (128, 128, 28, 5, 1, 2, 128)]  # fmt: skip


def conv() -> Iterator[Measure]:
    """Ours in the blocked layout; onnxruntime's node takes and gives the planar one. Rates are of direct sums."""
    plain = [(*shape, 0) for shape in CONVS]
    tiled = [(*shape, tile) for shape in CONVS if shape[3:] == (3, 1, 1, 1) for tile in (2, 4)]
    for channels, filters, size, kernel, stride, pad, group, tile in plain + tiled:
        o = (size + 2 * pad - kernel) // stride + 1
        x, w, b = (
            floats(1, channels, size, size),
            floats(filters, channels // group, kernel, kernel),
            floats(filters),
        )
        given = blocked(x) if channels >= 16 else x
        out = np.zeros((1, -(-filters // 16), o, o, 16), np.float32)
        triples = [(I64 * 3)(*v) for v in ((1, size, size), (1, o, o), (1, kernel, kernel), (1, stride, stride),
                                           (1, 1, 1), (0, pad, pad))]  # fmt: skip
        c = Conv(1, channels, filters, group, *triples, 0, channels >= 16, 1, tile, Epilogue(1.0))
        packed = aligned(call(ISA, "conv_packed_size_f32", ctypes.byref(c), returns=I64))
        call(ISA, "conv_pack_f32", ctypes.byref(c), w, b, packed, None)
        space = scratch(ISA, "conv_scratch_f32", ctypes.byref(c), ctypes.c_int(1))
        ours = bound("conv_f32", c, given, packed, out, space)
        attributes = (
            f"kernel_shape=[{kernel},{kernel}], strides=[{stride},{stride}], pads=[{pad},{pad},{pad},{pad}]"
        )
        model = f"""(float[1,{channels},{size},{size}] x) => (float[1,{filters},{o},{o}] y)
                    {{ y = Conv<{attributes}, group={group}>(x, w, b) }}"""
        giga = 2e-9 * filters * o * o * (channels // group) * kernel * kernel
        winograd = f" Winograd {tile}" if tile else ""
        name = f"conv {channels}->{filters} {size} k{kernel} s{stride} g{group}{winograd}"
        yield Measure(name, ours, model, {"w": w, "b": b}, {"x": x}, giga)


def attention() -> Iterator[Measure]:
    for queries, keys in [(128, 128), (512, 512), (1, 1024)]:
        heads, size = 12, 64
        q, k, v = floats(1, heads, queries, size), floats(1, heads, keys, size), floats(1, heads, keys, size)
        out = np.zeros_like(q)
        strides = [s // 4 for x in (q, k, v, out) for s in x.strides[:3]]
        a = Attention(1, heads, heads, queries, keys, size, size, *[x.ctypes.data for x in (q, k, v, out)], *strides,
                      size**-0.5, 0, -1, -1, 0, None, None, None, 0, 0, 0, None, None)  # fmt: skip
        ours = bound(
            "attention_f32", a, scratch(ISA, "attention_scratch_f32", ctypes.byref(a), ctypes.c_int(1))
        )
        keep = lambda ours=ours, data=(q, k, v, out): (ours(), data)  # noqa: E731
        model = f"""(float[1,{heads},{queries},{size}] q, float[1,{heads},{keys},{size}] k,
             float[1,{heads},{keys},{size}] v)
            => (float[1,{heads},{queries},{size}] y)
            {{ t = Transpose<perm=[0,1,3,2]>(k) s = MatMul(q, t) c = Constant<value_float = 0.125>() m = Mul(s, c)
               p = Softmax<axis=-1>(m) y = MatMul(p, v) }}"""
        giga = 4e-9 * heads * queries * keys * size
        yield Measure(f"attention {queries}x{keys} 12x64", keep, model, {}, {"q": q, "k": k, "v": v}, giga)


def rows() -> Iterator[Measure]:
    x, out, scale = floats(128, 768), np.zeros((128, 768), np.float32), floats(768)
    norm = [x, None, None, scale, scale, out, None, None, None, 128, 768, 1e-5, ctypes.c_int(0), None]
    shape = "(float[128,768] x) => (float[128,768] y)"
    yield Measure("layer norm 128x768", lambda: call(ISA, "layer_norm_f32", *norm),
                  shape + " { y = LayerNormalization(x, s, s) }", {"s": scale}, {"x": x}, 8e-9 * x.size)  # fmt: skip
    yield Measure("softmax 128x768", lambda: call(ISA, "softmax_f32", x, out, 128, 768, 1, ctypes.c_int(0), None),
                  shape + " { y = Softmax(x) }", {}, {"x": x}, 20e-9 * x.size)  # fmt: skip
    for number, operator in [(2, "Tanh"), (3, "Sigmoid"), (4, "Erf"), (0, "Exp"), (1, "Log"), (5, "Sin")]:
        yield Measure(f"{operator} 128x768", lambda n=number: call(ISA, "unary_f32", n, x, out, x.size, None),
                      f"{shape} {{ y = {operator}(x) }}", {}, {"x": abs(x)}, 1e-9 * x.size)  # fmt: skip


def lstm() -> Iterator[Measure]:
    for steps, inputs, hidden in [(50, 128, 128), (100, 64, 256)]:
        x, w, r = (
            floats(steps, 1, inputs),
            floats(1, 4 * hidden, inputs) / 16,
            floats(1, 4 * hidden, hidden) / 16,
        )
        packed = aligned(
            call(ISA, "recurrent_packed_size_f32", ctypes.c_int(0), 1, inputs, hidden, returns=I64)
        )
        call(ISA, "recurrent_pack_f32", ctypes.c_int(0), 1, inputs, hidden, w, r, packed, None)
        out = np.zeros((steps, 1, 1, hidden), np.float32)
        c = Recurrent(0, 0, 1, 0, steps, 1, inputs, hidden, x.ctypes.data, packed.ctypes.data, None, None, None, None,
                      None, 0.0, 0, out.ctypes.data, None, None)  # fmt: skip
        ours = bound(
            "recurrent_f32", c, scratch(ISA, "recurrent_scratch_f32", ctypes.byref(c), ctypes.c_int(1))
        )
        keep = lambda ours=ours, data=(x, packed, out): (ours(), data)  # noqa: E731
        model = f"""(float[{steps},1,{inputs}] x) => (float[{steps},1,1,{hidden}] y)
                    {{ y = LSTM<hidden_size={hidden}>(x, w, r) }}"""
        giga = 8e-9 * steps * hidden * (inputs + hidden)
        yield Measure(f"lstm {steps}x{inputs} hidden {hidden}", keep, model, {"w": w, "r": r}, {"x": x}, giga)


FAMILIES: dict[str, Callable[[], Iterator[Measure]]] = {
    "matmul": lambda: matmul("f32"),
    "bf16": lambda: matmul("bf16"),
    "int8": matmul_int8,
    "nbits": nbits,
    "conv": conv,
    "attention": attention,
    "rows": rows,
    "lstm": lstm,
}


def reference(measure: Measure) -> Callable[[], Any]:
    """onnxruntime's session for the node, on one thread, its input and output bound."""
    header = '<ir_version: 10, opset_import: ["" : 21, "com.microsoft" : 1]> agraph '
    model = onnx.parser.parse_model(header + measure.model)
    for name, value in measure.constants.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(value, name))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    binding = session.io_binding()
    for name, value in measure.feeds.items():
        binding.bind_cpu_input(name, value)
    output = onnxruntime.OrtValue.ortvalue_from_numpy(session.run(None, measure.feeds)[0])
    binding.bind_ortvalue_output("y", output)
    return lambda: (session.run_with_iobinding(binding), output)


def best(functions: list[Callable[[], Any]], seconds: float = 0.15, rounds: int = 3) -> list[float]:
    """The least time of each, in seconds, taking turns."""
    found = [float("inf")] * len(functions)
    for function in functions:
        function()
    for _ in range(rounds):
        for i, function in enumerate(functions):
            end = time.perf_counter() + seconds
            while (start := time.perf_counter()) < end:
                function()
                found[i] = min(found[i], time.perf_counter() - start)
    return found


def main(families: list[str]) -> None:
    sink = np.array([0.5, 0.25], np.float32)
    operations = call(ISA, "peak_f32", 1, sink, returns=I64)
    (seconds,) = best([lambda: call(ISA, "peak_f32", 100_000, sink)])
    peak = 1e-4 * operations / seconds
    print(f"{ISA}: peak {peak:.0f} GFLOP/s of float32 multiply-adds\n")
    print(f"{'':40} {'µs':>9} {'GFLOP/s':>8} {'of peak':>8} {'onnxruntime µs':>15} {'ratio':>6}")
    for family in families or FAMILIES:
        for measure in FAMILIES[family]():
            ours, theirs = best([measure.ours, reference(measure)])
            rate = measure.giga / ours
            print(f"{measure.name:40} {1e6 * ours:9.1f} {rate:8.1f} {rate / peak:8.0%} {1e6 * theirs:15.1f} "
                  f"{ours / theirs:6.2f}", flush=True)  # fmt: skip


if __name__ == "__main__":
    main(sys.argv[1:])
