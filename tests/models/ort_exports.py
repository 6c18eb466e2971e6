"""What onnxruntime's own tools make of a model: quantised files, files of fused operators.

Windows of the pools and planes have odd sizes: the mean of two or four codes is often a half, and which way
that is rounded would be left to the last digit.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

Model = tuple[str, bytes, Sequence[Mapping[str, Any]]]
"""A name, the file's bytes, and inputs in more than one size."""


def _random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).normal(size=shape).astype(np.float32) / 2


def _model(
    nodes: Sequence[onnx.NodeProto], weights: Mapping[str, np.ndarray], x: onnx.ValueInfoProto, *shape: Any
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "small",
        [x],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def pictures() -> tuple[onnx.ModelProto, list[dict[str, np.ndarray]]]:
    """Convolutions, a sum of two ways, pools, a concatenation, activations, a classifier."""
    node = helper.make_node
    nodes = [
        node("Conv", ["x", "w1", "b1"], ["c1"], kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[2, 2]),
        node("Relu", ["c1"], ["r1"]),
        node("Conv", ["r1", "w2", "b2"], ["c2"], kernel_shape=[3, 3], pads=[1, 1, 1, 1], group=2),
        node("Sigmoid", ["c2"], ["s2"]),
        node("Add", ["r1", "s2"], ["sum"]),
        node("MaxPool", ["sum"], ["most"], kernel_shape=[3, 3], strides=[2, 2]),
        node("AveragePool", ["sum"], ["mean"], kernel_shape=[3, 3], strides=[2, 2]),
        node("Concat", ["most", "mean"], ["both"], axis=1),
        node("LeakyRelu", ["both"], ["leaky"], alpha=0.1),
        node("GlobalAveragePool", ["leaky"], ["pooled"]),
        node("Flatten", ["pooled"], ["flat"]),
        node("Gemm", ["flat", "w3", "b3"], ["g"], transB=1),
        node("Softmax", ["g"], ["y"]),
    ]
    weights = {
        "w1": _random(4, 3, 3, 3),
        "b1": _random(4),
        "w2": _random(4, 2, 3, 3),
        "b2": _random(4, seed=1),
        "w3": _random(5, 8),
        "b3": _random(5),
    }
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ("N", 3, "H", 16))
    return _model(nodes, weights, x, "N", 5), [{"x": _random(1, 3, 16, 16)}, {"x": _random(2, 3, 24, 16)}]


def sequences() -> tuple[onnx.ModelProto, list[dict[str, np.ndarray]]]:
    """An embedding, an LSTM, products with weights and of two values."""
    node = helper.make_node
    nodes = [
        node("Gather", ["words", "i"], ["e"]),
        node("LSTM", ["e", "w", "r", "b"], ["h", "last"], hidden_size=16),
        node("Squeeze", ["h", "one"], ["s"]),
        node("MatMul", ["s", "w1"], ["q"]),
        node("Transpose", ["s"], ["k"], perm=[0, 2, 1]),
        node("MatMul", ["q", "k"], ["scores"]),
        node("Softmax", ["scores"], ["p"]),
        node("MatMul", ["p", "s"], ["mixed"]),
        node("MatMul", ["mixed", "w2"], ["m2"]),
        node("Add", ["m2", "b2"], ["y"]),
    ]
    weights = {
        "words": _random(12, 32),
        "w": _random(1, 64, 32),
        "r": _random(1, 64, 16),
        "b": _random(1, 128),
        "one": np.array([1]),
        "w1": _random(16, 16),
        "w2": _random(16, 6),
        "b2": _random(6),
    }
    i = helper.make_tensor_value_info("i", TensorProto.INT64, ("S", "N"))
    rng = np.random.default_rng(3)
    feeds = [{"i": rng.integers(0, 12, shape)} for shape in ((1, 1), (5, 2))]
    return _model(nodes, weights, i, "S", "N", 6), feeds


def _made(model: onnx.ModelProto, tool: Callable[[str, str], object]) -> bytes:
    """What a tool that works on files writes."""
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "in.onnx", Path(folder) / "out.onnx"
        onnx.save(model, source)
        tool(str(source), str(target))
        return target.read_bytes()


def _quantised_encoder() -> Model:
    """torch's layer with every operator that the quantiser takes between codes, those too that only move numbers."""
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        StaticQuantConfig,
        quantize,
    )

    class Samples(CalibrationDataReader):
        def __init__(self) -> None:
            self.left = [_encoder_inputs(2, seed) for seed in range(4)]

        def get_next(self) -> Any:
            return self.left.pop() if self.left else None

    source = onnx.load(Path(__file__).parent / "exports" / "torch-tracing-encoder.onnx")
    config = StaticQuantConfig(Samples(), quant_format=QuantFormat.QDQ, activation_type=QuantType.QUInt8)
    made = _made(source, lambda path, target: quantize(path, target, config))
    return "qdq-encoder", made, [_encoder_inputs(2, 9), _encoder_inputs(3, 9)]


def _encoder_inputs(batch: int, seed: int) -> dict[str, np.ndarray]:
    return {"x": 2 * _random(batch, 7, 32, seed=seed), "memory": 2 * _random(batch, 5, 32, seed=seed)}


def quantised() -> Iterator[Model]:
    """Static (both formats, 8 and 16 bits) and dynamic."""
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        StaticQuantConfig,
        quantize,
    )

    model, feeds = pictures()

    class Samples(CalibrationDataReader):
        def __init__(self) -> None:
            self.left = [{"x": _random(4, 3, 16, 16, seed=seed)} for seed in range(4)]

        def get_next(self) -> Any:
            return self.left.pop() if self.left else None

    def static(form: QuantFormat, activations: QuantType, **options: Any) -> bytes:
        config = StaticQuantConfig(
            Samples(), quant_format=form, activation_type=activations, per_channel=True, **options
        )
        return _made(model, lambda source, target: quantize(source, target, config))

    yield "qdq", static(QuantFormat.QDQ, QuantType.QUInt8), feeds
    signed = {"ActivationSymmetric": True}
    yield "qdq-signed", static(QuantFormat.QDQ, QuantType.QInt8, extra_options=signed), feeds
    yield _quantised_encoder()
    wide = {"UseQDQContribOps": True}
    yield "qdq-16", static(QuantFormat.QDQ, QuantType.QUInt16, extra_options=wide), feeds
    yield "qoperator", static(QuantFormat.QOperator, QuantType.QUInt8), feeds
    yield from _dynamic(model, feeds)


def _dynamic(model: onnx.ModelProto, feeds: Sequence[Mapping[str, Any]]) -> Iterator[Model]:
    from onnxruntime.quantization import DynamicQuantConfig, QuantType, quantize

    def made(model: onnx.ModelProto, weights: QuantType) -> bytes:
        config = DynamicQuantConfig(weight_type=weights, op_types_to_quantize=None)
        return _made(model, lambda source, target: quantize(source, target, config))

    yield "dynamic", made(model, QuantType.QUInt8), feeds
    model, feeds = sequences()
    yield "dynamic-lstm", made(model, QuantType.QInt8), feeds


def weights_of_few_bits() -> Iterator[Model]:
    """MatMulNBits and GatherBlockQuantized, and the standard's own operators around them."""
    from onnxruntime.quantization import QuantFormat
    from onnxruntime.quantization.matmul_nbits_quantizer import (
        DefaultWeightOnlyQuantConfig,
        MatMulNBitsQuantizer,
    )

    model, feeds = sequences()
    for name, bits, form, symmetric, operators in (
        ("4bits", 4, QuantFormat.QOperator, True, ("MatMul",)),
        ("4bits-zeros", 4, QuantFormat.QOperator, False, ("MatMul", "Gather")),
        ("8bits", 8, QuantFormat.QOperator, False, ("MatMul",)),
        ("4bits-qdq", 4, QuantFormat.QDQ, False, ("MatMul",)),
    ):
        config = DefaultWeightOnlyQuantConfig(
            block_size=16,
            bits=bits,
            is_symmetric=symmetric,
            quant_format=form,
            op_types_to_quantize=operators,
            quant_axes=(("MatMul", 0), ("Gather", 1)),
            accuracy_level=1,
        )
        copy = onnx.ModelProto()
        copy.CopyFrom(model)
        quantizer = MatMulNBitsQuantizer(copy, algo_config=config)
        quantizer.process()
        yield name, quantizer.model.model.SerializeToString(), feeds


def optimised() -> Iterator[Model]:
    """What a session writes of the model that it runs."""

    def write(source: str, target: str) -> None:
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        options.optimized_model_filepath = target
        onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])

    model, feeds = pictures()
    yield "session", _made(model, write), feeds
    for name, file, feeds in quantised():
        if name in ("qdq", "dynamic-lstm"):
            yield f"session-{name}", _made(onnx.load_from_string(file), write), feeds


def transformers() -> Iterator[Model]:
    """onnxruntime's optimizer of transformers: attention, embeddings, normalisations and activations fused."""
    import torch
    from onnxruntime.transformers import optimizer
    from transformers import AutoModel, BertConfig, GPT2Config

    from .exported import Case, Encoder, export

    def inputs(batch: int, length: int) -> dict[str, torch.Tensor]:
        torch.manual_seed(length)
        mask = torch.ones(batch, length, dtype=torch.int64)
        mask[-1, length // 2 + 1 :] = 0
        return {"input_ids": torch.randint(0, 20, (batch, length)), "attention_mask": mask}

    size = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    configs = {
        "bert": BertConfig(vocab_size=20, max_position_embeddings=12, **size),
        "gpt2": GPT2Config(vocab_size=20, n_embd=16, n_layer=1, n_head=2, n_positions=12),
    }
    axes = {name: {0: "batch", 1: "length"} for name in ("input_ids", "attention_mask")}
    for name, config in configs.items():
        module = Encoder(AutoModel.from_config(config, attn_implementation="eager"), "last_hidden_state")
        case = Case(lambda module=module: module, inputs, axes, ((1, 3), (2, 7)))
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            path.write_bytes(export(case, dynamo=False))
            made = optimizer.optimize_model(str(path), name, num_heads=2, hidden_size=16)
        yield name, made.model.SerializeToString(), case.feeds()
        made.convert_float_to_float16(keep_io_types=True)
        yield f"{name}-float16", made.model.SerializeToString(), case.feeds()


def models() -> Iterator[Model]:
    """All of them."""
    for make in (quantised, weights_of_few_bits, optimised, transformers):
        yield from make()
