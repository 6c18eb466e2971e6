"""Measuring errors in units of the last place, and the table of budgets."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from epkit_conformance.budgets import BUDGETS, budget_for, page, table, ulp_error
from epkit_conformance.catalogue import all_cases
from epkit_conformance.corpus.dynamic import made_symbolic, resized
from epkit_conformance.corpus.published import published
from epkit_conformance.meanings import BINARY, UNARY
from epkit_conformance.recipes import RECIPES


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float32, np.float64])
def test_the_neighbour_is_one_unit_away(dtype: type) -> None:
    info = ml_dtypes.finfo(dtype)
    for exponent in (-3, 0, 5):
        exact = np.array([2.0**exponent], np.longdouble)
        for steps in (0, 1, 3):
            near = np.array([2.0**exponent * (1 + steps * float(info.eps))], dtype)
            assert ulp_error(near, exact).tolist() == [steps]


def test_what_is_no_number_must_be_the_same() -> None:
    got = np.array([np.nan, np.inf, -np.inf, 1, np.nan, 0], np.float32)
    want = np.array([np.nan, np.inf, np.inf, np.nan, 1, np.inf])
    assert ulp_error(got, want).tolist() == [0, 0, np.inf, np.inf, np.inf, np.inf]


def test_a_result_that_overflows_may_be_infinite() -> None:
    assert ulp_error(np.array([np.inf], np.float16), np.array([1e6])).tolist() == [0]
    assert ulp_error(np.array([65504], np.float16), np.array([65504.0])).tolist() == [0]


def test_errors_of_sums_are_measured_at_the_size_of_their_terms() -> None:
    got, want = np.array([2.0**-20], np.float32), np.array([0.0])
    assert ulp_error(got, want, np.array([1.0])).tolist() == [8]


def test_every_recipe_has_a_budget_with_a_source() -> None:
    assert set(RECIPES) | set(UNARY) | set(BINARY) <= set(BUDGETS)
    assert all(all(row) for row in table())


def test_the_documentation_has_the_table_as_it_is() -> None:
    path = Path(__file__).parents[2] / "docs" / "conformance-budgets.md"
    assert path.read_text(encoding="utf-8") == page(), f"python -m epkit_conformance.budgets > {path}"


def test_figures_by_element_type_are_those_of_their_source() -> None:
    figures = {dtype: budget_for("Div", dtype).ulp for dtype in ("float64", "float32", "float16")}
    assert figures == {"float64": 0.5, "float32": 2.5, "float16": 2}
    assert [budget_for("Pow", dtype).ulp for dtype in ("float64", "float32", "float16")] == [16, 16, 4]
    assert budget_for("Add", "bfloat16").ulp == budget_for("Add", "float64").ulp == 0.5


def test_integers_have_no_budget() -> None:
    assert all(budget_for(name, "int32").allowed(100) == 0 for name in BUDGETS)


def test_most_of_the_published_cases_become_dynamic() -> None:
    names = {case.name for case in all_cases()}
    fixed = [
        item for item in published() if f"dynamic/{item.name.removeprefix('test_')}/symbolic" not in names
    ]
    assert len(fixed) < 0.1 * len(published())
    relu = made_symbolic(next(item.model for item in published() if item.name == "test_relu"))
    assert [dim.dim_param for dim in relu.graph.input[0].type.tensor_type.shape.dim] == ["x_0", "x_1", "x_2"]


def test_only_inputs_of_the_first_ones_size_are_resized() -> None:
    batch, bias, scalar = np.arange(6).reshape(2, 3), np.arange(3), np.array(1)
    for rows in (0, 1, 5):
        shapes = [array.shape for array in resized([batch, batch, bias, scalar], rows)]
        assert shapes == [(rows, 3), (rows, 3), (3,), ()]


def test_names_of_cases_are_unique_and_levels_are_all_there() -> None:
    cases = all_cases()
    assert len({case.name for case in cases}) == len(cases)
    assert {case.level for case in cases} == set(range(8))
