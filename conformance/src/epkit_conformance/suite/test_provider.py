"""Every case as a pytest test. Here cases run in pytest's own process; ``epkit conformance`` isolates them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from epkit_conformance.case import Case
from epkit_conformance.catalogue import all_cases
from epkit_conformance.result import Result
from epkit_conformance.runner import run_here


@pytest.mark.parametrize("case", all_cases(), ids=lambda case: f"level{case.level}/{case.name}")
def test_case(case: Case, provider: str, settle: Callable[[Result], None]) -> None:
    settle(run_here(case, provider))
