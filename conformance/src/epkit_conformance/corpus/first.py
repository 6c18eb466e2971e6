"""Level 1: at least one kernel runs, and the record shows it."""

from __future__ import annotations

from collections.abc import Iterator

from ..case import Case
from ..evidence import run_model
from ..result import Result, State
from .published import published, tolerance

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
"""Common operators, tried in this order until one is claimed; if none is, every published case is."""


def cases() -> Iterator[Case]:
    """The one case of this level."""
    yield Case("first/one_kernel_runs", 1, "first", one_kernel_runs, seconds=300)


def one_kernel_runs(provider: str) -> Result:
    """Passes with the first case whose nodes all ran on the provider.

    Raises:
        AssertionError: if the first claimed one is wrong.
    """
    items = {item.name: item for item in published()}
    order = [items[name] for name in FIRST] + [item for item in items.values() if item.name not in FIRST]
    refusal = Result(State.REFUSED)
    for item in order:
        result = run_model(item.model, item.data_sets, provider, tolerance(item))
        if result.state is State.PASSED:
            return Result(State.PASSED, f"shown by {item.name}")
        refusal = refusal if refusal.detail else Result(State.REFUSED, f"{item.name}: {result.detail}")
    return Result(State.REFUSED, f"no published operator case was claimed; {refusal.detail}")
