"""onnxruntime as an independent witness for whole models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import onnx
import onnxruntime


def by_onnxruntime(model: onnx.ModelProto, feeds: Mapping[str, Any]) -> dict[str, Any]:
    """The model's outputs by name."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
    results = session.run(None, dict(feeds))
    return {output.name: result for output, result in zip(model.graph.output, results, strict=True)}
