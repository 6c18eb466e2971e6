"""Where a run took place: the host, the packages that matter, the provider as discovery sees it."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path

from epkit.backend.registry import default

from .record import Candidate

PACKAGES = ("epkit", "epkit-conformance", "epkit-cpu", "onnx", "onnx-ir", "numpy", "ml_dtypes")
"""Packages that decide what is run and what must come out."""


def candidate(provider: str) -> Candidate:
    """The provider's own description.

    Raises:
        UnknownProviderError: if no plugin has this name.
    """
    if provider not in default.names():
        default.provider_type(provider)  # raises, and says what to install
    state = default.state(provider)
    named = state.package != "-"
    return Candidate(
        provider,
        state.version,
        state.package if named else "",
        package_version(state.package) if named else "",
        state.state,
        tuple(f"{device.name}: {device.description or device.kind}" for device in state.devices.found),
    )


def environment() -> dict[str, str]:
    """Versions and hardware, for people and for comparing."""
    found = {
        "system": f"{platform.system()} {platform.release()}",
        "machine": platform.machine(),
        "processor": processor(),
        "cores": str(os.cpu_count() or 1),
        "memory": memory(),
        "python": platform.python_version(),
    }
    versions = {name: package_version(name) for name in PACKAGES}
    return {key: value for key, value in {**found, **versions}.items() if value}


def package_version(name: str) -> str:
    """The installed version; "" if it is not installed."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


def processor() -> str:
    """The processor's name as the system tells it."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()


def memory() -> str:
    """The host's memory; "" where it cannot be asked."""
    try:
        return f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 1e9:.0f} GB"
    except (AttributeError, ValueError, OSError):
        return ""
