"""A case: something that a provider must do, by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .result import Result

PUBLISHED = "published with onnx"
REFERENCE = "onnx.reference"
CLOSED_FORM = "closed form"
"""The oracles. Of two, each computes by itself, and both have been seen to agree."""


@dataclass(frozen=True)
class Case:
    """One case of the suite.

    Attributes:
        name: unique and stable, such as ``"operators/Relu/14/float32/special"``.
        level: 0 to 7.
        group: the part of the level that the report lists it under.
        run: takes the provider's name, returns the result; raises AssertionError for a wrong answer.
        operator, version, dtype: place in the operator matrix, where the case has one.
        seconds: what a slow device may need; the runner's limit for this case if larger than its own.
        oracle: who says what must come out; "" where nothing is computed.
    """

    name: str
    level: int
    group: str
    run: Callable[[str], Result]
    operator: str = ""
    version: int = 0
    dtype: str = ""
    seconds: float = 0.0
    oracle: str = ""
