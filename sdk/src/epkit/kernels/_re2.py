"""RE2's regular expressions in the syntax of Python's ``re``."""

from __future__ import annotations

import re

CLASSES = {
    "alnum": "0-9A-Za-z",
    "alpha": "A-Za-z",
    "ascii": r"\x00-\x7F",
    "blank": r"\t ",
    "cntrl": r"\x00-\x1F\x7F",
    "digit": "0-9",
    "graph": "!-~",
    "lower": "a-z",
    "print": " -~",
    "punct": r"!-/:-@\[-`{-~",
    "space": r"\t\n\v\f\r ",
    "upper": "A-Z",
    "word": "0-9A-Za-z_",
}
ESCAPES = {r"\z": r"\Z", r"\C": r"[\s\S]", r"\a": r"\x07"}
PERL = {r"\d": "0-9", r"\w": "0-9A-Za-z_", r"\s": r"\t\n\f\r "}
"""Perl's classes are ASCII in RE2."""

TOKEN = re.compile(
    r"\\Q(?P<literal>.*?)(?:\\E|$)"
    r"|\[:(?P<not>\^?)(?P<posix>\w+):\]"
    r"|\\x\{(?P<hex>[0-9A-Fa-f]+)\}"
    r"|(?P<perl>\\[dwsDWS])"
    r"|(?P<escape>\\.)"
    r"|(?P<look>\(\?(?:[=!>#(]|<[=!]|P[=>]))"
    r"|\(\?<(?P<name>\w+)>"
    r"|(?P<flags>\(\?[a-zA-Z]*U)"
    r"|(?P<open>\[\^?\]?)|(?P<close>\])",
    re.DOTALL,
)


def as_python(pattern: str) -> str:
    """The pattern in Python's syntax.

    Raises:
        ValueError: if it uses what RE2 has not (backreferences, lookaround) or what ``re`` has not
            (Unicode classes by name, the flag U).
    """
    pieces: list[str] = []
    last, inside = 0, False
    while token := TOKEN.search(pattern, last):
        pieces.append(pattern[last : token.start()])
        last = token.end()
        text = token.group()
        kind = token.lastgroup
        if kind == "open" and inside:
            pieces.append("\\[")
            last = token.start() + 1
        elif kind in ("open", "close"):
            pieces.append("\\]" if kind == "close" and not inside else text)
            inside = kind == "open"
        elif inside and kind in ("look", "name", "flags"):
            pieces.append(text)
        else:
            pieces.append(translated(token, inside, pattern))
    return "".join([*pieces, pattern[last:]])


def translated(token: re.Match[str], inside: bool, pattern: str) -> str:
    """One construct that the two syntaxes write differently; ``inside`` a bracket or not."""
    text = token.group()
    if token["literal"] is not None:
        return re.escape(token["literal"])
    if token["hex"]:
        return f"\\U{int(token['hex'], 16):08x}"
    if token["name"]:
        return f"(?P<{token['name']}>"
    if token["posix"] and inside and token["posix"] in CLASSES:
        if not token["not"]:
            return CLASSES[token["posix"]]
    elif token["perl"]:
        known, negated = PERL[text.lower()], text[1].isupper()
        if not inside:
            return f"[{'^' * negated}{known}]"
        if not negated:
            return known
    elif token["escape"] and text[1] not in "123456789pP":
        return ESCAPES.get(text, text)
    raise ValueError(f"pattern {pattern!r} uses {text!r}, which is not supported")
