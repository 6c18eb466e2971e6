"""Every environment variable that epkit reads: typed, documented, listable (`epkit providers --knobs`)."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from .errors import OptionError

T = TypeVar("T")


@dataclass(frozen=True)
class Knob(Generic[T]):
    """One environment variable; ``get()`` reads it afresh each time."""

    name: str
    default: T
    parse: Callable[[str], T]
    help: str

    def get(self) -> T:
        """The value in force.

        Raises:
            OptionError: if the variable is set to something that does not parse.
        """
        text = os.environ.get(self.name)
        if text is None or text == "":
            return self.default
        try:
            return self.parse(text)
        except ValueError as error:
            raise OptionError(
                f"the environment variable {self.name}={text!r} is not usable: {error}",
                remedy=f"{self.help} (default: {self.default!r})",
            ) from error


def _flag(text: str) -> bool:
    if text.lower() in ("1", "true", "yes", "on"):
        return True
    if text.lower() in ("0", "false", "no", "off"):
        return False
    raise ValueError("expected 0 or 1")


def _bytes(text: str) -> int:
    if (size := int(text)) < 0:
        raise ValueError("expected a number of bytes")
    return size


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


PROVIDERS: Knob[tuple[str, ...]] = Knob(
    "EPKIT_PROVIDERS", (), _names, "comma-separated provider names used when a load names none"
)
DISABLED_PLUGINS: Knob[tuple[str, ...]] = Knob(
    "EPKIT_DISABLED_PLUGINS", (), _names, "comma-separated plugins that discovery leaves out"
)
CACHE_DIR = Knob(
    "EPKIT_CACHE_DIR",
    os.path.join(os.path.expanduser(os.environ.get("XDG_CACHE_HOME") or "~/.cache"), "epkit"),
    str,
    "the folder of what epkit and its plugins measured",
)
CHECKED = Knob("EPKIT_CHECKED", False, _flag, "verify the graph after every optimiser pass and rule")
STOP_AFTER = Knob("EPKIT_STOP_AFTER", -1, int, "stop the optimiser after so many changes; -1: do not")
LARGEST_RESULT = Knob(
    "EPKIT_LARGEST_RESULT",
    0,
    _bytes,
    "bytes that one result may take which a model's shape inputs ask for; 0: half of the memory",
)

ALL: tuple[Knob[tuple[str, ...]] | Knob[bool] | Knob[int], ...] = (
    PROVIDERS,
    DISABLED_PLUGINS,
    CHECKED,
    STOP_AFTER,
    LARGEST_RESULT,
)
