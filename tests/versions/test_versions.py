"""Every version of every operator of the standard runs on the CPU provider, and agrees with an oracle."""

from __future__ import annotations

import onnx
import pytest

import epkit

from . import families as families
from .case import all_schemas, cases_of, is_removed, label
from .run import check
from .table import PAGE, page, removed_model

SCHEMAS = {label(schema): schema for schema in all_schemas()}


def test_the_standard_has_659_schemas_and_each_has_a_case() -> None:
    assert len(SCHEMAS) == len(all_schemas()) >= 659
    without = [name for name, schema in SCHEMAS.items() if not is_removed(schema) and not cases_of(schema)]
    assert not without


@pytest.mark.parametrize("name", [name for name, schema in SCHEMAS.items() if not is_removed(schema)])
def test_version(name: str) -> None:
    for case in cases_of(SCHEMAS[name]):
        assert check(case, SCHEMAS[name]), "no oracle knows the result"


@pytest.mark.parametrize("name", [name for name, schema in SCHEMAS.items() if is_removed(schema)])
def test_a_removed_operator_is_refused_by_name(name: str) -> None:
    with pytest.raises(epkit.EpkitError) as error:
        epkit.load(removed_model(SCHEMAS[name]))
    assert SCHEMAS[name].name in str(error.value)
    assert error.value.where.node


def test_the_table_in_the_documentation_is_true() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run: python -m tests.versions.table"


def test_the_table_knows_how_each_runs() -> None:
    assert "| none |" not in page()
    assert onnx.defs.onnx_opset_version() >= 20
