"""``python -m epkit_npu_sim.quantise MODEL.onnx MODEL.int8.onnx``: an int8 model of a float one, by onnxruntime.

Scales come from a few runs: on the inputs that are given (``--inputs FILE.npz ...``, arrays by name, one file a
run), else on random numbers, which is enough to try the machine and not to keep a model's accuracy.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np


def main(arguments: list[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        "python -m epkit_npu_sim.quantise", description=(__doc__ or "").split("``: ")[1]
    )
    parser.add_argument("model")
    parser.add_argument("target")
    parser.add_argument("--inputs", nargs="*", default=[], metavar="FILE.npz")
    given = parser.parse_args(arguments)
    quantise(given.model, given.target, given.inputs)
    print(f"written: {given.target}")


def quantise(model: str, target: str, inputs: list[str]) -> None:
    """QDQ form, a scale for each channel of the weights.

    Raises:
        ImportError: if onnxruntime is not installed.
    """
    from onnxruntime import InferenceSession
    from onnxruntime.quantization import CalibrationDataReader, quantize_static
    from onnxruntime.quantization.preprocess import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self, path: str) -> None:
            needed = InferenceSession(path).get_inputs()
            rng = np.random.default_rng(0)
            invented = ({i.name: random(i.type, i.shape, rng) for i in needed} for _ in range(4))
            self._left = iter([dict(np.load(file)) for file in inputs] if inputs else invented)

        def get_next(self) -> Any:
            return next(self._left, None)

    with tempfile.TemporaryDirectory() as folder:
        prepared = str(Path(folder) / "prepared.onnx")
        quant_pre_process(model, prepared, skip_symbolic_shape=True)
        quantize_static(prepared, target, Reader(prepared), per_channel=True)


def random(kind: str, shape: list[Any], rng: np.random.Generator) -> Any:
    """An input; dimensions that are not known are 1, integers small."""
    sizes = [n if isinstance(n, int) else 1 for n in shape]
    name = kind.removeprefix("tensor(").removesuffix(")").replace("float16", "half")
    dtype = {"float": "float32", "double": "float64", "half": "float16"}.get(name, name)
    numbers = rng.integers(0, 2, sizes) if "int" in dtype or dtype == "bool" else rng.standard_normal(sizes)
    return numbers.astype(dtype)


if __name__ == "__main__":
    main()
