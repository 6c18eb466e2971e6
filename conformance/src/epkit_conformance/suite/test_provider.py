"""Every case as a pytest test, with the results of ``epkit conformance``."""

from __future__ import annotations

import pytest

from epkit_conformance.case import Case
from epkit_conformance.catalogue import all_cases
from epkit_conformance.plugin import tell
from epkit_conformance.record import Entry


@pytest.mark.parametrize("case", all_cases(), ids=lambda case: f"level{case.level}/{case.name}")
def test_case(case: Case, settled: Entry | None) -> None:
    tell(settled)
