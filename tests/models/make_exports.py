"""``python -m tests.models.make_exports [EXPORTER ...]`` writes small models into ``exports/``.

They are kept in the repository because the exporters are too heavy for the usual tests. Each model lies next
to an archive of its inputs (``0.in.NAME``) and, for networks, of what the exporting framework computes from
them (``0.out.POSITION``). An exporter that is not installed is named and left out.
"""

from __future__ import annotations

import io
import sys
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
    yield _scripted()


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
    """tf2onnx from a function: a convolution in TensorFlow's layout, and a while loop."""
    import tensorflow as tf
    import tf2onnx

    rng = np.random.default_rng(0)
    kernel = tf.constant(rng.normal(size=(3, 3, 3, 4)).astype(np.float32))

    def convolve(x: Any) -> Any:
        y = tf.nn.relu6(tf.nn.conv2d(x, kernel, 2, "SAME"))
        return tf.reduce_mean(tf.image.resize(y, (7, 5)), axis=-1)

    def loop(x: Any) -> Any:
        step = lambda i, y: (i + 1, tf.tanh(y) + x)  # noqa: E731
        return tf.while_loop(lambda i, y: tf.reduce_sum(y) < 9, step, (0, x))[1]

    for name, function, shapes in (
        ("convolution", convolve, [(1, 9, 8, 3), (2, 12, 8, 3)]),
        ("loop", loop, [(2, 3), (4, 3)]),
    ):
        signature = [
            tf.TensorSpec((None, None, *shapes[0][2:]) if len(shapes[0]) > 2 else (None, 3), name="x")
        ]
        model, _ = tf2onnx.convert.from_function(tf.function(function), signature, opset=15)
        feeds = [{"x": rng.uniform(0, 1, shape).astype(np.float32)} for shape in shapes]
        outputs = [[function(tf.constant(feed["x"])).numpy()] for feed in feeds]
        yield Export(f"tf2onnx-{name}", model.SerializeToString(), feeds, outputs)


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


EXPORTERS: dict[str, Callable[[], Iterator[Export]]] = {
    "torch": torch_models,
    "sklearn": sklearn_models,
    "tensorflow": tensorflow_models,
    "jax": jax_models,
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
