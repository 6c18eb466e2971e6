"""Level 2: operators, by the cases that ONNX publishes."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from epkit_conformance.evidence import Case, Result, run_case
from epkit_conformance.published import published_cases


@pytest.mark.parametrize("case", published_cases(), ids=lambda case: case.name.removeprefix("test_"))
def test_operator(case: Case, provider: str, settle: Callable[[Result], None]) -> None:
    settle(run_case(case, provider))
