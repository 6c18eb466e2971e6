"""Two oracles that know nothing of each other agree on what every generated case must give."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from epkit_conformance.case import Case
from epkit_conformance.corpus.generated import cases, model_of, trial_of
from epkit_conformance.corpus.graphs import QUANTISED
from epkit_conformance.corpus.graphs import model_of as graph_of
from epkit_conformance.fuzz.trial import widened
from epkit_conformance.probes import feeds_for, reference

CASES = [case for case in cases() if case.dtype in ("float32", "float64", "int32", "int8", "bool")]
NEWEST = {case.operator: case.version for case in CASES}
"""The reference knows the newest version of an operator only."""

REFERENCE_FAILS = {
    "GlobalLpPool": "it has none",
    "LRN": "it leaves out the last channel of each window",
    "Mean": "it does not broadcast",
    "MeanVarianceNormalization": "its function adds float32 to float64",
}


def given(case: Case, trial: Any, model: onnx.ModelProto) -> dict[str, Any]:
    names = {item.name for item in model.graph.input}
    return {f"x{i}": x for i, x in enumerate(trial.inputs) if f"x{i}" in names}


def by_reference(case: Case) -> Sequence[Any]:
    trial = trial_of(case.operator, case.version, case.dtype)
    model = widened(model_of(case.operator, case.version, trial))
    feeds = given(case, trial, model)
    return reference(model, {n: x.astype(np.float64) if x.dtype.kind == "f" else x for n, x in feeds.items()})


def by_onnxruntime(model: onnx.ModelProto, feeds: dict[str, Any]) -> Sequence[Any]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, feeds)


@pytest.mark.parametrize("operator", sorted(NEWEST.keys() - REFERENCE_FAILS.keys()))
def test_the_recipes_agree_with_the_reference(operator: str) -> None:
    chosen = [case for case in CASES if (case.operator, case.version) == (operator, NEWEST[operator])]
    for case in chosen:
        assert_agree(case, by_reference(case), 1e-5)


@pytest.mark.parametrize("operator", sorted(REFERENCE_FAILS))
def test_where_the_reference_fails_the_recipes_agree_with_onnxruntime(operator: str) -> None:
    version = max(case.version for case in CASES if case.operator == operator and case.version <= 21)
    (case,) = [c for c in CASES if (c.operator, c.version, c.dtype) == (operator, version, "float32")]
    trial = trial_of(operator, version, "float32")
    model = model_of(operator, version, trial)
    assert_agree(case, by_onnxruntime(model, given(case, trial, model)), 1e-4)


def assert_agree(case: Case, found: Sequence[Any], rtol: float) -> None:
    trial = trial_of(case.operator, case.version, case.dtype)
    assert len(found) == len(trial.want)
    for got, want in zip(found, trial.want, strict=True):
        rights = [right.astype(np.float64) for right in (want, *trial.also)]
        wide = np.asarray(got, np.float64)
        assert any(
            wide.shape == right.shape and np.allclose(wide, right, rtol=rtol, atol=1e-6, equal_nan=True)
            for right in rights
        ), f"{case.name}: {wide} and {rights[0]}"


@pytest.mark.parametrize("name", sorted(QUANTISED))
def test_onnxruntime_agrees_with_the_reference_on_quantised_graphs(name: str) -> None:
    model = graph_of(name)
    feeds = feeds_for(model, {"N": 5}, 3)
    for got, want in zip(by_onnxruntime(model, feeds), reference(model, feeds), strict=True):
        np.testing.assert_array_equal(got, want)
