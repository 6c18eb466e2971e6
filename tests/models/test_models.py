"""Every real model computes what onnxruntime computes, whatever the optimiser's level and the providers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pytest

import epkit

from .catalogue import CATALOGUE, Model, Package
from .checkered import registry
from .compare import Expected, oracle
from .fetch import model_path
from .forced import GIVEN, codes_of, cut_at_codes, expected_of
from .inputs import Feeds

pytestmark = pytest.mark.models

MODELS = [pytest.param(p, m, id=f"{p.name}-{m.stem}") for p in CATALOGUE for m in p.models]
CHAOTIC = [pytest.param(p, m, id=m.stem) for p in CATALOGUE for m in p.models if m.chaotic]


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


@pytest.mark.parametrize("optimise", ["none", "basic", "extended", "all"])
@pytest.mark.parametrize(("package", "model"), CHAOTIC)
def test_each_part_of_a_chaotic_model_matches(package: Package, model: Model, optimise: str) -> None:
    """Given the codes before it, each part gives the same codes, but for two in a million that lie on an edge."""
    path, inputs, _ = case(package, model)
    cut = cut_at_codes(path)
    feeds = {**inputs[0], **{GIVEN + name: codes for name, codes in codes_of(path, inputs[0]).items()}}
    with epkit.load(cut, ["cpu"], optimise=optimise) as session:
        found = session.run(None, feeds)
    wanted = expected_of(cut, feeds)
    codes = [name for name, array in wanted.items() if array.dtype.kind in "iu"]
    moved = np.concatenate([np.ravel(found[n].astype(np.int16) - wanted[n].astype(np.int16)) for n in codes])
    assert moved.size > 1e7
    assert np.abs(moved).max() <= 1
    assert np.abs(moved).mean(dtype=np.float64) <= 2e-6
    for name in wanted.keys() - set(codes):
        np.testing.assert_allclose(found[name], wanted[name], rtol=1e-3)
