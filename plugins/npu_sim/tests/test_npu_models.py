"""Whole models: all quantised nodes run on npu_sim, and the results match those of onnxruntime."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
import pytest
from npu_models import NAMES, image, model_path

import epkit

pytestmark = pytest.mark.slow


def by_onnxruntime(path: str, feeds: dict[str, Any]) -> Any:
    return onnxruntime.InferenceSession(path).run(None, feeds)[0]


@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_classifiers_run_whole(name: str, per_channel: bool) -> None:
    """All but the first QuantizeLinear and the last DequantizeLinear, which are the host's, in one partition."""
    path = model_path(name, per_channel=per_channel)
    x = image(11)
    results = []
    for mode in ("functional", "cycles"):
        with epkit.load(path, [("npu_sim", {"mode": mode})]) as session:
            left = [node.operator for node in session.placement.nodes if node.provider != "npu_sim"]
            assert sorted(left) == ["DequantizeLinear", "QuantizeLinear"]
            assert session.placement.partitions()["npu_sim"] == 1
            results.append(session(x=x)["y"])
    assert results[0].tobytes() == results[1].tobytes()
    want = by_onnxruntime(str(path), {"x": x})
    step = np.min(np.diff(np.unique(want)))  # of the output's scale
    assert np.abs(results[0] - want).max() <= 3 * step
    assert np.mean(np.abs(results[0] - want)) <= 0.7 * step
    assert np.corrcoef(results[0].ravel(), want.ravel())[0, 1] > 0.99


@pytest.mark.models
def test_smart_turn_runs_all_its_quantised_nodes() -> None:
    """A real int8 model: every MatMul, Gemm, Conv and Softmax that stands between scales is on npu_sim."""
    from tests.models.catalogue import CATALOGUE
    from tests.models.fetch import model_path as fetched

    (package,) = [p for p in CATALOGUE if p.name == "pipecat-ai"]
    path = fetched(package, package.models[0])
    x = np.random.default_rng(0).standard_normal((1, 80, 800)).astype(np.float32)
    with epkit.load(path, ["npu_sim"], fix={"s6": 1}) as session:
        kinds = ("MatMul", "Gemm", "Conv")
        assert all(n.provider == "npu_sim" for n in session.placement.nodes if n.operator in kinds)
        on_npu = [n.operator for n in session.placement.nodes if n.provider == "npu_sim"]
        assert [on_npu.count(kind) for kind in (*kinds, "Softmax")] == [34, 3, 2, 4]
        (got,) = session(input_features=x).values()
    assert np.abs(got - by_onnxruntime(str(path), {"input_features": x})).max() < 0.01
