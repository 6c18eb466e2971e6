"""The report in a real browser: Chromium, where it is installed."""

from __future__ import annotations

import re
import shutil
import subprocess
from html import escape, unescape
from pathlib import Path

import pytest
from test_reports import made

from epkit_conformance.report.comparison import comparison_page
from epkit_conformance.report.html import report_page

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt-get install chromium")

REPORTER = """<script>
window.onerror = (text) => { top.document.title = "error: " + text; };
addEventListener("load", () => setTimeout(() => {
  const root = document.documentElement;
  const told = [root.clientWidth, root.scrollWidth, document.querySelectorAll("#list tbody tr").length];
  for (const output of document.querySelectorAll("output")) told.push(output.textContent);
  if (!top.document.title) top.document.title = told.join("; ");
}, 50));
</script>"""
"""Tells the width of the page, the width that it needs, the rows of its list, and what its filters say."""


def chromium(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def told_by(page: str, folder: Path, width: int) -> str:
    """What the reporter says of the page in a window of that width (in a frame: Chromium has no small windows)."""
    inner = escape(page.replace("<head>", f"<head>{REPORTER}", 1), quote=True)
    path = folder / "frame.html"
    path.write_text(f'<iframe width="{width}" height="900" frameborder="0" srcdoc="{inner}"></iframe>')
    dom = chromium(
        "--virtual-time-budget=2000", "--window-size=1500,1000", "--dump-dom", path.as_uri()
    ).stdout
    title = re.search("<title>(.*?)</title>", dom)
    assert title is not None, dom[:500]
    return unescape(title.group(1))


@pytest.mark.parametrize("width", [1400, 420])
def test_the_page_works_and_fits(tmp_path: Path, width: int) -> None:
    count = len(made().entries)
    told = told_by(report_page(made()), tmp_path, width)
    assert told == f"{width}; {width}; {count}; 1 of 1 operators; {count} cases"


def test_the_comparison_fits(tmp_path: Path) -> None:
    page = comparison_page(made(), made("other", flip="generated/Add/13/float0"))
    count = len(made().entries)
    assert told_by(page, tmp_path, 1400) == f"1400; 1400; 1; 1 of {count} cases"
    assert told_by(page, tmp_path, 420) == f"420; 420; 1; 1 of {count} cases"


def test_light_and_dark_are_both_drawn(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text(report_page(made()), encoding="utf-8")
    for scheme in ("0", "1"):
        shot = tmp_path / f"{scheme}.png"
        chromium(f"--blink-settings=preferredColorScheme={scheme}", f"--screenshot={shot}", page.as_uri())
    assert (tmp_path / "0.png").read_bytes() != (tmp_path / "1.png").read_bytes()
