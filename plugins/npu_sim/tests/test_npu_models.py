"""Whole models: all quantised nodes run on npu_sim, and the results match those of onnxruntime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from npu_models import NAMES, image, model_path

import epkit

pytestmark = pytest.mark.slow


def by_onnxruntime(path: str, feeds: dict[str, Any]) -> Any:
    return onnxruntime.InferenceSession(path).run(None, feeds)[0]


@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_classifiers_run_whole_and_every_layer_is_exact(name: str, per_channel: bool) -> None:
    """All but the first QuantizeLinear and the last DequantizeLinear, which are the host's, in one partition.

    Each layer's bytes are those of the integer reference; the result is the same in both orders of execution, and
    whether or not the layers' results leave. onnxruntime, which rounds twice now and then, is close.
    """
    from npu_layerwise import Layers, with_all_integers_shown  # late: it needs torch, as the export does

    path = model_path(name, per_channel=per_channel)
    x = image(11)
    results = []
    for mode in ("functional", "cycles"):
        with epkit.load(path, [("npu_sim", {"mode": mode})]) as session:
            left = [node.operator for node in session.placement.nodes if node.provider != "npu_sim"]
            assert sorted(left) == ["DequantizeLinear", "QuantizeLinear"]
            assert session.placement.partitions()["npu_sim"] == 1
            results.append(session(x=x)["y"])
    model = onnx.load(path)
    with epkit.load(with_all_integers_shown(model), ["npu_sim"]) as session:
        values = session(x=x)
    assert results[0].tobytes() == results[1].tobytes() == values["y"].tobytes()
    layers = Layers(model, values)
    checked = []
    for quantiser in layers.quantisers:
        operator, want = layers.expected(quantiser)
        if want is not None:
            assert np.array_equal(values[quantiser.output[0]], want), quantiser.name
            checked.append(operator)
    assert checked.count("Conv") == {"resnet50": 53, "mobilenet_v2": 52}[name]
    theirs = by_onnxruntime(str(path), {"x": x})
    assert np.corrcoef(results[0].ravel(), theirs.ravel())[0, 1] > 0.98


@pytest.mark.models
@pytest.mark.parametrize(
    ("level", "kinds"),
    [("basic", ("MatMul", "Gemm", "Conv")), ("all", ("QLinearMatMul", "com.microsoft.QGemm", "QLinearConv"))],
)
def test_smart_turn_runs_all_its_quantised_nodes(
    level: str, kinds: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real int8 model: every MatMul, Gemm, Conv and Softmax that stands between scales is on npu_sim."""
    monkeypatch.syspath_prepend(Path(__file__).parents[3])
    from tests.models.catalogue import CATALOGUE
    from tests.models.fetch import model_path as fetched

    (package,) = [p for p in CATALOGUE if p.name == "pipecat-ai"]
    path = fetched(package, package.models[0])
    x = np.random.default_rng(0).standard_normal((1, 80, 800)).astype(np.float32)
    with epkit.load(path, ["npu_sim"], fix={"s6": 1}, optimise=level) as session:
        assert all(n.provider == "npu_sim" for n in session.placement.nodes if n.operator in kinds)
        on_npu = [n.operator for n in session.placement.nodes if n.provider == "npu_sim"]
        assert [on_npu.count(kind) for kind in (*kinds, "Softmax")] == [34, 3, 2, 4]
        (got,) = session(input_features=x).values()
    assert np.abs(got - by_onnxruntime(str(path), {"input_features": x})).max() < 0.01
