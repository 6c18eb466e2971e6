"""``epkit conformance``: the suite on the command line; one file per command."""

from __future__ import annotations

from .app import app

__all__ = ["app"]
