"""Exit codes, so that a script can tell a wrong result from a wrong command line."""

from __future__ import annotations

CERTIFIED = 0
"""No case ended in an error, and what was asked for is certified (with ``--baseline``: nothing became worse)."""

FAILED = 1
"""At least one case was wrong, crashed, hung, or passed against its declaration; or epkit itself failed."""

MISUSED = 2
"""The command line, a file named on it, or the provider's name is wrong; nothing was run."""

REGRESSED = 3
"""With ``--baseline``: something that was right is not any more."""

NOT_SHOWN = 4
"""Nothing was wrong, but too little ran on the provider for the level that was asked for."""

VOID = 5
"""``verify``: the certificate does not hold here."""

INTERRUPTED = 130
"""Ended by the user; what was done is reported."""
