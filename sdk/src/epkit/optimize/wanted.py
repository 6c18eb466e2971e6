"""Which rules are worth trying for the providers at hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from .fuse import Fusion
from .rule import Operator, Rule

Knows = Callable[[str, str], bool]
"""A provider's ``knows``: whether it runs an operator (domain, name)."""


def wanted(rules: Sequence[Rule], providers: Sequence[Knows]) -> tuple[Rule, ...]:
    """The fusions whose operator some provider knows, those that make parts of these, and what serves them.

    A mere change of name is wanted by a provider that knows the new name and not the old one. Rules that are no
    fusions are wanted always.
    """
    fusions = [each for each in rules if isinstance(each, Fusion)]
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
            return tuple(each for each in rules if _is_wanted(each, chosen))
        chosen |= more


def _is_wanted(each: Rule, chosen: set[str]) -> bool:
    if isinstance(each, Fusion):
        return each.name in chosen
    return not each.serves or not chosen.isdisjoint(each.serves)
