"""The results as a picture: one bar a model, how long epkit takes where onnxruntime takes 1."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

ROW, LEFT, WIDTH, MOST = 22, 250, 420, 2.0


def picture(title: str, bars: Sequence[tuple[str, float]]) -> str:
    """SVG text. A bar that is longer than the picture is cut, and its number says how long it is.

    Args:
        bars: a label and a ratio each; below 1 is faster.
    """
    height = ROW * (len(bars) + 2)
    one = LEFT + WIDTH / MOST
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{LEFT + WIDTH + 60}" height="{height}" '
        'font-family="sans-serif" font-size="12">',
        f'<text x="8" y="16" font-weight="bold">{escape(title)}</text>',
    ]
    for index, (label, ratio) in enumerate(bars):
        top = ROW * (index + 1) + 6
        width = min(ratio, MOST) / MOST * WIDTH
        colour = "#2a7f62" if ratio <= 1 else "#c0504d"
        lines.append(f'<text x="{LEFT - 8}" y="{top + 12}" text-anchor="end">{escape(label)}</text>')
        lines.append(f'<rect x="{LEFT}" y="{top}" width="{width:.1f}" height="{ROW - 6}" fill="{colour}"/>')
        lines.append(f'<text x="{LEFT + width + 4:.1f}" y="{top + 12}">{ratio:.2f}</text>')
    lines.append(f'<line x1="{one}" y1="{ROW}" x2="{one}" y2="{height - ROW + 6}" stroke="#444"/>')
    lines.append(f'<text x="{one}" y="{height - 4}" text-anchor="middle">onnxruntime</text></svg>')
    return "\n".join(lines) + "\n"
