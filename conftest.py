"""For all tests: a module's random numbers are the same whichever tests ran before."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

_FIRST: dict[int, Any] = {}


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Set the generators that a test's module made at its import back to how they were then."""
    if not isinstance(item, pytest.Function):
        return
    for each in vars(item.module).values():
        if isinstance(each, np.random.Generator):
            state = _FIRST.setdefault(id(each), copy.deepcopy(each.bit_generator.state))
            each.bit_generator.state = copy.deepcopy(state)
