"""Every real model computes what onnxruntime computes, whatever the optimiser's level and the providers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import pytest

import epkit

from .catalogue import CATALOGUE, Model, Package
from .checkered import registry
from .compare import largest_error, oracle
from .fetch import model_path
from .inputs import Feeds
from .signals import Array

pytestmark = pytest.mark.models

MODELS = [pytest.param(p, m, id=f"{p.name}-{m.stem}") for p in CATALOGUE for m in p.models]


@cache
def _case(package: Package, model: Model) -> tuple[Path, Sequence[Feeds], Sequence[Mapping[str, Array]]]:
    """The file, its inputs, and what onnxruntime makes of them."""
    path = model_path(package, model)
    inputs = list(model.inputs())
    return path, inputs, oracle(path, inputs)[0]


@pytest.mark.parametrize("optimise", ["none", "basic"])
@pytest.mark.parametrize(("package", "model"), MODELS)
def test_matches_onnxruntime(package: Package, model: Model, optimise: str) -> None:
    path, inputs, expected = _case(package, model)
    with epkit.load(path, ["cpu"], optimise=optimise) as session:
        for feeds, wanted in zip(inputs, expected, strict=True):
            assert largest_error(session.run(None, feeds), wanted) <= model.tolerance


@pytest.mark.parametrize(("package", "model"), MODELS)
def test_matches_when_cut_into_many_pieces(package: Package, model: Model) -> None:
    path, inputs, expected = _case(package, model)
    with epkit.load(path, ["null", "checkered", "cpu"], registry=registry()) as session:
        assert len(session.placement.counts()) > 1 or len(session.placement.nodes) < 5
        for feeds, wanted in [*zip(inputs, expected, strict=True)] * 2:  # the second time with planned memory
            assert largest_error(session.run(None, feeds), wanted) <= model.tolerance
