"""Pictures of a timeline as SVG: a roofline with a point for each layer, and the engines over time."""

from __future__ import annotations

import math
from collections.abc import Sequence

from epkit_npu_sim import isa
from epkit_npu_sim.timing import Timeline

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 720, 440, 70, 24, 40, 55
INK, FAINT, BLUE, ORANGE = "#1b1f24", "#d0d7de", "#0969da", "#bc4c00"
COLOURS = ("#0969da", "#8250df", "#1a7f37", "#bc4c00")


def _svg(title: str, parts: Sequence[str], height: int = HEIGHT) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        f'font-family="sans-serif" font-size="12" fill="{INK}">'
    )
    ground = f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>'
    name = f'<text x="{LEFT}" y="22" font-size="15" font-weight="bold">{title}</text>'
    return "\n".join([head, ground, name, *parts, "</svg>"]) + "\n"


def _text(x: float, y: float, text: str, anchor: str = "middle", more: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" {more}>{text}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, colour: str, width: float = 1) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}" stroke-width="{width}"/>'


def roofline(timeline: Timeline, operators: Sequence[str], name: str) -> str:
    """Multiply-adds a clock over multiply-adds a byte of DRAM traffic, both logarithmic."""
    machine = timeline.machine
    peak, bandwidth = machine.array**2, 2 * machine.dma_bytes
    low, high, least = -1.0, 3.0, 0.0

    def across(intensity: float) -> float:
        return LEFT + (math.log10(intensity) - low) / (high - low) * (WIDTH - LEFT - RIGHT)

    def up(rate: float) -> float:
        return HEIGHT - BOTTOM - (math.log10(rate) - least) / (3.25 - least) * (HEIGHT - TOP - BOTTOM)

    parts = []
    for decade in range(int(low), int(high) + 1):
        x = across(10.0**decade)
        parts += [
            _line(x, TOP, x, HEIGHT - BOTTOM, FAINT),
            _text(x, HEIGHT - BOTTOM + 16, f"{10.0**decade:g}"),
        ]
    for decade in range(int(least), 4):
        y = up(10.0**decade)
        parts += [_line(LEFT, y, WIDTH - RIGHT, y, FAINT), _text(LEFT - 8, y + 4, f"{10.0**decade:g}", "end")]
    knee = peak / bandwidth
    foot = max(10.0**low, 10.0**least / bandwidth)
    parts += [
        _line(across(foot), up(foot * bandwidth), across(knee), up(peak), INK, 2),
        _line(across(knee), up(peak), WIDTH - RIGHT, up(peak), INK, 2),
        _text(WIDTH - RIGHT, up(peak) - 7, f"array: {peak:,} multiply-adds a clock", "end"),
        _text(across(3), up(3 * bandwidth) + 34, f"both DMA engines: {bandwidth} bytes a clock", "start"),
        _text(WIDTH - RIGHT - 8, HEIGHT - BOTTOM - 12, str(machine), "end"),
        _text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 15, "multiply-adds for each byte moved to or from DRAM"),
        _text(18, (TOP + HEIGHT - BOTTOM) / 2, "multiply-adds a clock", "middle",
              f'transform="rotate(-90 18 {(TOP + HEIGHT - BOTTOM) / 2:.0f})"'),
    ]  # fmt: skip
    shares = timeline.shares()
    for tag, layer in timeline.layers().items():
        moved, clocks = layer.loaded + layer.stored, max(1, layer.cycles)
        if layer.macs and moved:
            colour = ORANGE if operators[tag].startswith(("Gemm", "MatMul")) else BLUE
            radius = 2.5 + 14 * math.sqrt(shares.get(tag, 0) / timeline.cycles)
            parts.append(
                f'<circle cx="{across(layer.macs / moved):.1f}" cy="{up(layer.macs / clocks):.1f}" r="{radius:.1f}" '
                f'fill="{colour}" fill-opacity="0.45" stroke="{colour}"/>'
            )
    parts.append(
        _text(
            WIDTH - RIGHT - 8,
            HEIGHT - BOTTOM - 30,
            "a circle: a layer on the array; its area: its share of the time",
            "end",
        )
    )
    return _svg(f"Roofline of {name} (int8)", parts)


def timeline_picture(timeline: Timeline, name: str, clocks: int = 60_000) -> str:
    """The first clocks, one row an engine."""
    height, row = 230, 38
    end = min(clocks, timeline.cycles)

    def across(clock: float) -> float:
        return LEFT + clock / end * (WIDTH - LEFT - RIGHT)

    parts = []
    for tick in range(0, end + 1, max(1, end // 6)):
        parts += [
            _line(across(tick), TOP, across(tick), TOP + 4 * row, FAINT),
            _text(across(tick), TOP + 4 * row + 16, f"{tick:,}"),
        ]
    for engine, label in enumerate(isa.ENGINES):
        parts.append(_text(LEFT - 8, TOP + row * (engine + 0.62), label, "end"))
    for command, start, stop in zip(timeline.commands, timeline.starts, timeline.ends, strict=True):
        if start < end:
            engine = command.op.ENGINE
            width = max(0.3, across(min(stop, end)) - across(start))
            shade = 0.9 if command.tag % 2 == 0 else 0.5
            parts.append(
                f'<rect x="{across(start):.1f}" y="{TOP + row * engine + 6}" width="{width:.1f}" height="{row - 12}" '
                f'fill="{COLOURS[engine]}" fill-opacity="{shade}"/>'
            )
    parts.append(
        _text(
            (LEFT + WIDTH - RIGHT) / 2,
            TOP + 4 * row + 33,
            "clocks; darker and lighter: one layer and the next",
        )
    )
    return _svg(f"The first {end:,} clocks of {name}, int8", parts, height)
