"""The version of the contract between epkit and its plugins.

A plugin states the range that it supports as ``Provider.contract = (oldest, newest)``. Adding an
optional method or a field to a context object does not change the version; anything that could
break a plugin does.
"""

from __future__ import annotations

CONTRACT_VERSION = 1
