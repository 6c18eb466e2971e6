"""All cases of the suite, by level."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache

from .case import Case
from .corpus import (
    artifacts,
    capture,
    concurrency,
    contract,
    describe,
    device,
    dynamic,
    faults,
    first,
    generated,
    graphs,
    models,
    packaged,
    pairs,
    published,
    special,
)

SOURCES: tuple[Callable[[], Iterator[Case]], ...] = (
    describe.cases,
    first.cases,
    published.cases,
    packaged.cases,
    dynamic.cases,
    generated.cases,
    special.cases,
    graphs.cases,
    contract.cases,
    faults.cases,
    pairs.cases,
    models.cases,
    device.cases,
    concurrency.cases,
    artifacts.cases,
    capture.cases,
)


@cache
def all_cases() -> tuple[Case, ...]:
    """Every case, levels in rising order.

    Raises:
        ValueError: if two cases have the same name.
    """
    found = [case for source in SOURCES for case in source()]
    names: set[str] = set()
    for case in found:
        if case.name in names:
            raise ValueError(f"two cases are named {case.name}")
        names.add(case.name)
    return tuple(sorted(found, key=lambda case: case.level))
