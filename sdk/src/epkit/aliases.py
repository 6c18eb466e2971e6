"""Names under which applications of other runtimes know providers.

The only place where the core names any.
"""

from __future__ import annotations

DEFAULT_FALLBACK = "cpu"

ALIASES = {
    "CPUExecutionProvider": "cpu",
    "CUDAExecutionProvider": "cuda",
    "OpenCLExecutionProvider": "opencl",
    "NpuSimExecutionProvider": "npu_sim",
}


def resolve(name: str) -> str:
    """The provider's own name; names that are no alias are returned as they are."""
    return ALIASES.get(name, name)


def execution_provider_name(name: str) -> str:
    """The name that other runtimes' applications expect, such as ``"CPUExecutionProvider"``."""
    known = {own: alias for alias, own in ALIASES.items()}
    return known.get(name, name)
