"""Level 1: at least one kernel runs, and the record shows it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from epkit.errors import PlacementError

from ..case import PUBLISHED, Case
from ..evidence import run_model
from ..probes import subjects
from ..result import Result, State
from .published import matrix_place, published, tolerance

FIRST = (
    "test_relu",
    "test_neg",
    "test_add",
    "test_mul",
    "test_abs",
    "test_matmul_2d",
    "test_identity",
    "test_sigmoid",
    "test_basic_conv_with_padding",
    "test_qlinearmatmul_2D_uint8_float32",
)
"""Common operators, tried in this order; then the probes, and one published case of every operator and type."""


def cases() -> Iterator[Case]:
    """The one case of this level."""
    yield Case("first/one_kernel_runs", 1, "first", one_kernel_runs, seconds=300, oracle=PUBLISHED)


def one_kernel_runs(provider: str) -> Result:
    """Passes with the first model whose nodes all ran on the provider.

    Raises:
        AssertionError: if the first claimed one is wrong.
    """
    items = {item.name: item for item in published()}
    found, refusal = _shown(provider, [items[name] for name in FIRST])
    if found:
        return found
    claimed, _ = subjects(provider)
    for subject in claimed[:1]:
        with subject.load() as session:
            subject.run_checked(session)
            return Result(State.PASSED, f"shown by the probe {subject.probe.label}")
    one_of_each = {matrix_place(item.model): item for item in reversed(items.values())}
    found, _ = _shown(provider, [item for item in items.values() if item in one_of_each.values()])
    return found or Result(
        State.REFUSED, f"no operator was claimed in any of {len(one_of_each)} cases; {refusal}"
    )


def _shown(provider: str, items: list[Any]) -> tuple[Result | None, str]:
    """The first case that the provider runs whole, and why it refused the first."""
    refusal = ""
    for item in items:
        try:
            result = run_model(item.model, item.data_sets, provider, tolerance(item), fallback="error")
        except PlacementError as error:
            refusal = refusal or f"{item.name}: {' '.join(error.what.split())}"
            continue
        if result.state is State.PASSED:
            return Result(State.PASSED, f"shown by {item.name}"), ""
    return None, refusal
