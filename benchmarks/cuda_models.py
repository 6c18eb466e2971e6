"""The models of the CUDA benchmark: real shapes, weights by chance, in one element type throughout.

Large weights are read from one small file of random numbers, each from a place of its own: they differ, and a model
of a billion weights is written in a second.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

DTYPES = {
    "fp32": (np.dtype(np.float32), TensorProto.FLOAT),
    "fp16": (np.dtype(np.float16), TensorProto.FLOAT16),
    "bf16": (np.dtype(ml_dtypes.bfloat16), TensorProto.BFLOAT16),
}
OPSET = 23
RANDOM_NUMBERS = 1 << 22
"""Distinct random numbers in the file; a larger weight repeats them."""


class Builder:
    """A graph that is written node by node; every name is the one that the node's function returns.

    Args:
        folder: for the model and its file of random numbers.
        kind: a key of ``DTYPES``.
        largest: elements of the largest weight.
    """

    def __init__(self, folder: Path, kind: str, largest: int) -> None:
        self.folder, self.kind = folder, kind
        self.dtype, self.code = DTYPES[kind]
        self.random = np.random.default_rng(0)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.inputs: list[onnx.ValueInfoProto] = []
        self.outputs: list[onnx.ValueInfoProto] = []
        self.between: list[onnx.ValueInfoProto] = []
        self.file = f"random-{kind}.bin"
        self._shift = 0
        some = (0.02 * self.random.standard_normal(RANDOM_NUMBERS, np.float32)).astype(self.dtype)
        repeats = -(-(largest + RANDOM_NUMBERS) // RANDOM_NUMBERS)
        with (folder / self.file).open("wb") as target:
            for _ in range(repeats):
                target.write(some.tobytes())

    def node(self, op_type: str, *inputs: str, outputs: int = 1, domain: str = "", **attributes: Any) -> Any:
        """Add one; the name of its result, or of each."""
        names = [f"v{len(self.nodes)}_{index}" for index in range(outputs)]
        self.nodes.append(helper.make_node(op_type, inputs, names, domain=domain, **attributes))
        return names[0] if outputs == 1 else names

    def constant(self, values: Any) -> str:
        """A tensor inside the model."""
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def vector(self, size: int, value: float | None = None) -> str:
        """Equal numbers, or numbers by chance."""
        made = self.random.standard_normal(size, np.float32) * 0.02 if value is None else np.full(size, value)
        return self.constant(made.astype(self.dtype))

    def filter(self, *shape: int, gain: float = 1.0) -> str:
        """Weights of a convolution that keep the variance. He et al., "Delving Deep into Rectifiers" (2015)."""
        deviation = gain * math.sqrt(2 / math.prod(shape[1:]))
        values = self.random.standard_normal(shape, np.float32) * np.float32(deviation)
        return self.constant(values.astype(self.dtype))

    def weight(self, *shape: int, code: int = 0, file: str = "") -> str:
        """A large weight, outside the model."""
        name = f"w{len(self.weights)}"
        tensor = TensorProto(name=name, dims=shape, data_type=code or self.code)
        tensor.data_location = TensorProto.EXTERNAL
        self._shift = (self._shift + 4096) % (RANDOM_NUMBERS // 4096 * 4096)
        each = 1 if code else self.dtype.itemsize
        place = {
            "location": file or self.file,
            "offset": self._shift * each,
            "length": math.prod(shape) * each,
        }
        for key, value in place.items():
            tensor.external_data.add(key=key, value=str(value))
        self.weights.append(tensor)
        return name

    def linear(self, x: str, inner: int, outer: int, *, bias: bool = True) -> str:
        """x W + b."""
        product = self.node("MatMul", x, self.weight(inner, outer))
        return str(self.node("Add", product, self.vector(outer)) if bias else product)

    def norm(self, x: str, size: int) -> str:
        """LayerNormalization with a scale and a bias."""
        return str(
            self.node("LayerNormalization", x, self.vector(size, 1.0), self.vector(size), epsilon=1e-5)
        )

    def input(self, name: str, shape: Sequence[int], code: int = 0) -> str:
        """Declare an input, of the model's type by default."""
        self.inputs.append(helper.make_tensor_value_info(name, code or self.code, shape))
        return name

    def output(self, value: str, name: str, shape: Sequence[int]) -> None:
        """Declare an output."""
        self.nodes.append(helper.make_node("Identity", [value], [name]))
        self.outputs.append(helper.make_tensor_value_info(name, self.code, shape))

    def save(self, name: str) -> Path:
        """Write the model."""
        graph = helper.make_graph(
            self.nodes, name, self.inputs, self.outputs, self.weights, value_info=self.between
        )
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("com.microsoft", 1)]
        path = self.folder / f"{name}.onnx"
        path.write_bytes(helper.make_model(graph, opset_imports=opsets, ir_version=11).SerializeToString())
        return path


@dataclass(frozen=True)
class Sizes:
    """Sizes of a transformer.

    Attributes:
        hidden, inner: features between and inside the layers.
        groups: heads of keys and values; ``heads`` by default.
        words: of the vocabulary.
        picture, patch: side lengths of a picture and of what becomes a token.
    """

    layers: int
    hidden: int
    heads: int
    inner: int
    groups: int = 0
    words: int = 0
    picture: int = 0
    patch: int = 0


BERT = Sizes(12, 768, 12, 3072)
VIT = Sizes(12, 768, 12, 3072, picture=224, patch=16)
LLAMA = Sizes(16, 2048, 32, 8192, groups=8, words=128256)


def resnet(folder: Path, kind: str, batch: int, *, width: int = 64, picture: int = 224) -> Path:
    """ResNet-50, normalisations folded. He et al., "Deep Residual Learning for Image Recognition" (2016)."""
    b = Builder(folder, kind, 1)

    def conv(x: str, inner: int, outer: int, size: int, step: int = 1, gain: float = 1.0) -> str:
        weights = b.filter(outer, inner, size, size, gain=gain), b.vector(outer)
        return str(b.node("Conv", x, *weights, strides=[step] * 2, pads=[size // 2] * 4))

    x = b.node("Relu", conv(b.input("x", (batch, 3, picture, picture)), 3, width, 7, 2))
    x = b.node("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    before = width
    for stage, blocks in enumerate((3, 4, 6, 3)):
        inner = width << stage
        for block in range(blocks):
            step = 2 if stage and not block else 1
            y = b.node("Relu", conv(x, before, inner, 1))
            y = b.node("Relu", conv(y, inner, inner, 3, step))
            y = conv(y, inner, 4 * inner, 1, gain=0.5)
            x = b.node("Relu", b.node("Add", y, x if block else conv(x, before, 4 * inner, 1, step)))
            before = 4 * inner
    pooled = b.node("Flatten", b.node("GlobalAveragePool", x))
    b.output(b.node("Gemm", pooled, b.filter(1000, before), b.vector(1000), transB=1), "y", (batch, 1000))
    return b.save(f"resnet-{kind}-{batch}")


def mobilenet(folder: Path, kind: str, batch: int, *, picture: int = 224) -> Path:
    """MobileNet-v2, normalisations folded. Sandler et al., "MobileNetV2" (2018)."""
    b = Builder(folder, kind, 1)
    low, high = b.constant(np.array(0, b.dtype)), b.constant(np.array(6, b.dtype))

    def conv(x: str, inner: int, outer: int, size: int, step: int = 1, groups: int = 1) -> str:
        weights = b.filter(outer, inner // groups, size, size), b.vector(outer)
        return str(b.node("Conv", x, *weights, strides=[step] * 2, pads=[size // 2] * 4, group=groups))

    def clip(x: str) -> str:
        return str(b.node("Clip", x, low, high))

    x, before = clip(conv(b.input("x", (batch, 3, picture, picture)), 3, 32, 3, 2)), 32
    table = (
        (1, 16, 1, 1),
        (6, 24, 2, 2),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    )
    for widen, outer, blocks, first in table:
        for block in range(blocks):
            step, inner = 1 if block else first, before * widen
            y = clip(conv(x, before, inner, 1)) if widen > 1 else x
            y = conv(clip(conv(y, inner, inner, 3, step, inner)), inner, outer, 1)
            x, before = (b.node("Add", y, x) if step == 1 and before == outer else y), outer
    pooled = b.node("Flatten", b.node("GlobalAveragePool", clip(conv(x, before, 1280, 1))))
    b.output(b.node("Gemm", pooled, b.filter(1000, 1280), b.vector(1000), transB=1), "y", (batch, 1000))
    return b.save(f"mobilenet-{kind}-{batch}")


def self_attention(b: Builder, x: str, sizes: Sizes) -> str:
    """Queries, keys and values of x, without a mask; joined again."""
    parts = [b.linear(x, sizes.hidden, sizes.hidden) for _ in range(3)]
    mixed = b.node("Attention", *parts, q_num_heads=sizes.heads, kv_num_heads=sizes.heads)
    return b.linear(mixed, sizes.hidden, sizes.hidden)


def wide(b: Builder, x: str, sizes: Sizes) -> str:
    """Two linear layers around a Gelu."""
    inner = b.node("Gelu", b.linear(x, sizes.hidden, sizes.inner))
    return b.linear(inner, sizes.inner, sizes.hidden)


def bert(folder: Path, kind: str, batch: int, *, sizes: Sizes = BERT, length: int = 128) -> Path:
    """BERT-base's encoder over hidden states. Devlin et al., "BERT" (2019)."""
    b = Builder(folder, kind, sizes.hidden * sizes.inner)
    x = b.input("x", (batch, length, sizes.hidden))
    for _ in range(sizes.layers):
        x = b.norm(b.node("Add", self_attention(b, x, sizes), x), sizes.hidden)
        x = b.norm(b.node("Add", wide(b, x, sizes), x), sizes.hidden)
    b.output(x, "y", (batch, length, sizes.hidden))
    return b.save(f"bert-{kind}-{batch}")


def vit(folder: Path, kind: str, batch: int, *, sizes: Sizes = VIT) -> Path:
    """ViT-B/16. Dosovitskiy et al., "An Image is Worth 16x16 Words" (2021)."""
    b = Builder(folder, kind, sizes.hidden * sizes.inner)
    side, hidden = sizes.picture // sizes.patch, sizes.hidden
    x = b.input("x", (batch, 3, sizes.picture, sizes.picture))
    weights = b.filter(hidden, 3, sizes.patch, sizes.patch), b.vector(hidden)
    x = b.node("Conv", x, *weights, strides=[sizes.patch] * 2)
    x = b.node("Transpose", b.node("Reshape", x, b.constant(np.array([0, hidden, -1]))), perm=[0, 2, 1])
    first = b.constant(np.full((batch, 1, hidden), 0.02, b.dtype))
    places = b.constant((0.02 * b.random.standard_normal((1, side * side + 1, hidden))).astype(b.dtype))
    x = b.node("Add", b.node("Concat", first, x, axis=1), places)
    for _ in range(sizes.layers):
        x = b.node("Add", self_attention(b, b.norm(x, hidden), sizes), x)
        x = b.node("Add", wide(b, b.norm(x, hidden), sizes), x)
    x = b.node("Gather", b.norm(x, hidden), b.constant(np.array(0)), axis=1)
    b.output(b.node("Gemm", x, b.filter(1000, hidden), b.vector(1000), transB=1), "y", (batch, 1000))
    return b.save(f"vit-{kind}-{batch}")


def llama(folder: Path, kind: str, length: int, past: int, *, bits: int = 0, sizes: Sizes = LLAMA) -> Path:
    """A decoder of about a billion weights: ``length`` tokens after ``past`` others; ``bits``: of its weights.

    Touvron et al., "LLaMA" (2023), in the sizes of Llama 3.2 1B; embedding and last layer share their weights.
    """
    b = Builder(folder, kind, sizes.words * sizes.hidden)
    hidden, size = sizes.hidden, sizes.hidden // sizes.heads
    if bits:
        (folder / "random-bytes.bin").write_bytes(b.random.bytes(RANDOM_NUMBERS + hidden * sizes.inner))

    def product(x: str, inner: int, outer: int) -> str:
        if not bits:
            return b.linear(x, inner, outer, bias=False)
        blocks = inner // 32
        packed = b.weight(outer, blocks, 4 * bits, code=TensorProto.UINT8, file="random-bytes.bin")
        scales = b.constant(np.full(outer * blocks, 0.004, b.dtype))
        options: dict[str, Any] = {"K": inner, "N": outer, "bits": bits, "block_size": 32}
        made = str(b.node("MatMulNBits", x, packed, scales, domain="com.microsoft", **options))
        b.between.append(helper.make_tensor_value_info(made, b.code, (1, length, outer)))
        return made

    def norm(x: str) -> str:
        return str(b.node("RMSNormalization", x, b.vector(hidden, 1.0), epsilon=1e-5))

    table = b.weight(sizes.words, hidden)
    x = b.node("Gather", table, b.input("ids", (1, length), TensorProto.INT64))
    places = b.input("position_ids", (1, length), TensorProto.INT64)
    turns = np.arange(past + length)[:, None] * 500000.0 ** (-2 * np.arange(size // 2) / size)
    angles = [b.constant(function(turns).astype(b.dtype)) for function in (np.cos, np.sin)]
    presents: list[tuple[str, str]] = []
    for layer in range(sizes.layers):
        n = norm(x)
        q = product(n, hidden, hidden)
        k, v = (product(n, hidden, sizes.groups * size) for _ in range(2))
        q, k = (
            b.node("RotaryEmbedding", item, *angles, places, num_heads=heads)
            for item, heads in ((q, sizes.heads), (k, sizes.groups))
        )
        shape = (1, sizes.groups, past, size)
        kept = [b.input(f"past_{name}_{layer}", shape) for name in ("key", "value")] if past else []
        options: dict[str, Any] = {"q_num_heads": sizes.heads, "kv_num_heads": sizes.groups, "is_causal": 1}
        y, *made = b.node("Attention", q, k, v, *(["", *kept] if past else []), outputs=3, **options)
        presents += [
            (value, f"present_{name}_{layer}") for value, name in zip(made, ("key", "value"), strict=True)
        ]
        x = b.node("Add", x, product(y, hidden, hidden))
        n = norm(x)
        gate, up = (product(n, hidden, sizes.inner) for _ in range(2))
        gate = b.node("Mul", gate, b.node("Sigmoid", gate))
        x = b.node("Add", x, product(b.node("Mul", gate, up), sizes.inner, hidden))
    last = b.node("Gather", norm(x), b.constant(np.array(length - 1)), axis=1)
    b.output(b.node("Gemm", last, table, transB=1), "y", (1, sizes.words))
    for value, name in presents:
        b.output(value, name, (1, sizes.groups, past + length, size))
    return b.save(f"llama-{kind}-{length}-{past}-{bits or 16}")


def feeds_of(model: onnx.ModelProto) -> dict[str, np.ndarray[Any, Any]]:
    """Inputs by chance: numbers around 0, tokens, and the last positions."""
    random, feeds = np.random.default_rng(1), {}
    for value in model.graph.input:
        shape = tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim)
        kind = helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
        if value.name == "position_ids":
            past = next(
                (v.type.tensor_type.shape.dim[2].dim_value for v in model.graph.input if "past" in v.name), 0
            )
            feeds[value.name] = past + np.arange(shape[1], dtype=kind).reshape(shape)
        elif kind == np.int64:
            feeds[value.name] = random.integers(0, 100, shape)
        else:
            feeds[value.name] = random.standard_normal(shape, np.float32).astype(kind)
    return feeds


@dataclass
class Work:
    """What a run must at least do.

    Attributes:
        flop: floating-point operations of products, convolutions and attention.
        moved: bytes of the weights that are read, of inputs and of outputs.
        weights: bytes of all weights.
    """

    flop: float = 0.0
    moved: float = 0.0
    weights: float = 0.0


def work_of(model: onnx.ModelProto) -> Work:
    """Count a model of known shapes."""
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    shapes: dict[str, tuple[int, ...]] = {}
    sizes: dict[str, float] = {}
    for value in (*inferred.graph.value_info, *inferred.graph.input, *inferred.graph.output):
        kind = value.type.tensor_type
        shapes[value.name] = tuple(dim.dim_value for dim in kind.shape.dim)
        sizes[value.name] = math.prod(shapes[value.name]) * _bytes(kind.elem_type)
    for tensor in inferred.graph.initializer:
        shapes[tensor.name] = tuple(tensor.dims)
        sizes[tensor.name] = math.prod(tensor.dims) * _bytes(tensor.data_type)
    work = Work(weights=sum(sizes[tensor.name] for tensor in inferred.graph.initializer))
    read = {name for node in inferred.graph.node if node.op_type != "Gather" for name in node.input}
    names = [tensor.name for tensor in inferred.graph.initializer if tensor.name in read]
    names += [value.name for value in (*inferred.graph.input, *inferred.graph.output)]
    work.moved = sum(sizes[name] for name in names)
    for node in inferred.graph.node:
        if node.op_type in FLOP:
            given = [shapes.get(name, ()) for name in node.input]
            work.flop += FLOP[node.op_type](node, given, shapes.get(node.output[0], ()))
    return work


def _bytes(code: int) -> int:
    return helper.tensor_dtype_to_np_dtype(code).itemsize


def _attribute(node: onnx.NodeProto, name: str, default: int = 0) -> int:
    return next((found.i for found in node.attribute if found.name == name), default)


def _product(node: onnx.NodeProto, inputs: Any, output: Any) -> float:
    columns = _attribute(node, "N") or (inputs[1][-2] if _attribute(node, "transB") else inputs[1][-1])
    return 2.0 * float(math.prod(inputs[0]) * columns)


def _convolution(node: onnx.NodeProto, inputs: Any, output: Any) -> float:
    return 2.0 * float(math.prod(output) * math.prod(inputs[1][1:]))


def _attention(node: onnx.NodeProto, inputs: Any, output: Any) -> float:
    """Both products; of causal ones only what is seen."""
    batch, queries, hidden = inputs[0]
    past = inputs[4][2] if len(inputs) > 4 else 0
    keys = past + inputs[1][1]
    seen = past + (queries + 1) / 2 if _attribute(node, "is_causal") else keys
    return 4.0 * float(batch * queries * hidden * seen)


FLOP: dict[str, Callable[[onnx.NodeProto, Any, Any], float]] = {
    "MatMul": _product,
    "Gemm": _product,
    "MatMulNBits": _product,
    "Conv": _convolution,
    "Attention": _attention,
}
"""Floating-point operations, by operator."""
