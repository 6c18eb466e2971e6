"""Level 1: at least one kernel runs, and the record shows it."""

from __future__ import annotations

from epkit_conformance.evidence import State, run_case
from epkit_conformance.published import published_cases

FIRST = (
    "relu",
    "neg",
    "add",
    "mul",
    "abs",
    "matmul_2d",
    "identity",
    "sigmoid",
    "conv_with_strides_padding",
    "cast_FLOAT_to_FLOAT16",
)
"""Common operators, tried in this order until one is claimed."""


def test_one_kernel_runs(provider: str) -> None:
    cases = {case.name.removeprefix("test_"): case for case in published_cases()}
    refusals = []
    for name in FIRST:
        result = run_case(cases[name], provider)
        if result.state is State.PASSED:
            return
        assert result.state is not State.FAILED, f"{name}: {result.detail}"
        refusals.append(f"{name}: {result.state.value}: {result.detail}")
    raise AssertionError(
        "no common operator was claimed; the next step is one kernel\n" + "\n".join(refusals)
    )
