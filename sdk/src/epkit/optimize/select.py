"""Which fusions are worth trying for the providers at hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from .fuse import Fusion
from .rule import Operator

Knows = Callable[[str, str], bool]
"""A provider's ``knows``: whether it runs an operator (domain, name)."""


def wanted(fusions: Sequence[Fusion], providers: Sequence[Knows]) -> tuple[Fusion, ...]:
    """The fusions whose operator some provider knows, and those that make parts of these.

    A mere change of name is wanted by a provider that knows the new name and not the old one.
    """
    known: dict[tuple[int, Operator], bool] = {}

    def knows(index: int, operator: Operator) -> bool:
        key = index, operator
        if key not in known:
            known[key] = providers[index](*operator)
        return known[key]

    chosen = {
        each.name
        for each in fusions
        for index in range(len(providers))
        if knows(index, each.target) and not (each.renames and knows(index, each.renames))
    }
    while True:
        parts = {operator for each in fusions if each.name in chosen for operator in each.operators}
        more = {each.name for each in fusions if each.target in parts} - chosen
        if not more:
            return tuple(each for each in fusions if each.name in chosen)
        chosen |= more
