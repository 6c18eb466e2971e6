"""A program for a memory checker: one small node of each family of kernels, as a CPU and as a GPU would run it.

``oclgrind --data-races python opencl_checked.py`` prints one line for each node; with the argument ``control``, it runs
a kernel that reads where it must not.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import onnx
from onnx import helper

import epkit


def data(*shape: int, seed: int = 0) -> Any:
    """Reproducible numbers around zero."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


BYTES = {
    "a": np.arange(35, dtype=np.uint8).reshape(5, 7),
    "b": np.arange(63, dtype=np.int8).reshape(7, 9),
}
SUMS = np.arange(12, dtype=np.int32).reshape(3, 4)
WEIGHTS = {"w": data(5, 3, 3, 3, seed=1), "b": data(5)}
NODES: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("MatMul", {"a": data(13, 9), "b": data(9, 35, seed=1)}, {}),
    ("Conv", {"x": data(1, 3, 6, 7), **WEIGHTS}, {"pads": [1, 1, 1, 1]}),
    ("Conv", {"x": data(1, 4, 6, 7), "w": data(4, 1, 3, 3)}, {"group": 4}),
    ("ConvTranspose", {"x": data(1, 2, 4, 4), "w": data(2, 3, 3, 3)}, {"strides": [2, 2]}),
    ("LSTM", {"x": data(2, 2, 5), "w": data(1, 20, 5), "r": data(1, 20, 5)}, {"hidden_size": 5}),
    ("GRU", {"x": data(2, 2, 5), "w": data(1, 15, 5), "r": data(1, 15, 5)}, {"hidden_size": 5}),
    ("LayerNormalization", {"x": data(3, 18), "s": data(18), "b": data(18)}, {}),
    ("Softmax", {"x": data(3, 7)}, {}),
    ("ReduceSum", {"x": data(3, 7)}, {}),
    ("MaxPool", {"x": data(1, 2, 5, 5)}, {"kernel_shape": [3, 3]}),
    ("Transpose", {"x": data(3, 4, 5)}, {"perm": [2, 0, 1]}),
    ("Concat", {"a": data(3, 4), "b": data(3, 2)}, {"axis": 1}),
    ("Concat", {"a": data(3, 40), "b": data(3, 50)}, {"axis": 1}),
    ("Gather", {"x": data(5, 4), "i": np.array([1, 4])}, {}),
    ("ScatterElements", {"x": data(3, 4), "i": np.array([[0, 1]]), "u": data(1, 2)}, {}),
    (
        "ScatterElements",
        {"x": SUMS, "i": np.array([[0, 1], [2, -1]]), "u": SUMS[:2, :2]},
        {"reduction": "add"},
    ),
    ("ScatterND", {"x": SUMS, "i": np.array([[0], [-1], [0]]), "u": SUMS}, {"reduction": "max"}),
    ("TopK", {"x": data(3, 9), "k": np.array([3])}, {}),
    ("CumSum", {"x": data(3, 9), "k": np.array(1)}, {}),
    ("Add", {"a": data(3, 1, 5), "b": data(4, 1)}, {}),
    ("Trilu", {"x": data(4, 5)}, {}),
    ("MatMulInteger", BYTES, {}),
    ("QuantizeLinear", {"x": data(3, 5), "s": np.array(0.1, np.float32)}, {}),
]


def model_of(name: str, feeds: dict[str, Any], attributes: dict[str, Any]) -> onnx.ModelProto:
    """One node."""
    inputs = [
        helper.make_tensor_value_info(key, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
        for key, value in feeds.items()
    ]
    outputs = ["y", "places"] if name == "TopK" else ["y"]
    node = helper.make_node(name, list(feeds), outputs, **attributes)
    graph = helper.make_graph([node], "g", inputs, [onnx.ValueInfoProto(name=item) for item in outputs])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    return onnx.shape_inference.infer_shapes(model)


def outside() -> None:
    """A kernel that reads behind its buffer."""
    import pyopencl as cl

    context = cl.create_some_context(interactive=False)
    queue, buffer = cl.CommandQueue(context), cl.Buffer(context, cl.mem_flags.READ_WRITE, 16)
    source = "__kernel void k(__global float* p) { p[0] = p[get_global_id(0) + 4]; }"
    cl.Program(context, source).build().k(queue, (1,), None, buffer)
    queue.finish()


def check(model: onnx.ModelProto, feeds: dict[str, Any], name: str) -> None:
    """Run it, held against the CPU provider."""
    with epkit.load(model, ["opencl"], fallback="error", optimise="none") as session:
        found = session.run(None, feeds)["y"]
    with epkit.load(model, ["cpu"], optimise="none") as session:
        want = session.run(None, feeds)["y"]
    np.testing.assert_allclose(found, want, rtol=1e-4, atol=1e-4)
    print("done", name, flush=True)


def in_tiles(way: str) -> None:
    """A convolution by every tile of Winograd's, however small it is."""
    from epkit_opencl.kernels import convolution, winograd, winograd_source

    feeds = {"x": data(2, 3, 6, 19), **WEIGHTS}
    model = model_of("Conv", feeds, {"pads": [1, 1, 1, 1]})
    kept = [onnx.numpy_helper.from_array(feeds.pop(name), name) for name in WEIGHTS]
    model.graph.initializer.extend(kept)
    del model.graph.input[1:]
    winograd.HEAVY = 0
    measured = convolution.__dict__["fastest"]
    for tile in (winograd_source.TWO, winograd_source.FOUR):
        convolution.__dict__["fastest"] = lambda *given, tile=tile: tile
        check(model, feeds, f"{tile} {way}")
    convolution.__dict__["fastest"] = measured


def main() -> None:
    """Every node, both ways."""
    from epkit_opencl.device import all_handles, open_device

    gpu = open_device(all_handles()[0])
    print("platform", gpu.handle.platform.name)
    for gpu.is_cpu in (True, False):
        way = "cpu" if gpu.is_cpu else "gpu"
        for name, feeds, attributes in NODES:
            check(model_of(name, feeds, attributes), feeds, f"{name} {way}")
        in_tiles(way)


if __name__ == "__main__":
    outside() if sys.argv[1:] == ["control"] else main()
