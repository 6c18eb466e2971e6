"""int8 ResNet-50 and MobileNet-v2: seeded weights, exported by torch, quantised by onnxruntime in QDQ form.

They are kept in `.cache/models/npu_sim/`. ``python plugins/npu_sim/tests/npu_models.py`` prints the table of
``docs/npu_sim/models.md``; ``--pictures`` draws its pictures, ``--compare`` prints what stands beside others' figures.
"""

from __future__ import annotations

import math
import os
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from npu_streams import Seen

import epkit
from epkit_npu_sim.compile import NpuProgram
from epkit_npu_sim.timing import Timeline

CACHE = Path(__file__).parents[3] / ".cache" / "models" / "npu_sim"
NAMES = ("resnet50", "mobilenet_v2")
SHAPE = (1, 3, 224, 224)


def image(seed: int) -> np.ndarray[Any, Any]:
    """A picture of noise."""
    return np.random.default_rng(seed).standard_normal(SHAPE).astype(np.float32)


def model_path(name: str, *, per_channel: bool = True) -> Path:
    """The quantised model; made if it is not there."""
    path = CACHE / f"{name}.{'channel' if per_channel else 'tensor'}.onnx"
    if not path.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        whole = CACHE / f"{name}.{os.getpid()}.float.onnx"
        part = path.with_suffix(f".{os.getpid()}.part")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _export(name, whole)
            _quantise(whole, part, per_channel)
        os.replace(part, path)
        whole.unlink()
    return path


def _export(name: str, path: Path) -> None:
    import torch
    from transformers import (
        MobileNetV2Config,
        MobileNetV2ForImageClassification,
        ResNetConfig,
        ResNetForImageClassification,
    )

    torch.manual_seed(0)
    if name == "resnet50":
        net: Any = ResNetForImageClassification(ResNetConfig(num_labels=1000))
    else:
        net = MobileNetV2ForImageClassification(MobileNetV2Config(num_labels=1000, tf_padding=False))

    class Logits(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, x: torch.Tensor) -> Any:
            return self.net(x).logits

    with torch.no_grad():
        net.train()  # statistics for the normalisations
        for _ in range(2):
            net(torch.randn(4, 3, 224, 224))
    module = Logits().eval()
    example = (torch.randn(*SHAPE),)
    torch.onnx.export(
        module, example, str(path), dynamo=False, opset_version=17, input_names=["x"], output_names=["y"]
    )


def _quantise(source: Path, target: Path, per_channel: bool) -> None:
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static
    from onnxruntime.quantization.preprocess import quant_pre_process

    class Pictures(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._left = [{"x": image(seed)} for seed in range(2)]

        def get_next(self) -> Any:
            return self._left.pop() if self._left else None

    quant_pre_process(str(source), str(source))
    quantize_static(
        str(source), str(target), Pictures(), quant_format=QuantFormat.QDQ, per_channel=per_channel
    )


def measure(name: str) -> tuple[str, Timeline, list[str]]:
    """A row of the table, the simulated timeline, and the operators of its layers.

    Times are those of the CPU, all threads together: what one core needs, whatever else the machine does.
    """
    path, x = model_path(name), image(7)
    seconds = {}
    for mode in ("functional", "cycles"):
        seen = Seen()
        start = time.process_time()
        with epkit.load(path, [("npu_sim", {"mode": mode})], registry=seen.registry) as session:
            loaded = time.process_time() - start
            session(x=x)
            start = time.process_time()
            session(x=x)
            seconds[mode] = time.process_time() - start
    (program,) = seen.programs
    timeline = program.binary.timeline
    total = timeline.total()
    row = (
        f"| {name} | {loaded:.1f} | {seconds['functional']:.2f} "
        f"| {seconds['cycles']:.2f} | {len(timeline.commands):,} | {timeline.cycles:,} | {timeline.milliseconds:.2f} "
        f"| {timeline.utilisation():.1%} | {(total.loaded + total.stored) / 1e6:.1f} | {timeline.millijoules():.2f} |"
    )
    return row, timeline, [layer.operators for layer in program.layers]


def program_of(name: str, **options: Any) -> NpuProgram:
    """A model, compiled for a chip."""
    seen = Seen()
    epkit.load(model_path(name), [("npu_sim", options)], registry=seen.registry).close()
    return seen.programs[0]


def products(program: NpuProgram) -> Iterator[tuple[int, int, int, int]]:
    """How often, and k, n, m, for each product of a program: [k, n] weights, and m vectors that meet them."""
    for layer in program.layers:
        attributes = layer.units[0].attributes
        if "geometry" in attributes:
            (outs, *kernel), window = attributes["geometry"].weights.shape, attributes["geometry"].window
            groups = attributes["geometry"].group
            yield groups * window.x[0], math.prod(kernel), outs // groups, window.y[2] * window.y[3]
        elif layer.units[0].kind in ("MatMul", "Gemm"):
            yield 1, attributes["shape"].k, attributes["shape"].n, attributes["shape"].m


def by_scale_sim(program: NpuProgram, size: int) -> float:
    """Utilisation by SCALE-Sim's formula, weight stationary: 2R + C + T - 2 clocks for each tile of the weights."""
    macs = clocks = 0
    for times, k, n, m in products(program):
        macs += times * k * n * m
        clocks += times * -(-k // size) * -(-n // size) * (3 * size + m - 2)
    return macs / (clocks * size**2)


def compare() -> None:
    """The figures beside those that others publish."""
    for name in NAMES:
        for options in ({"array": 32}, {"array": 16}, {"array": 16, "scratchpad_kib": 320}):
            program = program_of(name, **options)
            timeline = program.binary.timeline
            ours, theirs = timeline.utilisation(), by_scale_sim(program, options["array"])
            print(f"{name} {options}: {ours:.1%}, by SCALE-Sim's formula {theirs:.1%}; {timeline.cycles:,} clocks, "
                  f"{timeline.total().macs:,} multiply-adds on the array", flush=True)  # fmt: skip


if __name__ == "__main__":
    if "--compare" in sys.argv:
        compare()
        sys.exit()
    for each in NAMES:
        line, drawn, operators = measure(each)
        print(line, flush=True)
        if "--pictures" in sys.argv:
            from npu_pictures import roofline, timeline_picture

            folder = Path(__file__).parents[3] / "docs" / "npu_sim"
            (folder / f"{each}_roofline.svg").write_text(roofline(drawn, operators, each), encoding="utf-8")
            (folder / f"{each}_timeline.svg").write_text(timeline_picture(drawn, each), encoding="utf-8")
