"""For all tests: a module's random numbers are the same whichever tests ran before, and in every run.

`pytest -m hypothesis --hypothesis-profile=fuzz` draws others in each run (tox -e fuzz).
"""

from __future__ import annotations

import copy
import sys
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import settings

settings.register_profile("repeatable", derandomize=True, database=None)
settings.register_profile("fuzz", derandomize=False, database=None, print_blob=True)
settings.load_profile("repeatable")

_FIRST: dict[int, Any] = {}


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Set the generators of a test's module, and of those beside it that it uses, back to how they were at first."""
    if isinstance(item, pytest.Function):
        used = {getattr(value, "__module__", None) for value in vars(item.module).values()}
        beside = (sys.modules.get(name) for name in used if isinstance(name, str) and "." not in name)
        for module in (item.module, *filter(None, beside)):
            _reset(module)


def _reset(module: ModuleType) -> None:
    for each in vars(module).values():
        if isinstance(each, np.random.Generator):
            state = _FIRST.setdefault(id(each), copy.deepcopy(each.bit_generator.state))
            each.bit_generator.state = copy.deepcopy(state)
