"""Which rules are worth trying for the providers at hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from .fuse import Fusion
from .rule import Operator, Rule

Knows = Callable[[str, str], bool]
"""A provider's ``knows``: whether it runs an operator (domain, name)."""


class Wanted:
    """Says of a rule whether it is worth trying; providers are asked when somebody asks for it.

    Wanted are fusions whose operator some provider knows, those that make parts of these, and what serves them.
    A mere change of name is wanted by a provider that knows the new name and not the old one. Rules that are no
    fusions are wanted always.

    Args:
        rules: of one phase.
        providers: None: everything is wanted.
    """

    def __init__(self, rules: Sequence[Rule], providers: Sequence[Knows] | None) -> None:
        self._rules, self._providers = rules, providers
        self._found: dict[str, bool] = {}
        self._known: dict[tuple[int, Operator], bool] = {}

    def __call__(self, rule: Rule) -> bool:
        if self._providers is None:
            return True
        if rule.name not in self._found:
            self._found[rule.name] = self._is_wanted(rule)
        return self._found[rule.name]

    def _is_wanted(self, rule: Rule) -> bool:
        if isinstance(rule, Fusion):
            return self._leads_on(rule)
        served = [each for each in self._rules if each.name in rule.serves and isinstance(each, Fusion)]
        return not rule.serves or any(map(self, served))

    def _leads_on(self, fusion: Fusion) -> bool:
        """Whether the operator is known, or part of what becomes one that is."""
        pending, seen = [fusion], {fusion.name}
        while pending:
            each = pending.pop()
            if self._is_known(each):
                return True
            for other in self._rules:
                if isinstance(other, Fusion) and each.target in other.operators and other.name not in seen:
                    seen.add(other.name)
                    pending.append(other)
        return False

    def _is_known(self, fusion: Fusion) -> bool:
        for index in range(len(self._providers or ())):
            renamed = fusion.renames
            if self._knows(index, fusion.target) and not (renamed and self._knows(index, renamed)):
                return True
        return False

    def _knows(self, index: int, operator: Operator) -> bool:
        key = index, operator
        if key not in self._known:
            assert self._providers is not None
            self._known[key] = self._providers[index](*operator)
        return self._known[key]
