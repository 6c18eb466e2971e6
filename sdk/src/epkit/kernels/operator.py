"""How a portable operator is declared and found.

A portable operator is a Python function over an array namespace ``xp`` (NumPy, CuPy, torch through
array-api-compat, ...). Its positional parameters after ``xp`` are the ONNX inputs (``None`` where an
optional one is absent); its keyword-only parameters are the ONNX attributes with the defaults of the
standard. It returns one array, or a tuple with one entry per output.

    @op("LeakyRelu", since=1)
    def leaky_relu(xp, x, *, alpha=0.01):
        return xp.where(x < 0, x * alpha, x)

``since`` is the first opset that this meaning holds for; it holds until the next declaration of the
same name. A function that names the keyword ``n_outputs`` or ``opset`` is told how many outputs the
node has, or which opset version it is read under.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

RESERVED = ("n_outputs", "opset")
"""Keyword parameters that are filled by the caller, not by an attribute."""

Implementation = Callable[..., Any]


@dataclass(frozen=True)
class Operator:
    """One meaning of one operator, from opset ``since`` on."""

    name: str
    since: int
    domain: str
    function: Implementation
    attributes: frozenset[str] = field(repr=False)
    wants: frozenset[str] = field(repr=False)

    def __call__(
        self,
        xp: Any,
        inputs: Sequence[Any],
        attributes: Mapping[str, Any],
        *,
        n_outputs: int,
        opset: int,
    ) -> tuple[Any, ...]:
        """Compute the outputs.

        Attributes that the function does not name are left out: the model checker has already refused
        those that the schema does not know.

        Raises:
            ValueError: (or another built-in exception) on inputs that the operator is not defined for.
        """
        given = {key: value for key, value in attributes.items() if key in self.attributes}
        if self.wants:
            reserved = {"n_outputs": n_outputs, "opset": opset}
            given.update({key: reserved[key] for key in self.wants})
        result = self.function(xp, *inputs, **given)
        return result if isinstance(result, tuple) else (result,)


class OperatorTable:
    """Operators by domain and name, each with its versions in rising order."""

    def __init__(self) -> None:
        self._versions: dict[tuple[str, str], list[Operator]] = {}

    def add(self, operator: Operator) -> None:
        """Add one operator.

        Raises:
            ValueError: if the same domain, name and version is declared twice.
        """
        versions = self._versions.setdefault((operator.domain, operator.name), [])
        if any(known.since == operator.since for known in versions):
            raise ValueError(
                f"{operator.domain or 'ai.onnx'}.{operator.name} is declared twice for opset {operator.since}"
            )
        versions.append(operator)
        versions.sort(key=lambda known: known.since)

    def find(self, domain: str, name: str, opset: int) -> Operator | None:
        """The meaning of ``domain.name`` under ``opset``, or None if it is not declared."""
        candidates = [v for v in self._versions.get((domain, name), ()) if v.since <= opset]
        return candidates[-1] if candidates else None

    def __iter__(self):  # type: ignore[no-untyped-def]
        for versions in self._versions.values():
            yield from versions

    def __len__(self) -> int:
        return sum(len(versions) for versions in self._versions.values())


DECLARED: list[Operator] = []
"""What the ``@op`` decorators of this package collected; ``kernels.table()`` turns it into a table."""


def make_operator(
    name: str, since: int, domain: str, function: Implementation, attributes: Collection[str] = ()
) -> Operator:
    """An Operator whose attributes are read from the function's signature.

    ``attributes`` names those of its schema, which go before a reserved keyword of the same name. NaN, infinity
    and overflow are results of operators, and no warnings.
    """
    keywords = {
        p.name
        for p in inspect.signature(function).parameters.values()
        if p.kind is inspect.Parameter.KEYWORD_ONLY
    }
    wants = frozenset(keywords & set(RESERVED) - set(attributes))
    quiet = np.errstate(all="ignore")(function)
    return Operator(name, since, domain, quiet, frozenset(keywords - wants), wants)


def op(
    name: str, *, since: int | Sequence[int] = 1, domain: str = ""
) -> Callable[[Implementation], Implementation]:
    """Declare a portable operator; see the module's docstring for the calling convention."""

    def declare(function: Implementation) -> Implementation:
        for version in (since,) if isinstance(since, int) else since:
            DECLARED.append(make_operator(name, version, domain, function))
        return function

    return declare
