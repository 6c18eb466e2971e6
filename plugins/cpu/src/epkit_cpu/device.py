"""The machine's processors as one device."""

from __future__ import annotations

import os
import platform
from functools import cache
from pathlib import Path

from epkit.backend import Device, Devices

from .native import ISA, REMEDY, chosen_isa, engine


def find_devices() -> Devices:
    """Always exactly one: the CPUs that this process may use, and the kernels that serve there."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    text = f"{_model_name()}, {cpus} usable, {_kernels()}"
    return Devices((Device("cpu:0", "cpu", text, _memory_bytes()),))


def _kernels() -> str:
    if engine() is None:
        return f"portable kernels only, which are slower: {REMEDY}"
    isa = chosen_isa()
    return f"native kernels for {isa}" if isa else f"portable kernels, as {ISA.name} asks"


@cache
def _model_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass  # not Linux
    return platform.processor() or platform.machine()


def _memory_bytes() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return None
