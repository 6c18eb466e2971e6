"""The frame of a page that needs nothing but itself: styles, script, data and small pieces."""

from __future__ import annotations

import base64
import json
import re
import zlib
from collections import Counter
from collections.abc import Mapping
from html import escape
from importlib.resources import files
from typing import Any

from ..certification import Certification, Status
from ..result import State

CLASSES = {
    State.PASSED: "ok",
    State.FALLBACK: "fb",
    State.REFUSED: "re",
    State.UNSUPPORTED: "un",
    State.EXPECTED_FAILURE: "xf",
    State.UNEXPECTED_PASS: "xp",
    State.FAILED: "ko",
    State.CRASHED: "cr",
    State.HUNG: "hu",
}
"""The style class of each state; ``page.css`` has a colour for each."""

MEANINGS = {
    State.PASSED: "right, and the record shows that the provider ran it",
    State.FALLBACK: "right, but another provider had a part in it",
    State.REFUSED: "the provider said no, with a reason",
    State.UNSUPPORTED: "does not apply to it, or declared so for good",
    State.EXPECTED_FAILURE: "wrong, known, with an owner and an end",
    State.UNEXPECTED_PASS: "right although declared to fail",
    State.FAILED: "a wrong answer or a broken rule",
    State.CRASHED: "the worker process died",
    State.HUNG: "no answer in time",
}

STATUS_CLASSES = {
    Status.CERTIFIED: "ok",
    Status.HELD: "held",
    Status.FAILING: "ko",
    Status.NOT_SHOWN: "re",
    Status.NOT_APPLICABLE: "un",
    Status.NOT_RUN: "un",
    Status.PART: "un",
}

SHORT = {
    **{f"float{n}": f"f{n}" for n in (16, 32, 64)},
    **{f"{kind}int{n}": f"{kind or 'i'}{n}" for kind in ("", "u") for n in (2, 4, 8, 16, 32, 64)},
    "bfloat16": "bf16",
    "string": "str",
    "complex64": "c64",
    "complex128": "c128",
    "float8e4m3fn": "e4m3",
    "float8e4m3fnuz": "e4m3z",
    "float8e5m2": "e5m2",
    "float8e5m2fnuz": "e5m2z",
    "float4e2m1": "e2m1",
    "float8e8m0": "e8m0",
}
"""Short names of element types for narrow columns."""


FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What may stand neither in XML nor in HTML."""


def clean(text: object) -> str:
    """Text without control characters and halves of characters, which devices are known to put into messages."""
    return FORBIDDEN.sub("\N{REPLACEMENT CHARACTER}", str(text))


def esc(text: object) -> str:
    """Text as HTML."""
    return escape(clean(text), quote=True)


def classes(state: State) -> str:
    """The style class of a state."""
    return CLASSES[state]


def packed(data: Any) -> str:
    """Plain values for ``unpack`` of ``data.js``: JSON, deflated, in base64, a sixth as long. The list of all
    cases is most of a page, which may be kept under version control.
    """
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return base64.b64encode(zlib.compress(text.encode(), 9)).decode("ascii")


def page(title: str, body: str, data: Any = None, script: str = "page.js") -> str:
    """A whole page.

    Args:
        title, body: as HTML has them.
        data: plain values for the script.
        script: the file that makes the page work.
    """
    folder = files(__package__)
    style = (folder / "page.css").read_text(encoding="utf-8")
    code = (folder / script).read_text(encoding="utf-8")
    held = ""
    if data is not None:
        held = f'<script type="text/plain" id="data">{packed(data)}</script>\n'
        code = (folder / "data.js").read_text(encoding="utf-8") + code
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{esc(title)}</title>
<style>
{style}</style>
</head>
<body>
{body}
{held}<script>
{code}</script>
</body>
</html>
"""


def bar(counts: Counter[State], scale: int = 0) -> str:
    """The counts as a striped bar; states that have any stay visible however few."""
    total = max(scale, sum(counts.values())) or 1
    parts = "".join(
        f'<i class="{classes(state)}" style="flex-grow:{counts[state] / total:.4f}" '
        f'title="{counts[state]} {state.value}"></i>'
        for state in State
        if counts[state]
    )
    return f'<div class="bar">{parts}</div>'


def legend(counts: Counter[State]) -> str:
    """Every state that occurs, its colour, its count, its meaning."""
    items = "".join(
        f'<li title="{esc(MEANINGS[state])}"><i class="{classes(state)}"></i>'
        f"<b>{counts[state]:,}</b> {state.value}</li>"
        for state in State
        if counts[state]
    )
    return f'<ul class="legend">{items}</ul>'


def section(name: str, title: str, body: str, note: str = "") -> str:
    """A part of the page with a heading; empty if it has nothing to show."""
    if not body:
        return ""
    told = f"<p class='note'>{note}</p>" if note else ""
    return f'<section id="{name}"><h2>{esc(title)}</h2>{told}{body}</section>'


def medal(certification: Certification, complete: bool) -> str:
    """The highest certified level, large."""
    reached = certification.reached
    if not complete:
        return '<div class="medal un"><b>part</b><span>of a run</span></div>'
    if reached < 0:
        return '<div class="medal ko"><b>none</b><span>certified</span></div>'
    failing = any(verdict.status is Status.FAILING for verdict in certification.verdicts)
    return f'<div class="medal {"ko" if failing else "ok"}"><b>{reached}</b><span>level</span></div>'


def definitions(values: Mapping[str, str]) -> str:
    """Names and values."""
    items = "".join(
        f"<div><dt>{esc(key)}</dt><dd>{esc(value)}</dd></div>" for key, value in values.items() if value
    )
    return f'<dl class="facts">{items}</dl>'


def seconds(value: float) -> str:
    """``1.2 s``, ``34 ms``, ``56 µs``."""
    if value >= 100:
        return f"{value / 60:.1f} min"
    if value >= 1:
        return f"{value:.1f} s"
    return f"{value * 1e3:.3g} ms" if value >= 1e-3 else f"{value * 1e6:.3g} µs"
