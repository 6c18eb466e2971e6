"""Two oracles that know nothing of each other agree on what the generated cases must give."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from epkit_conformance.case import Case
from epkit_conformance.catalogue import all_cases
from epkit_conformance.corpus.generated import cases, feeds_of, model_of, trial_of
from epkit_conformance.corpus.graphs import QUANTISED
from epkit_conformance.corpus.graphs import model_of as graph_of
from epkit_conformance.probes import feeds_for, reference
from epkit_conformance.second_oracles import agrees, by_onnxruntime, make_table, witness
from epkit_conformance.witnesses import table, witness_of

CASES = list(cases())
OPERATORS = sorted({case.operator for case in CASES})

DISPUTED = {
    "LRN": "onnx.reference leaves out the last channel of each window; onnxruntime has it in float32 alone",
    "Optional": "onnx.reference puts a tensor into a list",
    "Resize": "onnx.reference drops the imaginary part",
    "StringNormalizer": "onnx.reference drops accents and empty texts",
}
"""Operators of which a case has no second oracle, because one that has an answer is wrong."""


def asked(case: Case) -> tuple[str, list[str]]:
    """Who agrees with a case's recipe, and who does not."""
    trial = trial_of(case.operator, case.version, case.dtype)
    model = model_of(case.operator, case.version, trial)
    return witness(case, trial, model, feeds_of(model, trial))


@pytest.mark.parametrize("operator", OPERATORS)
def test_the_second_oracle_of_each_version_agrees(operator: str) -> None:
    of_each = {case.version: case for case in CASES if case.operator == operator}
    for case in of_each.values():
        name, others = asked(case)
        assert name == witness_of(operator, case.version, case.dtype), f"{case.name}: {others}"
        assert name or not others or operator in DISPUTED, f"{case.name}: {others}"


@pytest.mark.slow
def test_the_table_is_as_it_would_be_made_now() -> None:
    made, disputed = make_table()
    assert made == table()
    assert {line.split("/")[1] for line in disputed} == set(DISPUTED)


def test_nearly_all_cases_have_two_oracles_and_every_result_has_one() -> None:
    alone = [case.name for case in CASES if ";" not in case.oracle]
    assert len(alone) < 0.02 * len(CASES), alone
    computed = [case for case in all_cases() if case.group not in ("describe", "device", "streams")]
    assert {case.name for case in computed if not case.oracle} == {"contract/answers_ill_typed_options"}


def test_a_recipe_that_is_wrong_finds_no_second_oracle() -> None:
    for operator, version, dtype in (
        ("Add", 14, "float32"),
        ("Gather", 13, "int8"),
        ("SequenceAt", 11, "string"),
    ):
        trial = trial_of(operator, version, dtype)
        model = model_of(operator, version, trial)
        found = by_onnxruntime(model, feeds_of(model, trial))
        assert agrees(found, trial, 1e-5)
        found[0] = found[0][::-1]
        assert not agrees(found, trial, 1e-5)


@pytest.mark.parametrize("name", sorted(QUANTISED))
def test_onnxruntime_agrees_with_the_reference_on_quantised_graphs(name: str) -> None:
    model = graph_of(name)
    feeds: dict[str, Any] = feeds_for(model, {"N": 5}, 3)
    for got, want in zip(by_onnxruntime(model, feeds), reference(model, feeds), strict=True):
        np.testing.assert_array_equal(got, want)
