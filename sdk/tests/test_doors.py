"""The two doors, and the smallest provider behind them."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import pytest

import epkit

SOURCE = Path(epkit.__file__).parent

# ---- the two doors ----

APPLICATION = [
    "Cancellation",
    "EpkitError",
    "InferenceSession",
    "Limits",
    "Profile",
    "ProviderState",
    "RunOptions",
    "Session",
    "SessionOptions",
    "load",
    "operator",
    "providers",
    "register",
]
PLUGIN = [
    "ALL",
    "BOOL",
    "CONTRACT_VERSION",
    "FLOATS",
    "INTS",
    "NUMBERS",
    "REFUSAL_CODES",
    "SIGNED",
    "STRINGS",
    "UNSIGNED",
    "Allocator",
    "Budget",
    "Claim",
    "CustomOperator",
    "Device",
    "Devices",
    "Event",
    "HostAllocator",
    "HostStream",
    "Kernel",
    "KernelProvider",
    "KernelTable",
    "MemoryStep",
    "Notice",
    "Program",
    "ProgramMemory",
    "Provider",
    "Refusal",
    "RunContext",
    "Stream",
    "Subgraph",
    "Tensor",
    "custom_kernels",
    "element_type",
    "hookimpl",
    "kernel",
    "portable_kernels",
    "static_shape",
]


@pytest.mark.parametrize(("door", "names"), [("epkit", APPLICATION), ("epkit.backend", PLUGIN)])
def test_the_doors_have_exactly_these_names(door: str, names: list[str]) -> None:
    module = importlib.import_module(door)
    assert sorted(module.__all__) == sorted(names)
    for name in names:
        assert getattr(module, name) is not None
    public = {name for name, value in vars(module).items() if not name.startswith("_")}
    beside = {name for name in public - set(names) if not isinstance(getattr(module, name), ModuleType)}
    assert beside <= {"annotations", "TYPE_CHECKING", "Any"}


def test_what_the_door_does_not_have_is_said() -> None:
    with pytest.raises(AttributeError, match="module 'epkit' has no attribute 'run'; it has Cancellation"):
        epkit.run  # noqa: B018
    assert set(APPLICATION) <= set(dir(epkit))


def test_the_smallest_provider_is_small() -> None:
    text = (SOURCE / "backend" / "null.py").read_text(encoding="utf-8")
    assert len(text.splitlines()) < 60
    assert {line for line in text.splitlines() if "import epkit" in line or "from epkit" in line} == {
        "import epkit.backend as ep"
    }
