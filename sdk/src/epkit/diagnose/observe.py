"""Every value of a model, as a session under given providers computes it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

import onnx_ir as ir

from ..backend.registry import Registry
from ..backend.subgraph import constant_of
from ..partition.partitions import Partitioned
from ..partition.pins import NO_PINS
from ..pipeline import Source, build, stages
from ..runtime.session import Session
from ..settings import ProviderChoice, Settings
from ..trace import Recorder


@dataclass(frozen=True)
class Observed:
    """A model as the providers were given it, and how they share it.

    Attributes:
        partitioned: the optimised model and its partitions.
        settings: what it was loaded with.
        registry: the plugins.
    """

    partitioned: Partitioned
    settings: Settings
    registry: Registry

    @property
    def model(self) -> ir.Model:
        """The optimised model."""
        return self.partitioned.model

    def open(self, model: Any, providers: tuple[ProviderChoice, ...]) -> Session:
        """A session for a part of this model (or all of it), as it is."""
        settings = replace(
            self.settings, providers=providers, optimise="none", fix={}, cache=None, pins=NO_PINS
        )
        recorder = Recorder()
        return Session(build(model, settings, self.registry, recorder), self.registry, recorder)

    @property
    def named(self) -> tuple[ProviderChoice, ...]:
        """The providers under test."""
        return self.settings.providers

    @property
    def reference(self) -> tuple[ProviderChoice, ...]:
        """The fallback alone, with which they are compared."""
        return (self.settings.fallback,)


def observe(source: Source, settings: Settings, registry: Registry) -> Observed:
    """Load a model up to its partitions."""
    with closing(stages(source, settings, registry)) as steps:
        partitioned = next(value for name, value in steps if name == "partition")
    assert isinstance(partitioned, Partitioned)
    return Observed(partitioned, settings, registry)


def with_all_outputs(model: ir.Model) -> ir.Model:
    """A copy whose main graph gives out every value that it computes, after its own outputs."""
    copy = model.clone()
    given = {value for value in copy.graph.outputs if value is not None}
    for node in copy.graph:
        for value in node.outputs:
            if value.name and value not in given and value.type is not None:
                given.add(value)
                copy.graph.outputs.append(value)
    return copy


def all_values(
    observed: Observed, providers: tuple[ProviderChoice, ...], feeds: Mapping[str, Any]
) -> dict[str, Any]:
    """All values of the main graph by name, inputs included."""
    with observed.open(with_all_outputs(observed.model), providers) as session:
        return {**feeds, **session.run(None, feeds)}


def is_constant(value: ir.Value) -> bool:
    """True for a weight."""
    return constant_of(value) is not None
