"""How much memory a session may hold on a device; whoever holds any for it asks here."""

from __future__ import annotations

import threading
from collections import Counter

from ..errors import DeviceMemoryError, Where


class Budget:
    """Bytes that may be held, and who holds how many of them. Safe from several threads.

    Args:
        device: its name, for messages.
        limit: in bytes.
    """

    def __init__(self, device: str, limit: int) -> None:
        self.device, self.limit = device, limit
        self._lock = threading.Lock()
        self._held: Counter[str] = Counter()
        self._refused: dict[int, tuple[int, str]] = {}

    def reserve(self, nbytes: int, what: str = "programs") -> bool:
        """True if ``nbytes`` more may be held; they count from now on. Whoever is refused must do without."""
        with self._lock:
            fits = self._held.total() + nbytes <= self.limit
            if fits:
                self._held[what] += nbytes
                self._refused.pop(threading.get_ident(), None)  # it found another way
            else:
                self._refused[threading.get_ident()] = nbytes, what
            return fits

    def release(self, nbytes: int, what: str = "programs") -> None:
        """So many bytes are held no more."""
        with self._lock:
            self._held[what] -= nbytes

    def refusal(self, stage: str = "run") -> DeviceMemoryError | None:
        """The error that the calling thread's last refusal is; None if it has had none that was not asked for."""
        with self._lock:
            refused = self._refused.pop(threading.get_ident(), None)
            held = {what: count for what, count in self._held.items() if count}
        if refused is None:
            return None
        nbytes, what = refused
        holders = ", ".join(f"{holder} {count:,}" for holder, count in held.items())
        needed = sum(held.values()) + nbytes
        return DeviceMemoryError(
            f"{nbytes:,} bytes more for {what} exceed the budget of {self.limit:,} for {self.device} "
            f"(this session holds {sum(held.values()):,}{': ' + holders if holders else ''})",
            where=Where(stage=stage),
            remedy=f"raise memory={{...}} of epkit.load to {needed:,} or more"
            + (", use smaller inputs, or run fewer at once" if stage == "run" else ""),
        )
