"""Every version of every operator of the standard runs on the CPU provider, and agrees with an oracle."""

from __future__ import annotations

import pytest

import epkit

from . import families as families
from .case import all_schemas, cases_of, is_removed, label
from .table import PAGE, oracles, page, recorded, removed_model

SCHEMAS = {label(schema): schema for schema in all_schemas()}
REMOVED = [name for name, schema in SCHEMAS.items() if is_removed(schema)]
RECORDED = recorded()


def test_each_of_the_659_schemas_has_a_case() -> None:
    assert len(SCHEMAS) >= 659
    without = [name for name, schema in SCHEMAS.items() if not is_removed(schema) and not cases_of(schema)]
    assert not without


@pytest.mark.parametrize("name", [name for name in SCHEMAS if name not in REMOVED])
def test_version(name: str) -> None:
    found = oracles(SCHEMAS[name])
    assert found == RECORDED.get(name), "another oracle judged than docs/operators.md says: write it anew"


@pytest.mark.parametrize("name", REMOVED)
def test_a_removed_operator_is_refused_by_name(name: str) -> None:
    with pytest.raises(epkit.EpkitError) as error:
        epkit.load(removed_model(SCHEMAS[name]))
    assert SCHEMAS[name].name in str(error.value)
    assert error.value.where.node


def test_the_table_in_the_documentation_is_true() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(RECORDED), "run: python -m tests.versions.table"


def test_every_schema_is_judged_and_none_has_no_way_to_run() -> None:
    text = page(RECORDED)
    assert f"{len(SCHEMAS)} of {len(SCHEMAS)} schemas" in text
    assert "| none |" not in text
