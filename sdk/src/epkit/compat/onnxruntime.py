"""``InferenceSession`` with onnxruntime's conventions for names and values.

Differences that are kept on purpose: an unknown provider is an error, not a warning; so is an unknown
provider option.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..aliases import DEFAULT_FALLBACK, execution_provider_name
from ..api import load
from ..errors import InputError, OptionError, Where
from ..runtime.options import RunOptions
from ..runtime.profile import Profile
from ..runtime.value_info import ValueInfo
from ..settings import ProviderChoice

_LEVELS = {0: "none", 1: "basic", 2: "extended", 3: "all", 99: "all"}


@dataclass
class SessionOptions:
    """The options that have a meaning here.

    Attributes:
        graph_optimization_level: 0 none, 1 basic, 2 extended, 99 all; or the names.
        enable_profiling: ``end_profiling`` then writes a Chrome trace and returns its path.
        profile_file_prefix: the start of that file's name.
        free_dimension_overrides: values for symbolic dimensions.
    """

    graph_optimization_level: int | str = "all"
    enable_profiling: bool = False
    profile_file_prefix: str = "epkit_profile"
    free_dimension_overrides: dict[str, int] = field(default_factory=dict)

    def add_free_dimension_override_by_name(self, name: str, value: int) -> None:
        """Fix a symbolic dimension."""
        self.free_dimension_overrides[name] = value

    def level(self) -> str:
        """The optimisation level by our name."""
        level = self.graph_optimization_level
        if isinstance(level, str):
            return level
        number = int(level)
        if number not in _LEVELS:
            raise OptionError(
                f"graph_optimization_level {level!r} is unknown",
                remedy="use 0, 1, 2 or 99, or none/basic/extended/all",
            )
        return _LEVELS[number]


@dataclass(frozen=True)
class NodeArg:
    """An input or output: its name, its dimensions (names where symbolic, None where unknown), its ONNX
    type.
    """

    name: str
    shape: list[int | str | None]
    type: str

    @staticmethod
    def of(info: ValueInfo) -> NodeArg:
        """From a session's description."""
        return NodeArg(info.name, list(info.shape or ()), info.type)


class InferenceSession:
    """A model ready to run, called as onnxruntime's is.

    Args:
        path_or_bytes: a path, the bytes of a model, or a ModelProto.
        sess_options: see :class:`SessionOptions`.
        providers: names or (name, options), best first; ``"CPUExecutionProvider"`` and the like are
            understood.
        provider_options: options by position, if ``providers`` holds only names.
    """

    def __init__(
        self,
        path_or_bytes: str | os.PathLike[str] | bytes | Any,
        sess_options: SessionOptions | None = None,
        providers: Sequence[str | tuple[str, Mapping[str, Any]]] | None = None,
        provider_options: Sequence[Mapping[str, Any]] | None = None,
    ) -> None:
        self._options = sess_options or SessionOptions()
        self._session = load(
            path_or_bytes,
            _choices(providers, provider_options),
            fallback=DEFAULT_FALLBACK,
            optimise=self._options.level(),
            fix=self._options.free_dimension_overrides,
        )
        self._profile = Profile() if self._options.enable_profiling else None

    def run(
        self,
        output_names: Sequence[str] | None,
        input_feed: Mapping[str, Any],
        run_options: RunOptions | None = None,
    ) -> list[Any]:
        """The outputs as a list, in the order of ``output_names`` (None or empty: the model's order)."""
        if not isinstance(input_feed, Mapping):
            raise InputError(
                f"input_feed is a {type(input_feed).__name__}, not a dict",
                where=Where(stage="run", model=self._session.name),
                remedy="pass {name: array}",
            )
        options = run_options or RunOptions(profile=self._profile)
        names = list(output_names) if output_names else [info.name for info in self._session.outputs]
        results = self._session.run(names, input_feed, options)
        return [results[name] for name in names]

    def get_inputs(self) -> list[NodeArg]:
        """The model's inputs."""
        return [NodeArg.of(info) for info in self._session.inputs]

    def get_outputs(self) -> list[NodeArg]:
        """The model's outputs."""
        return [NodeArg.of(info) for info in self._session.outputs]

    def get_providers(self) -> list[str]:
        """The providers in use, by the names that applications expect."""
        return [execution_provider_name(name) for name in self._session.providers]

    def get_session_options(self) -> SessionOptions:
        """The options that were given."""
        return self._options

    def end_profiling(self) -> str:
        """Write the profile and return its path; "" if profiling was not enabled."""
        if self._profile is None:
            return ""
        path = f"{self._options.profile_file_prefix}.trace.json"
        self._profile.save(path)
        return path


def _choices(
    providers: Sequence[str | tuple[str, Mapping[str, Any]]] | None,
    provider_options: Sequence[Mapping[str, Any]] | None,
) -> list[ProviderChoice] | None:
    if provider_options is None:
        return None if providers is None else list(providers)
    if providers is None or len(providers) != len(provider_options):
        raise OptionError(
            f"{len(provider_options)} provider_options for {len(providers or ())} providers",
            remedy="give one dict of options for each provider, in the same order",
        )
    names = [item if isinstance(item, str) else item[0] for item in providers]
    return list(zip(names, provider_options, strict=True))
