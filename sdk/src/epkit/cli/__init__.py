"""The command line ``epkit``: run, inspect, explain, providers, bench, new-provider; one file per command."""

from __future__ import annotations

from .app import main

__all__ = ["main"]
