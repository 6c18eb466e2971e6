"""Hearing of every session in this process, so that whoever lets another session do the work is found out."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from epkit.backend import Notice, hookimpl
from epkit.backend.registry import default

Heard = list[tuple[str, str]]
"""(what happened, model), such as ``("run", "perceptron")``."""

EXPECTED = "epkit_conformance"
"""The tag of runs that are not noted: those of the case itself."""


class HiddenWork(Exception):
    """The provider under test let another session work, behind the dispatch record's back."""


class Observer:
    """Notes loads and runs, for the thread in which they happen."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._listeners = 0
        self._own = threading.local()

    @hookimpl
    def epkit_notice(self, notice: Notice) -> None:
        """Note loads and runs."""
        heard: Heard | None = getattr(self._own, "heard", None)
        if heard is not None and notice.details.get("tag") != EXPECTED and notice.kind in ("load", "run"):
            heard.append((notice.kind, notice.model))

    @contextmanager
    def listening(self) -> Iterator[Heard]:
        """What this thread's sessions do meanwhile. With nobody listening, sessions take their shortest way."""
        with self._lock:
            self._listeners += 1
            default.add_extension(self)
        heard: Heard = []
        self._own.heard = heard
        try:
            yield heard
        finally:
            self._own.heard = None
            with self._lock:
                self._listeners -= 1
                if not self._listeners:
                    default.remove_extension(self)


OBSERVER = Observer()
