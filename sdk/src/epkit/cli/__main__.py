"""``python -m epkit.cli`` is the same as ``epkit``."""

from __future__ import annotations

from .app import main

main()
