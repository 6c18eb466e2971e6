"""What a provider says about its hardware."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Device:
    """One device.

    Attributes:
        name: unique on this machine, such as ``"acme:0"``; the name that messages and traces show.
        kind: ``"cpu"``, ``"gpu"``, ``"npu"``, ... (free text, for people).
        description: the maker's name of the part.
        memory_bytes: its memory, or None where that is unknown.
        host_memory: True if its kernels read and write NumPy arrays in place, so that no transfer is needed.
    """

    name: str
    kind: str
    description: str = ""
    memory_bytes: int | None = None
    host_memory: bool = True


@dataclass(frozen=True)
class Devices:
    """The devices found; if there are none, why, and what the user can do about it."""

    found: tuple[Device, ...] = ()
    reason: str = ""
    remedy: str = ""


HOST = Device("host", "cpu", "the host's memory")
"""Where the runtime itself works: graph inputs, outputs, control flow."""
