"""The documentation is true: its code runs, what it quotes is what is there."""

from __future__ import annotations

import importlib
import re
import sys
import types
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = ("docs/write-a-provider.md", "README.md")


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", (ROOT / page).read_text(encoding="utf-8"), re.S | re.M)


@pytest.mark.parametrize("page", PAGES)
def test_python_blocks_run_top_to_bottom(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = "\n".join(blocks(page, "python"))
    assert code
    monkeypatch.chdir(tmp_path)
    module = types.ModuleType("documentation")
    monkeypatch.setitem(sys.modules, "documentation", module)
    exec(compile(code, page, "exec"), module.__dict__)


def test_the_provider_page_quotes_the_null_provider_whole() -> None:
    source = (ROOT / "sdk/src/epkit/backend/null.py").read_text(encoding="utf-8")
    assert blocks("docs/write-a-provider.md", "python")[0] == source
    assert len(source.splitlines()) < 60


def test_the_architecture_names_functions_and_types_that_exist() -> None:
    text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\w+) \| `(\w+)\(.*?\)` \| `([\w/]+)\.py` \| `(\w+)`", text, re.M)
    assert [row[0] for row in rows] == list(importlib.import_module("epkit.pipeline").STAGES)
    for _, function, file, kind in rows:
        module = importlib.import_module("epkit." + file.replace("/", "."))
        assert callable(getattr(module, function))
        assert isinstance(getattr(module, kind), type)


@pytest.mark.parametrize(
    "page", sorted(p.relative_to(ROOT).as_posix() for p in (ROOT / "docs").rglob("*.md"))
)
def test_links_and_quoted_paths_lead_somewhere(page: str) -> None:
    text = re.sub(r"^```.*?^```", "", (ROOT / page).read_text(encoding="utf-8"), flags=re.S | re.M)
    for target in re.findall(r"\]\(((?!https?:|#)[^)]+)\)", text):
        assert ((ROOT / page).parent / target.split("#")[0]).exists(), target
    for path in re.findall(
        r"`((?:sdk|plugins|conformance|docs|tests|examples|benchmarks)/[\w./-]+\.\w+)`", text
    ):
        assert (ROOT / path).exists(), path
