"""Every real model computes what onnxruntime computes, whatever the optimiser's level and the providers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import pytest

import epkit

from .catalogue import CATALOGUE, Model, Package
from .checkered import registry
from .compare import Expected, oracle
from .fetch import model_path
from .inputs import Feeds

pytestmark = pytest.mark.models

MODELS = [pytest.param(p, m, id=f"{p.name}-{m.stem}") for p in CATALOGUE for m in p.models]


@cache
def case(package: Package, model: Model) -> tuple[Path, Sequence[Feeds], Expected]:
    """The file, its inputs, and what onnxruntime makes of them."""
    path = model_path(package, model)
    inputs = list(model.inputs())
    return path, inputs, oracle(path, inputs, model.chaotic)


@pytest.mark.parametrize("optimise", ["none", "basic"])
@pytest.mark.parametrize(("package", "model"), MODELS)
def test_matches_onnxruntime(package: Package, model: Model, optimise: str) -> None:
    path, inputs, expected = case(package, model)
    with epkit.load(path, ["cpu"], optimise=optimise) as session:
        assert expected.error([session.run(None, feeds) for feeds in inputs]) <= expected.allowed


@pytest.mark.parametrize(("package", "model"), MODELS)
def test_matches_when_cut_into_many_pieces(package: Package, model: Model) -> None:
    path, inputs, expected = case(package, model)
    with epkit.load(path, ["null", "checkered", "cpu"], registry=registry()) as session:
        assert len(session.placement.counts()) > 1 or len(session.placement.nodes) < 5
        for _ in range(2):  # the second time with planned memory
            assert expected.error([session.run(None, feeds) for feeds in inputs]) <= expected.allowed
