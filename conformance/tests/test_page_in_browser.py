"""The report in a real browser: Chromium, where it is installed."""

from __future__ import annotations

import queue
import shutil
import subprocess
from html import escape
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from subprocess import DEVNULL
from threading import Thread

import pytest
from test_reports import made

from epkit_conformance.report.comparison import comparison_page
from epkit_conformance.report.html import report_page

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt-get install chromium")

REPORTER = """<script>
const tell = (text) => fetch("/told", { method: "POST", body: text });
window.onerror = (text) => tell("error: " + text);
const look = () => {
  const said = [...document.querySelectorAll("output")].map((output) => output.textContent);
  if (!said.every(Boolean)) return setTimeout(look, 20);  // its list is not unpacked yet
  const root = document.documentElement;
  tell([root.clientWidth, root.scrollWidth, document.querySelectorAll("#list tbody tr").length, ...said].join("; "));
};
addEventListener("load", look);
</script>"""
"""Tells the width of the page, the width that it needs, the rows of its list, and what its filters say."""


def command(*arguments: str) -> list[str]:
    return [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", *arguments]


def told_by(page: str, folder: Path, width: int) -> str:
    """What the reporter says of the page in a window of that width (in a frame: Chromium has no small windows)."""
    inner = escape(page.replace("<head>", f"<head>{REPORTER}", 1), quote=True)
    frame = f'<iframe width="{width}" height="900" frameborder="0" srcdoc="{inner}"></iframe>'
    told: queue.Queue[str] = queue.Queue()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.answer(frame if self.path == "/" else "")

        def do_POST(self) -> None:
            told.put(self.rfile.read(int(self.headers["Content-Length"])).decode())
            self.answer("")

        def answer(self, text: str) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/"
        profile = f"--user-data-dir={folder / 'profile'}"
        browser = subprocess.Popen(
            command(profile, "--window-size=1500,1000", address), stdout=DEVNULL, stderr=DEVNULL
        )
        try:
            return told.get(timeout=120)
        finally:
            browser.kill()
            browser.wait()
            server.shutdown()


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
        arguments = (f"--blink-settings=preferredColorScheme={scheme}", f"--screenshot={shot}", page.as_uri())
        subprocess.run(command(*arguments), capture_output=True, timeout=120, check=False)
    assert (tmp_path / "0.png").read_bytes() != (tmp_path / "1.png").read_bytes()
