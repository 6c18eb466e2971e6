"""A provider as one session uses it: the instance, the device that was chosen, and its raw memory."""

from __future__ import annotations

from dataclasses import dataclass

from .device import Device
from .memory import Allocator
from .provider import Provider


@dataclass(frozen=True)
class Bound:
    """A provider bound to one device.

    Attributes:
        fallback: True if the application did not name it and the ``fallback`` setting added it.
        label: its name where the application named the provider before, with other options; "" for the provider's.
    """

    provider: Provider
    device: Device
    allocator: Allocator
    fallback: bool = False
    label: str = ""

    @property
    def name(self) -> str:
        """The provider's name, or what tells it apart from another of that name, such as ``acme#2``."""
        return self.label or self.provider.name

    def __str__(self) -> str:
        suffix = " (fallback)" if self.fallback else ""
        return f"{self.name} {self.provider.version} on {self.device.name}{suffix}"
