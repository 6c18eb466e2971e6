"""``python -m tests.models.make_exports [EXPORTER ...]`` writes small models into ``exports/``.

They are kept in the repository because the exporters are too heavy for the usual tests. Each model lies next
to an archive of its inputs (``0.in.NAME``) and, for networks, of what the exporting framework computes from
them (``0.out.POSITION``). An exporter that is not installed is named and left out.
"""

from __future__ import annotations

import io
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

FOLDER = Path(__file__).parent / "exports"


@dataclass(frozen=True)
class Export:
    """A model, its inputs in one or more sizes, and the outputs in order for each (none if not known)."""

    name: str
    model: bytes
    feeds: Sequence[Mapping[str, Any]]
    outputs: Sequence[Sequence[Any]] = ()


def save(export: Export) -> None:
    """Write the model and its archive."""
    arrays: dict[str, Any] = {}
    for number, feeds in enumerate(export.feeds):
        for name, array in feeds.items():
            text = np.asarray(array).dtype.kind == "O"
            arrays[f"{number}.in.{name}"] = array.astype(str) if text else array
    for number, outputs in enumerate(export.outputs):
        arrays |= {f"{number}.out.{position}": np.asarray(array) for position, array in enumerate(outputs)}
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / f"{export.name}.onnx").write_bytes(export.model)
    np.savez_compressed(FOLDER / f"{export.name}.npz", **arrays)


def torch_models() -> Iterator[Export]:
    """Both exporters of torch; the one that traces also on a script with a loop and a branch."""
    import torch

    from .exported import CASES, export

    for name, dynamo in (("recurrent", False), ("unet", False), ("unet", True), ("mobilenet", False)):
        case = CASES[name]
        model = export(case, dynamo=dynamo)  # seeds the weights ...
        torch.manual_seed(0)
        module = case.build().eval()  # ... like this
        sizes = case.sizes if name == "recurrent" else ((1, 2), (2, 3))  # small pictures
        feeds = [{key: x.numpy() for key, x in case.inputs(*size).items()} for size in sizes]
        with torch.no_grad():
            found = [module(*(torch.from_numpy(x) for x in feed.values())) for feed in feeds]
        outputs = [list(each) if isinstance(each, tuple) else [each] for each in found]
        yield Export(f"torch-{'dynamo' if dynamo else 'tracing'}-{name}", model, feeds, outputs)
    yield from _blocks()
    yield _scripted()


def _blocks() -> Iterator[Export]:
    """Parts of transformers, by both exporters."""
    import torch

    from .blocks import BLOCKS
    from .exported import export

    for name, case in BLOCKS.items():
        for dynamo in case.exporters:
            model = export(case, dynamo=dynamo)
            torch.manual_seed(0)
            module = case.build().eval()
            feeds = case.feeds()
            with torch.no_grad():
                made = [module(*(torch.from_numpy(x) for x in feed.values())) for feed in feeds]
            found = [list(each) if isinstance(each, tuple) else [each] for each in made]
            yield Export(f"torch-{'dynamo' if dynamo else 'tracing'}-{name}", model, feeds, found)


def _scripted() -> Export:
    import torch

    class Steps(torch.nn.Module):
        """A loop whose number of turns is an input, with a branch inside."""

        def forward(self, x: torch.Tensor, n: torch.Tensor) -> torch.Tensor:
            total = torch.zeros_like(x)
            for i in range(int(n)):
                if bool(total.sum() > 3):
                    total = total - x * i
                else:
                    total = torch.tanh(total + x)
            return total

    module = torch.jit.script(Steps().eval())
    x = torch.linspace(-1, 2, 6).reshape(2, 3)
    target = io.BytesIO()
    torch.onnx.export(
        module, (x, torch.tensor(3)), target, dynamo=False, input_names=["x", "n"], opset_version=17
    )
    feeds = [{"x": x.numpy(), "n": np.array(n)} for n in (0, 1, 7)]
    outputs = [[module(x, torch.tensor(int(feed["n"]))).numpy()] for feed in feeds]
    return Export("torch-script-loop", target.getvalue(), feeds, outputs)


def sklearn_models() -> Iterator[Export]:
    """skl2onnx: trees, vectors, text in columns, neighbours."""
    from .estimators import build

    for name in ("forest", "boosting", "svm", "words", "neighbours"):
        yield Export(f"sklearn-{name}", *build(name))


def tensorflow_models() -> Iterator[Export]:
    """tf2onnx from a function: a convolution in TensorFlow's layout, then a resize."""
    import tensorflow as tf
    import tf2onnx

    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(3, 3, 3, 4)).astype(np.float32)

    def convolve(x: Any) -> Any:
        y = tf.nn.relu6(tf.nn.conv2d(x, tf.constant(kernel), 2, "SAME"))
        return tf.reduce_mean(tf.image.resize(y, (7, 5)), axis=-1)

    signature = [tf.TensorSpec((None, None, 8, 3), name="x")]
    model, _ = tf2onnx.convert.from_function(tf.function(convolve), signature, opset=15)
    shapes = [(1, 9, 8, 3), (2, 12, 8, 3)]
    feeds = [{"x": rng.uniform(0, 1, shape).astype(np.float32)} for shape in shapes]
    outputs = [[convolve(tf.constant(feed["x"])).numpy()] for feed in feeds]
    yield Export("tf2onnx-convolution", model.SerializeToString(), feeds, outputs)
    yield _tensorflow_encoder()
    yield _keras_masked()
    yield _tensorflow_trained()
    yield _keras_2_masked()


def _tensorflow_encoder() -> Export:
    """A layer of an encoder in TensorFlow's functions and Keras's layers; of a fixed size, as Keras's needs."""
    import tensorflow as tf
    import tf2onnx

    rng = np.random.default_rng(0)
    attention = tf.keras.layers.MultiHeadAttention(4, 8)
    norm = tf.keras.layers.LayerNormalization(epsilon=1e-3)
    attention(tf.zeros((1, 3, 32)), tf.zeros((1, 3, 32)))
    norm.build((None, None, 32))
    for weight in (*attention.weights, *norm.weights):
        weight.assign(rng.normal(0, 0.3, weight.shape).astype(np.float32))
    gain, wide = (rng.normal(0, 0.3, shape).astype(np.float32) for shape in ((32,), (32, 32)))

    def heads(x: Any) -> Any:
        return tf.transpose(tf.reshape(tf.tensordot(x, wide, 1), (2, -1, 4, 8)), (0, 2, 1, 3))

    def encode(x: Any, m: Any) -> Any:
        y = norm(x + attention(x, x))
        y = y * 0.5 * (1.0 + tf.tanh(0.7978845608 * (y + 0.044715 * tf.pow(y, 3))))
        scores = tf.matmul(heads(y), heads(x), transpose_b=True) / tf.sqrt(8.0)
        scores += (1.0 - m[:, None, None, :]) * -10000.0
        mixed = tf.matmul(tf.nn.softmax(scores, axis=-1), heads(x))
        z = y + tf.reshape(tf.transpose(mixed, (0, 2, 1, 3)), (2, -1, 32))
        return z * tf.math.rsqrt(tf.reduce_mean(tf.square(z), -1, keepdims=True) + 1e-6) * gain

    signature = [tf.TensorSpec((2, 7, 32), name="x"), tf.TensorSpec((2, 7), name="m")]
    model, _ = tf2onnx.convert.from_function(tf.function(encode), signature, opset=15)
    feed = {"x": rng.normal(size=(2, 7, 32)).astype(np.float32), "m": np.ones((2, 7), np.float32)}
    feed["m"][1, 4:] = 0
    outputs = [[encode(*(tf.constant(feed[name]) for name in ("x", "m"))).numpy()]]
    return Export("tf2onnx-encoder", model.SerializeToString(), [feed], outputs)


def _keras_masked() -> Export:
    """Keras's attention with a mask, with one that is known (causal), and with its weights as a result."""
    import tensorflow as tf
    import tf2onnx

    rng = np.random.default_rng(0)
    layers = [tf.keras.layers.MultiHeadAttention(4, 8) for _ in range(3)]
    for layer in layers:
        layer(tf.zeros((1, 3, 32)), tf.zeros((1, 3, 32)))
        for weight in layer.weights:
            weight.assign(rng.normal(0, 0.3, weight.shape).astype(np.float32))

    def attend(x: Any, m: Any) -> Any:
        y = x + layers[0](x, x, attention_mask=m[:, None, :])
        y = y + layers[1](y, y, use_causal_mask=True)
        return layers[2](y, x, attention_mask=m[:, None, :], return_attention_scores=True)

    signature = [tf.TensorSpec((2, 7, 32), name="x"), tf.TensorSpec((2, 7), tf.bool, name="m")]
    model, _ = tf2onnx.convert.from_function(tf.function(attend), signature, opset=15)
    feed = {"x": rng.normal(size=(2, 7, 32)).astype(np.float32), "m": np.ones((2, 7), bool)}
    feed["m"][1, 4:] = False
    outputs = [[each.numpy() for each in attend(*(tf.constant(feed[name]) for name in ("x", "m")))]]
    return Export("tf2onnx-masked", model.SerializeToString(), [feed], outputs)


def _keras_2_masked() -> Export:
    """Keras 2's attention with a mask, its weights a result, too: scores have a column for each query."""
    import tensorflow as tf
    import tf2onnx
    import tf_keras

    rng = np.random.default_rng(0)
    layer = tf_keras.layers.MultiHeadAttention(4, 8)
    layer(tf.zeros((1, 3, 32)), tf.zeros((1, 3, 32)))
    for weight in layer.weights:
        weight.assign(rng.normal(0, 0.3, weight.shape).astype(np.float32))

    def attend(x: Any, m: Any) -> Any:
        y = x + layer(x, x, attention_mask=m[:, None, :])
        return layer(y, x, attention_mask=m[:, None, :], return_attention_scores=True)

    signature = [tf.TensorSpec((2, 7, 32), name="x"), tf.TensorSpec((2, 7), tf.bool, name="m")]
    model, _ = tf2onnx.convert.from_function(tf.function(attend), signature, opset=15)
    feed = {"x": rng.normal(size=(2, 7, 32)).astype(np.float32), "m": np.ones((2, 7), bool)}
    feed["m"][1, 4:] = False
    outputs = [[each.numpy() for each in attend(*(tf.constant(feed[name]) for name in ("x", "m")))]]
    return Export("tf2onnx-masked-keras2", model.SerializeToString(), [feed], outputs)


def _tensorflow_trained() -> Export:
    """Trained for codes of 8 bits, with places that become channels between two of them."""
    import tensorflow as tf
    import tf2onnx

    rng = np.random.default_rng(0)
    kernel = rng.normal(0, 0.3, (3, 3, 3, 4)).astype(np.float32)

    def rounded(x: Any) -> Any:
        return tf.quantization.fake_quant_with_min_max_args(x, 0, 5.1, 8)

    def convolve(x: Any) -> Any:
        y = rounded(tf.nn.relu(tf.nn.conv2d(rounded(x), kernel, 1, "SAME")))
        return tf.reduce_sum(rounded(tf.nn.space_to_depth(y, 2)), -1)

    signature = [tf.TensorSpec((2, 6, 4, 3), name="x")]
    model, _ = tf2onnx.convert.from_function(tf.function(convolve), signature, opset=15)
    feed = {"x": rng.uniform(0, 2, (2, 6, 4, 3)).astype(np.float32)}
    outputs = [[convolve(tf.constant(feed["x"])).numpy()]]
    return Export("tf2onnx-trained", model.SerializeToString(), [feed], outputs)


def jax_models() -> Iterator[Export]:
    """jax2onnx: a layer, a normalisation and a softmax."""
    import jax.numpy as jnp
    from jax2onnx import to_onnx

    w = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)

    def layer(x: Any) -> Any:
        y = jnp.tanh(x @ w)
        y = (y - y.mean(-1, keepdims=True)) / jnp.sqrt(y.var(-1, keepdims=True) + 1e-5)
        return jnp.exp(y) / jnp.exp(y).sum(-1, keepdims=True)

    model = to_onnx(layer, [("B", 6)])
    name = model.graph.input[0].name
    feeds = [{name: np.random.default_rng(n).normal(size=(n, 6)).astype(np.float32)} for n in (1, 5)]
    yield Export("jax2onnx-layer", model.SerializeToString(), feeds, [[layer(f[name])] for f in feeds])


def booster_models() -> Iterator[Export]:
    """onnxmltools for xgboost and lightgbm; catboost by itself."""
    import catboost
    import lightgbm
    import onnxmltools
    import xgboost
    from onnxmltools.convert.common.data_types import FloatTensorType

    rng = np.random.default_rng(0)
    x = rng.normal(size=(80, 4)).astype(np.float32)
    target, classes = x[:, 0] - 2 * x[:, 1] * x[:, 2], (x[:, 0] > x[:, 3]).astype(int)
    kinds = [("x", FloatTensorType([None, 4]))]
    regressor = xgboost.XGBRegressor(n_estimators=6, max_depth=3).fit(x, target)
    model = onnxmltools.convert_xgboost(regressor, initial_types=kinds, target_opset=15)
    predicted = [[regressor.predict(x[:n]).reshape(-1, 1)] for n in (1, 20)]
    yield Export("onnxmltools-xgboost", model.SerializeToString(), [{"x": x[:1]}, {"x": x[:20]}], predicted)
    classifier = lightgbm.LGBMClassifier(n_estimators=6, max_depth=3, verbose=-1).fit(x, classes)
    model = onnxmltools.convert_lightgbm(classifier, initial_types=kinds, target_opset=15, zipmap=False)
    yield Export("onnxmltools-lightgbm", model.SerializeToString(), [{"x": x[:1]}, {"x": x[:20]}])
    cat = catboost.CatBoostRegressor(iterations=6, depth=3, verbose=False, allow_writing_files=False)
    cat.fit(x, target)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        cat.save_model(str(path), format="onnx")
        predicted = [[cat.predict(x[:n]).reshape(-1, 1)] for n in (1, 20)]
        feeds = [{"features": x[:1]}, {"features": x[:20]}]
        yield Export("catboost-regressor", path.read_bytes(), feeds, predicted)


def ndonnx_models() -> Iterator[Export]:
    """ndonnx: array programs with masks, sorting and integers."""
    import ndonnx as ndx

    x, n = ndx.argument(shape=("N", 3), dtype=ndx.float64), ndx.argument(shape=("N",), dtype=ndx.int64)
    y = ndx.where(x > 0, ndx.sqrt(ndx.abs(x)), x * 2) + ndx.expand_dims(
        ndx.astype(n % 3, ndx.float64), axis=1
    )
    model = ndx.build({"x": x, "n": n}, {"y": ndx.cumulative_sum(ndx.sort(y, axis=1), axis=1)})
    rng = np.random.default_rng(0)
    feeds = [{"x": rng.normal(size=(k, 3)), "n": np.arange(-2, k - 2)} for k in (1, 6)]
    outputs = []
    for feed in feeds:
        mod = (feed["n"] % 3)[:, None]
        with np.errstate(invalid="ignore"):
            parts = np.where(feed["x"] > 0, np.sqrt(np.abs(feed["x"])), feed["x"] * 2) + mod
        outputs.append([np.sort(parts, 1).cumsum(1)])
    yield Export("ndonnx-program", model.SerializeToString(), feeds, outputs)


def paddle_models() -> Iterator[Export]:
    """paddle2onnx: a convolution, its normalisation, a resize, a linear layer."""
    import paddle
    import paddle2onnx

    class Net(paddle.nn.Layer):
        def __init__(self) -> None:
            super().__init__()
            self.conv = paddle.nn.Conv2D(3, 4, 3, stride=2, padding=1)
            self.norm, self.linear = paddle.nn.BatchNorm2D(4), paddle.nn.Linear(4, 5)

        def forward(self, x: Any) -> Any:
            y = paddle.nn.functional.hardswish(self.norm(self.conv(x)))
            y = paddle.nn.functional.interpolate(y, size=[6, 7], mode="bilinear")
            return paddle.nn.functional.softmax(self.linear(y.mean([2, 3])))

    paddle.seed(0)
    net = Net()
    net.eval()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "net"
        paddle.jit.save(net, str(path), input_spec=[paddle.static.InputSpec([None, 3, None, 8], name="x")])
        paddle2onnx.export(f"{path}.json", f"{path}.pdiparams", f"{path}.onnx", opset_version=15)
        model = path.with_suffix(".onnx").read_bytes()
    rng = np.random.default_rng(0)
    feeds = [{"x": rng.normal(size=shape).astype(np.float32)} for shape in ((1, 3, 9, 8), (2, 3, 12, 8))]
    yield Export("paddle2onnx-net", model, feeds, [[net(paddle.to_tensor(f["x"])).numpy()] for f in feeds])


def onnxruntime_models() -> Iterator[Export]:
    """What onnxruntime's quantisers, its optimizer of transformers and its sessions write."""
    from .ort_exports import models

    for name, model, feeds in models():
        yield Export(f"onnxruntime-{name}", model, feeds)


EXPORTERS: dict[str, Callable[[], Iterator[Export]]] = {
    "torch": torch_models,
    "sklearn": sklearn_models,
    "tensorflow": tensorflow_models,
    "jax": jax_models,
    "boosters": booster_models,
    "ndonnx": ndonnx_models,
    "paddle": paddle_models,
    "onnxruntime": onnxruntime_models,
}


def main(names: Sequence[str]) -> None:
    """Make the exports of the named exporters, or of all."""
    for name in names or EXPORTERS:
        try:
            for export in EXPORTERS[name]():
                save(export)
                print(f"{export.name}: {len(export.model):,} bytes")
        except ImportError as error:
            print(f"{name} is left out: {error}")


if __name__ == "__main__":
    main(sys.argv[1:])
