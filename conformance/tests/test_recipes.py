"""The generated corpus: every deterministic operator of the standard is in it, with every type of its schema."""

from __future__ import annotations

import numpy as np
import onnx.shape_inference
import pytest

from epkit_conformance.budgets import BUDGETS
from epkit_conformance.corpus.generated import OPEN, cases, model_of, standard, trial_of, types_of
from epkit_conformance.recipes import RECIPES, WITHOUT

CASES = list(cases())


def test_every_deterministic_operator_has_a_recipe() -> None:
    names = {schema.name for schema in standard()}
    assert set(RECIPES) | set(WITHOUT) == names
    assert not set(RECIPES) & set(WITHOUT)
    assert all(WITHOUT.values())


def test_every_version_and_type_of_a_schema_has_a_case() -> None:
    wanted = {(s.name, s.since_version, dtype) for s in standard() for dtype in types_of(s)}
    found = {(case.operator, case.version, case.dtype) for case in CASES}
    assert found == {place for place in wanted if place[0] not in WITHOUT}
    assert not [schema.name for schema in standard() if not types_of(schema)]
    assert set(OPEN) <= set(RECIPES) <= set(BUDGETS)


@pytest.mark.parametrize("operator", sorted(RECIPES))
def test_models_are_valid_and_the_same_each_time(operator: str) -> None:
    chosen = [case for case in CASES if case.operator == operator]
    for case in {case.version: case for case in chosen}.values():
        place = (case.operator, case.version, case.dtype)
        first, again = trial_of(*place), trial_of(*place)
        model = model_of(operator, case.version, first)
        assert model == model_of(operator, case.version, again)
        for one, other in zip(first.inputs, again.inputs, strict=True):
            if isinstance(one, np.ndarray):
                assert one.tobytes() == other.tobytes() or one.dtype == object
        if operator != "MeanVarianceNormalization":  # its function has constants in float32 alone
            onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
