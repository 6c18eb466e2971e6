"""The cases that ONNX publishes for its operators (onnx.backend.test, kind "node")."""

from __future__ import annotations

import warnings
from functools import cache

from .evidence import Case

RANDOM = ("bernoulli", "multinomial", "random")
"""Operators whose outputs the standard leaves to chance: dtype and shape are compared."""


@cache
def published_cases() -> tuple[Case, ...]:
    """All published operator cases."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the cases overflow on purpose while they are generated
        from onnx.backend.test.case.node import collect_testcases

        cases = collect_testcases(None)
    return tuple(
        Case(
            case.name,
            case.model,
            case.data_sets,
            case.rtol,
            case.atol,
            any(word in case.name for word in RANDOM),
        )
        for case in cases
        if case.model is not None and case.data_sets is not None
    )
