"""The badge: two words in a picture of 20 pixels' height, in the shape that people know from READMEs."""

from __future__ import annotations

from html import escape

from ..certification import Certification, Status

LABEL = "conformance"

COLOURS = {"high": "#0f8a5f", "low": "#3b7dd8", "none": "#8a8f98", "failing": "#cf3339"}


def badge_of(certification: Certification) -> str:
    """The badge of a run: the highest certified level, or that something fails."""
    failing = [v.level.number for v in certification.verdicts if v.status is Status.FAILING]
    reached = certification.reached
    if failing and reached < 0:
        return badge("failing", COLOURS["failing"])
    if reached < 0:
        return badge("not certified", COLOURS["none"])
    colour = COLOURS["failing" if failing else "high" if reached >= 3 else "low"]
    return badge(f"level {reached}", colour)


def badge(text: str, colour: str) -> str:
    """An SVG with the label and a text on a colour."""
    left, right = _width(LABEL) + 12, _width(text) + 12
    label, shown = escape(LABEL), escape(text)
    return f"""<svg xmlns="http://www.w3.org/2000/svg" width="{left + right}" height="20" role="img" \
aria-label="{label}: {shown}">
<title>{label}: {shown}</title>
<clipPath id="r"><rect width="{left + right}" height="20" rx="4"/></clipPath>
<g clip-path="url(#r)">
<rect width="{left}" height="20" fill="#30363d"/>
<rect x="{left}" width="{right}" height="20" fill="{colour}"/>
</g>
<g fill="#fff" text-anchor="middle" font-family="Verdana,DejaVu Sans,Geneva,sans-serif" font-size="11">
<text x="{left / 2:g}" y="14" textLength="{left - 12}">{label}</text>
<text x="{left + right / 2:g}" y="14" textLength="{right - 12}">{shown}</text>
</g>
</svg>
"""


def _width(text: str) -> int:
    """Pixels of a text at 11 px, near enough for ``textLength`` to do the rest."""
    return round(sum(4.0 if char in "il.,: 1tfrj" else 10.0 if char in "mwMW" else 6.9 for char in text))
