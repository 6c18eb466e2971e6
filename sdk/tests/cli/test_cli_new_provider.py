"""``epkit new-provider``: the package that it writes builds, is found, and passes its own tests."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from conftest import Cli

from epkit.cli import new_provider
from epkit.testing.plugins import entry_points_of

EXAMPLE = Path(__file__).parents[3] / "examples" / "epkit-acme"


def files_of(folder: Path) -> dict[str, str]:
    left_behind = {"__pycache__", ".pytest_cache", "dist"}
    return {
        str(path.relative_to(folder)): path.read_text(encoding="utf-8")
        for path in folder.rglob("*")
        if path.is_file() and not left_behind & set(path.parts)
    }


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """No installed package adds files."""
    monkeypatch.setattr(new_provider, "scaffolds", lambda: ())


def test_the_example_is_what_new_provider_writes(cli: Cli, tmp_path: Path, alone: None) -> None:
    assert cli("new-provider", "acme", "--dir", tmp_path).code == 0
    whole = files_of(EXAMPLE)
    own = {path: text for path, text in whole.items() if not path.startswith(".github")}
    assert files_of(tmp_path / "epkit-acme") == own


def test_installed_packages_add_files_and_a_broken_one_adds_none(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def workflow(names: new_provider.Names) -> dict[str, str]:
        return {".ci/run.yml": f"test {names.name}", "README.md": "not this one"}

    def broken() -> object:
        raise ImportError("no such module")

    entries = entry_points_of({"ci": lambda: workflow, "bad": broken}, group=new_provider.SCAFFOLD_GROUP)
    monkeypatch.setattr(new_provider, "scaffolds", lambda: entries)
    result = cli("new-provider", "acme", "--dir", tmp_path)
    assert result.code == 0 and "no such module" in result.err
    written = files_of(tmp_path / "epkit-acme")
    assert written[".ci/run.yml"] == "test acme"
    assert written["README.md"].startswith("# epkit-acme")


def test_the_package_builds_is_found_and_passes_its_tests(cli: Cli, tmp_path: Path) -> None:
    assert cli("new-provider", "Deep-Thought", "--dir", tmp_path).code == 0
    package, site = tmp_path / "epkit-deep-thought", tmp_path / "site"
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel"], cwd=package, check=True)
    (wheel,) = (package / "dist").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)  # pure Python: this is what installing does
    environment = {**os.environ, "PYTHONPATH": str(site)}
    listed = subprocess.run(
        [sys.executable, "-m", "epkit.cli", "providers", "--json"],
        env=environment,
        capture_output=True,
        check=True,
    )
    states = {state["name"]: state for state in json.loads(listed.stdout)}
    assert (states["deep_thought"]["state"], states["deep_thought"]["package"]) == (
        "ready",
        "epkit-deep-thought",
    )
    test = [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", "tests"]
    done = subprocess.run(test, cwd=package, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_it_overwrites_nothing(cli: Cli, tmp_path: Path) -> None:
    kept = tmp_path / "epkit-acme" / "pyproject.toml"
    kept.parent.mkdir()
    kept.write_text("mine")
    result = cli("new-provider", "acme", "--dir", tmp_path)
    assert result.code == 1
    assert "exists already" in result.err
    assert files_of(tmp_path) == {"epkit-acme/pyproject.toml": "mine"}


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ("acme", ("acme", "epkit-acme", "epkit_acme", "Acme")),
        ("epkit-my-npu2", ("my_npu2", "epkit-my-npu2", "epkit_my_npu2", "MyNpu2")),
        ("My_NPU", ("my_npu", "epkit-my-npu", "epkit_my_npu", "MyNpu")),
    ],
)
def test_names_are_derived(cli: Cli, tmp_path: Path, given: str, names: tuple[str, ...]) -> None:
    told = cli("new-provider", given, "--dir", tmp_path, "--json").json
    assert (told["name"], told["distribution"], told["module"], told["title"]) == names
    assert f"src/{names[2]}/provider.py" in told["files"]


@pytest.mark.parametrize("name", ["9lives", "a b", "class", "error", "", "../up", "a--b", "epkit-"])
def test_names_that_cannot_be(cli: Cli, tmp_path: Path, name: str) -> None:
    result = cli("new-provider", "--dir", tmp_path, "--", name)
    assert (result.code, list(tmp_path.iterdir())) == (1, [])
    assert "cannot be a provider's name" in result.err
