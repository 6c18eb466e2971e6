"""Commands that installed packages bring."""

from __future__ import annotations

import importlib.metadata
import sys
from pathlib import Path

import pytest
from conftest import Cli

from epkit.cli import extensions

MODULES = {
    "sound_commands": "import typer\napp = typer.Typer()\n@app.command()\ndef greet(name: str):\n    print('hello', name)\n",
    "broken_commands": "raise RuntimeError('no driver')\n",
}


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two packages with commands: one works, the other cannot be imported."""
    for name, text in MODULES.items():
        (tmp_path / f"{name}.py").write_text(text)
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    found = [
        importlib.metadata.EntryPoint("greet", "sound_commands:app", extensions.COMMAND_GROUP),
        importlib.metadata.EntryPoint("wreck", "broken_commands:app", extensions.COMMAND_GROUP),
        importlib.metadata.EntryPoint("providers", "broken_commands:app", extensions.COMMAND_GROUP),
    ]
    monkeypatch.setattr(extensions, "entry_points", lambda: found)


@pytest.mark.usefixtures("installed")
def test_a_package_brings_a_command(cli: Cli) -> None:
    result = cli("greet", "world")
    assert (result.code, result.out) == (0, "hello world\n")
    assert cli("greet", "--frob").code == 2


@pytest.mark.usefixtures("installed")
def test_help_lists_it_and_imports_nothing(cli: Cli) -> None:
    shown = cli("--help").out
    assert "greet" in shown and "wreck" in shown
    assert not set(MODULES) & set(sys.modules)


@pytest.mark.usefixtures("installed")
def test_a_broken_package_breaks_its_own_command_only(cli: Cli) -> None:
    result = cli("wreck", "--json")
    assert result.code == 1
    assert "RuntimeError: no driver" in result.json["error"]["what"]
    assert "pip install --upgrade" in result.err
    assert cli("greet", "world").code == 0


@pytest.mark.usefixtures("installed")
def test_commands_of_epkit_cannot_be_replaced(cli: Cli) -> None:
    assert "null" in cli("providers").out


def test_a_known_command_says_what_to_install(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extensions, "entry_points", list)
    result = cli("conformance", "acme")
    assert result.code == 2
    assert "pip install epkit-conformance" in result.err
    assert cli("--help").out.count("conformance") == 2
