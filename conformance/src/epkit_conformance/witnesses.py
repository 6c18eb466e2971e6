"""Second oracles: who else says what a generated case must give, as ``second_oracles.py`` wrote it down."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files

Table = Mapping[str, Mapping[str, Mapping[str, str]]]
"""Operator -> version -> who -> the element types on which it agrees, as words."""


@cache
def table() -> Table:
    """What was written down."""
    text = (files(__package__) / "witnesses.json").read_text(encoding="utf-8")
    found: Table = json.loads(text)
    return found


def witness_of(operator: str, version: int, dtype: str) -> str:
    """The second oracle of a generated case; "" if there is none."""
    known = table().get(operator, {}).get(str(version), {})
    return next((name for name, types in known.items() if dtype in types.split()), "")
