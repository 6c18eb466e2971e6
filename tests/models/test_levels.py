"""Real models at the levels that fuse: they compute what onnxruntime computes, every change checked."""

from __future__ import annotations

import dataclasses
from typing import Any

import onnxruntime
import pytest

import epkit
from epkit.knobs import CHECKED

from .catalogue import Model, Package
from .compare import largest_error
from .test_models import MODELS, case

LEVELS = ("extended", "all")


@pytest.fixture(autouse=True)
def checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CHECKED.name, "1")


@pytest.mark.models
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(("package", "model"), MODELS)
def test_catalogue(package: Package, model: Model, level: str) -> None:
    path, inputs, expected = case(package, model)
    with epkit.load(path, ["cpu"], optimise=level) as session:
        assert expected.error([session.run(None, feeds) for feeds in inputs]) <= expected.allowed


EXPECTED = {
    "bert": {"Attention": 2, "com.microsoft.SkipLayerNormalization": 4, "com.microsoft.BiasGelu": 2},
    "llama": {
        "Attention": 2,
        "com.microsoft.SkipSimplifiedLayerNormalization": 4,
        "com.microsoft.RotaryEmbedding": 4,
    },
    "whisper": {"Attention": 2, "com.microsoft.SkipLayerNormalization": 5},
    "resnet": {"com.microsoft.FusedConv": 5},
}
"""What has to be found in models of the exporter of torch.export."""


@pytest.mark.slow
@pytest.mark.parametrize("exporter", ["dynamo", "tracing"])
@pytest.mark.parametrize("name", ["bert", "gpt2", "llama", "llama-cache", "whisper", "vit", "resnet", "unet"])
def test_torch_models(name: str, exporter: str) -> None:
    pytest.importorskip("transformers", reason="an optional environment: see [testenv:slow] in tox.ini")
    import torch

    from .exported import CASES, export

    def build() -> Any:
        made = CASES[name].build()
        for parameter in made.parameters():  # fresh biases are 0 and scales 1, which rules would remove
            parameter.data += 0.1 * torch.randn_like(parameter) * (parameter.ndim == 1)
        return made

    model = export(dataclasses.replace(CASES[name], build=build), dynamo=exporter == "dynamo")
    oracle = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    names = [output.name for output in oracle.get_outputs()]
    for level in LEVELS:
        with epkit.load(model, ["cpu"], optimise=level) as session:
            found = [node.operator for node in session.placement.nodes]
            for feeds in CASES[name].feeds():
                expected = dict(zip(names, oracle.run(None, dict(feeds)), strict=True))
                assert largest_error(session.run(None, feeds), expected) <= 1e-4
        if exporter == "dynamo":
            assert EXPECTED.get(name, {}).items() <= {each: found.count(each) for each in found}.items()
