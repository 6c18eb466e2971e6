"""How each engine makes a function of a model; only the one that is asked for is imported."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from typing import Any

Run = Callable[[Mapping[str, Any]], Any]


def engines(threads: int, precision: str = "fp32") -> dict[str, Callable[[str | bytes], Run]]:
    """How each engine makes a function from feeds to outputs of a model."""
    found = {
        "epkit": lambda model: epkit_run(model, threads, precision),
        "onnxruntime": lambda model: onnxruntime_run(model, threads),
    }
    if importlib.util.find_spec("openvino") is not None:
        found["OpenVINO"] = lambda model: openvino_run(model, threads, precision)
    return found


def epkit_run(model: str | bytes, threads: int, precision: str = "fp32") -> Run:
    import epkit

    session = epkit.load(model, [("cpu", {"threads": threads, "precision": precision})], optimise="all")
    return lambda feeds: session.run(None, feeds)


def onnxruntime_run(model: str | bytes, threads: int) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return lambda feeds: dict(zip(names, session.run(None, feeds), strict=True))


def openvino_run(model: str | bytes, threads: int, precision: str = "fp32") -> Run:
    import openvino

    core = openvino.Core()
    hint = "bf16" if precision == "bf16" else "f32"
    options = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": hint}
    source = model if isinstance(model, str) else core.read_model(model, b"")
    request = core.compile_model(source, "CPU", options).create_infer_request()
    return lambda feeds: request.infer(dict(feeds))
