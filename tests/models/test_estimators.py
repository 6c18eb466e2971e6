"""Estimators of scikit-learn compute what onnxruntime computes."""

from __future__ import annotations

import onnxruntime
import pytest

import epkit

from .compare import largest_error

pytest.importorskip("skl2onnx", reason="an optional environment: see [testenv:slow] in tox.ini")

from .estimators import NAMES, build

pytestmark = pytest.mark.slow


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", NAMES)
def test_estimator(name: str) -> None:
    model, inputs = build(name)
    oracle = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    names = [output.name for output in oracle.get_outputs()]
    for optimise in ("none", "basic"):
        with epkit.load(model, ["cpu"], optimise=optimise) as session:
            for feeds in inputs:
                expected = dict(zip(names, oracle.run(None, dict(feeds)), strict=True))
                assert largest_error(session.run(None, feeds), expected) <= 1e-3
