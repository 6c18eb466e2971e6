"""Provider options: from what applications write to the provider's dataclass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import pytest

import epkit
from epkit.backend.options import make_options
from epkit.errors import OptionError
from epkit.testing.broken import Sound
from epkit.testing.models import model
from epkit.testing.plugins import registry_of


@dataclass(frozen=True)
class Choices:
    threads: int = 1
    fraction: float = 0.5
    fast: bool = False
    mode: Literal["auto", "exact"] = "auto"
    folder: str | None = None
    limit: int | None = None
    extra: Any = None

    def __post_init__(self) -> None:
        if self.fast and self.mode == "exact":
            raise ValueError("fast and exact exclude each other")


class WithChoices(Sound):
    name = "acme"
    Options = Choices


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({}, Choices()),
        ({"threads": 4, "fast": True, "mode": "auto"}, Choices(threads=4, fast=True)),
        ({"threads": "4", "fraction": "0.25", "fast": "on"}, Choices(threads=4, fraction=0.25, fast=True)),
        ({"fast": "0", "fraction": 2}, Choices(fast=False, fraction=2.0)),
        ({"folder": "/tmp", "limit": None}, Choices(folder="/tmp")),
        ({"limit": "12"}, Choices(limit=12)),
        ({"extra": [1]}, Choices(extra=[1])),
    ],
)
def test_values(given: dict[str, Any], wanted: Choices) -> None:
    assert make_options(Choices, given, "acme") == wanted


@pytest.mark.parametrize(
    ("given", "what", "remedy"),
    [
        (
            {"thread": 1},
            "has no option 'thread'",
            "did you mean 'threads'? its options are threads: int = 1;",
        ),
        ({"zzz": 1}, "has no option 'zzz'", "its options are threads: int = 1; fraction: float = 0.5"),
        ({"threads": "many"}, "option 'threads' of provider 'acme' is 'many'", "declared as threads: int"),
        ({"threads": 1.5}, "expected int, got float", "declared as threads: int"),
        ({"threads": True}, "expected int, got bool", "declared as threads: int"),
        ({"fast": "perhaps"}, "expected bool, got str", "declared as fast: bool"),
        ({"fast": 1}, "expected bool, got int", "declared as fast: bool"),
        ({"mode": "slow"}, "expected one of 'auto', 'exact'", "mode: Literal"),
        ({"limit": "x"}, "option 'limit' of provider 'acme' is 'x'", "limit: int | None"),
        ({"folder": 3}, "expected str, got int", "folder: str | None"),
        ({"fast": True, "mode": "exact"}, "fast and exact exclude each other", ""),
    ],
)
def test_what_does_not_fit(given: dict[str, Any], what: str, remedy: str) -> None:
    with pytest.raises(OptionError) as caught:
        make_options(Choices, given, "acme")
    assert what in caught.value.what
    assert remedy in caught.value.remedy
    assert caught.value.where.provider == "acme"


def test_a_provider_without_options() -> None:
    with pytest.raises(OptionError) as caught:
        epkit.load(model("g (float[N] x) => (float[N] y) { y = Relu(x) }"), [("cpu", {"no_such": 1})])
    assert "no_such" in caught.value.what


def test_they_reach_the_provider() -> None:
    seen: list[Any] = []

    class Keeping(WithChoices):
        def __init__(self, options: Any = None) -> None:
            super().__init__(options)
            seen.append(self.options)

    graph = model("g (float[N] x) => (float[N] y) { y = Relu(x) }")
    registry = registry_of(Keeping)
    epkit.load(graph, [("acme", {"threads": "3"})], registry=registry).close()
    epkit.load(graph, ["acme"], registry=registry).close()
    assert seen == [Choices(threads=3), Choices()]
