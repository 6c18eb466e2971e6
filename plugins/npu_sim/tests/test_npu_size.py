"""An example that is copied must be readable: the provider's own code stays under 3,000 lines."""

from __future__ import annotations

import io
import tokenize
from pathlib import Path

import epkit_npu_sim

LIMIT = 3000
SILENT = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENCODING,
}


def lines_of_code(source: str) -> int:
    """Lines that hold code: neither blank nor comments, nor text that stands by itself, as docstrings do."""
    lines: set[int] = set()
    statement: list[tokenize.TokenInfo] = []
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in (tokenize.NEWLINE, tokenize.ENDMARKER):
            statement += [] if token.type in SILENT else [token]
            continue
        if any(part.type != tokenize.STRING for part in statement):
            lines.update(n for part in statement for n in range(part.start[0], part.end[0] + 1))
        statement = []
    return len(lines)


def test_lines_of_code_are_counted() -> None:
    text = '"""Said.\n\nMore."""\n\nx = (\n    1,  # one\n    # nothing\n    """a\n    b""",\n)\n\n\ndef f():\n    """Said."""\n    return x\n'
    assert lines_of_code(text) == 5 + 2


def test_the_provider_is_under_3000_lines() -> None:
    sources = sorted(Path(epkit_npu_sim.__file__).parent.rglob("*.py"))
    counts = {path.name: lines_of_code(path.read_text(encoding="utf-8")) for path in sources}
    assert len(counts) > 20 and sum(counts.values()) < LIMIT, counts
