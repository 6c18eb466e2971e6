"""Pinned nodes: where the application says by name, pattern or operator who runs what.

A pin is ``"<pattern>": "<provider>"``. ``"op:Conv"`` is an operator (``"op:com.microsoft.Gelu"`` outside the
default domain); anything else is a node's name, in which ``*``, ``?`` and ``[...]`` are wildcards. Exact names
go before patterns, patterns before operators. A saved placement (``Placement.to_dict``) pins every node.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

from ..backend.claim import Claim, Refusal
from ..backend.subgraph import operator_name
from ..errors import OptionError, Where

if TYPE_CHECKING:
    import onnx_ir as ir

FORMAT = "epkit-placement-1"
"""Of saved placements."""

RUNTIME = "runtime"
"""Who runs control flow that no provider claimed; its bodies are placed node by node."""


@dataclass(frozen=True)
class Pins:
    """Who runs what, as far as the application says.

    Attributes:
        names: providers by exact node name.
        patterns: (pattern, provider), tried in order.
        operators: providers by operator.
        whole: True for a saved placement, which must fit the model.
        why: for nodes that the runtime moved after a fault, by name: what happened.
    """

    names: Mapping[str, str] = field(default_factory=dict)
    patterns: tuple[tuple[str, str], ...] = ()
    operators: Mapping[str, str] = field(default_factory=dict)
    whole: bool = False
    why: Mapping[str, str] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.names or self.patterns or self.operators)

    def provider(self, node: ir.Node) -> str | None:
        """The name of the provider that must run a node; None: any."""
        name = str(node.name)
        if name in self.names:
            return self.names[name]
        for pattern, provider in self.patterns:
            if fnmatchcase(name, pattern):
                return provider
        return self.operators.get(operator_name(node))

    def check(self, providers: Sequence[str], nodes: Sequence[str]) -> None:
        """Refuse pins to providers that are not in the session, and a saved placement of another model.

        Raises:
            OptionError: naming both.
        """
        for provider in {*self.names.values(), *(p for _, p in self.patterns), *self.operators.values()}:
            if provider not in (*providers, RUNTIME):
                raise OptionError(
                    f"nodes are pinned to {provider!r}, which this session does not use",
                    remedy=f"name it among the providers ({', '.join(providers)}), or change the placement",
                )
        unknown = sorted(set(self.names) - set(nodes)) if self.whole else []
        if unknown:
            raise OptionError(
                f"the saved placement names {len(unknown)} node(s) that the model does not have, "
                f"such as {unknown[0]!r}",
                remedy="save it anew for this model, optimiser level and providers: epkit explain --save FILE",
            )

    def idle(self, nodes: Iterable[ir.Node]) -> tuple[str, ...]:
        """What to tell of patterns, names and operators that no node of the model answers to."""
        if not self or self.whole:
            return ()
        found = list(nodes)
        names, operators = {str(node.name) for node in found}, {operator_name(node) for node in found}
        idle = [name for name in self.names if name not in names and name not in self.why]
        idle += [pattern for pattern, _ in self.patterns if not any(fnmatchcase(n, pattern) for n in names)]
        idle += [f"op:{operator}" for operator in self.operators if operator not in operators]
        return tuple(f"the pin {pin!r} fits no node of the optimised model" for pin in idle)

    def exclude(self, claim: Claim, provider: str) -> tuple[Refusal, ...]:
        """Why a provider may not have what it claims, for each node; empty if it may."""
        from ..model.walk import nodes_inside  # and with it onnx_ir, when there are nodes

        inside = [node for owner in claim.nodes for node in nodes_inside(owner)]
        elsewhere = {
            node: pinned
            for node in (*claim.nodes, *inside)
            if (pinned := self.provider(node)) not in (None, provider)
        }
        if not elsewhere:
            return ()
        refusals = []
        for node in claim.nodes:
            reason = f"{next(iter(elsewhere)).name}, claimed with it, is pinned elsewhere"
            if node in elsewhere:
                reason = (
                    f"{self.why.get(str(node.name), 'the application pinned it')}: {elsewhere[node]} runs it"
                )
            code = "quarantined" if str(node.name) in self.why else "pinned"
            refusals.append(Refusal(node, code, reason))
        return tuple(refusals)

    def moved(self, names: Iterable[str], provider: str, why: str) -> Pins:
        """These pins, and nodes moved to another provider after a fault."""
        fresh = list(names)
        return replace(
            self,
            names={**self.names, **dict.fromkeys(fresh, provider)},
            why={**self.why, **dict.fromkeys(fresh, why)},
            whole=False,
        )


NO_PINS = Pins()
"""Nothing is pinned."""


def pins_of(placement: Mapping[str, str] | str | os.PathLike[str] | None) -> Pins:
    """Pins from a mapping, or from the file of a saved placement.

    Raises:
        OptionError: if the file is none.
    """
    if placement is None:
        return NO_PINS
    if isinstance(placement, Mapping):
        names, patterns, operators = {}, [], {}
        for pattern, provider in placement.items():
            if pattern.startswith("op:"):
                operators[pattern[3:]] = provider
            elif any(sign in pattern for sign in "*?["):
                patterns.append((pattern, provider))
            else:
                names[pattern] = provider
        return Pins(names, tuple(patterns), operators)
    return _read(Path(placement))


def _read(path: Path) -> Pins:
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        if stored["format"] != FORMAT:
            raise ValueError(f"format {stored['format']!r}")
        names = {str(node["node"]): str(node["provider"]) for node in stored["nodes"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise OptionError(
            f"{path} is no saved placement: {error}",
            where=Where(file=str(path)),
            remedy="make one: epkit explain MODEL --provider NAME --save FILE",
        ) from error
    return Pins(names, whole=True)
