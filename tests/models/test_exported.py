"""Models made on the spot by torch's exporters compute what onnxruntime computes."""

from __future__ import annotations

import onnxruntime
import pytest

import epkit

from .checkered import registry
from .compare import largest_error

pytest.importorskip("torch", reason="an optional environment: see [testenv:slow] in tox.ini")
pytest.importorskip("transformers")

from .exported import CASES, export

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("exporter", ["dynamo", "tracing"])
@pytest.mark.parametrize("name", CASES)
def test_torch_model(name: str, exporter: str) -> None:
    model = export(CASES[name], dynamo=exporter == "dynamo")
    oracle = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    names = [output.name for output in oracle.get_outputs()]
    for providers, optimise in (
        (["cpu"], "none"),
        (["cpu"], "basic"),
        (["null", "checkered", "cpu"], "basic"),
    ):
        with epkit.load(model, providers, optimise=optimise, registry=registry()) as session:
            for feeds in CASES[name].feeds():
                expected = dict(zip(names, oracle.run(None, dict(feeds)), strict=True))
                assert largest_error(session.run(None, feeds), expected) <= 1e-4
