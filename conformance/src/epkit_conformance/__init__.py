"""Proof that an epkit provider does what it claims.

epkit conformance acme
pytest --pyargs epkit_conformance --provider acme
"""

from __future__ import annotations

__version__ = "0.1.0"
