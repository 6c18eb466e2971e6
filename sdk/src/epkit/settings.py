"""What a load was asked for."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from .backend.custom import CustomOperator
from .model.limits import Limits
from .partition.pins import NO_PINS, Pins

POLICIES = ("priority", "cost")

ProviderChoice = str | tuple[str, Mapping[str, object]]


@dataclass(frozen=True)
class Settings:
    """What a load was asked for.

    Attributes:
        providers: names, or (name, options), in order of preference.
        fallback: the provider that takes what is left, or ``"error"`` to forbid that.
        optimise: the optimiser's level.
        fix: values for symbolic dimensions, by name.
        operators: custom operators of this load only.
        limits: what an untrusted model may ask for.
        base_dir: the folder of external data, if the model has no path.
        cache: a folder for compiled programs, of providers that save them.
        policy: who gets a node that several claim: ``"priority"`` or ``"cost"``.
        pins: nodes that the application placed itself.
    """

    providers: tuple[ProviderChoice, ...]
    fallback: str
    optimise: str = "all"
    fix: Mapping[str, int] = field(default_factory=dict)
    operators: tuple[CustomOperator, ...] = ()
    limits: Limits = field(default_factory=Limits)
    base_dir: str | os.PathLike[str] | None = None
    cache: str | os.PathLike[str] | None = None
    policy: str = "priority"
    pins: Pins = NO_PINS


def may_be_known(settings: Settings) -> bool:
    """True if model files may be known by what the file system says of them: external data lie where they always do."""
    return settings.cache is not None and settings.base_dir is None
