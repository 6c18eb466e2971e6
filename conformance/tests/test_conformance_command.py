"""``epkit conformance`` as it is typed: what it writes, prints, and ends with."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import tomllib
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import epkit.backend.null
from epkit.backend.registry import default
from epkit.cli.app import app
from epkit.cli.new_provider import derive_names
from epkit_conformance import progress
from epkit_conformance.cli import exits
from epkit_conformance.progress import Silent
from epkit_conformance.record import Entry

PROJECT = Path(__file__).parents[2]

ONE = ("--only", "published/relu", "--jobs", "1")
"""A case that the null provider passes."""


@dataclass(frozen=True)
class Ended:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class Cli:
    """Runs ``epkit conformance ...`` in this process, in a folder of its own."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.capsys = capsys

    def __call__(self, *arguments: object) -> Ended:
        self.capsys.readouterr()
        code: Any = 0
        try:
            app(["conformance", *map(str, arguments)], prog_name="epkit")
        except SystemExit as end:
            code = end.code or 0
        printed = self.capsys.readouterr()
        return Ended(code, printed.out, printed.err)


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Cli:
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)  # typer sets it
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.chdir(tmp_path)
    return Cli(capsys)


def test_level_0_is_certified_and_written_down(cli: Cli, tmp_path: Path) -> None:
    result = cli("null", "--level", "0")
    assert result.code == exits.CERTIFIED
    assert "certified: level 0" in result.out
    folder = tmp_path / "conformance-null"
    names = {"report.html", "report.json", "junit.xml", "badge.svg", "certificate.json"}
    assert {path.name for path in folder.iterdir()} == names
    assert "level 0" in "".join(ET.parse(folder / "badge.svg").getroot().itertext())
    assert cli("verify", folder / "certificate.json", "--rerun", 2).code == exits.CERTIFIED
    assert cli("badge", folder / "certificate.json").out == (folder / "badge.svg").read_text() + "\n"
    assert "no case differs" in cli("diff", folder / "report.json", folder / "report.json").out


def test_a_changed_certificate_is_void(cli: Cli, tmp_path: Path) -> None:
    cli("null", "--level", "0", "--report", "there")
    path = tmp_path / "there" / "certificate.json"
    path.write_text(path.read_text().replace('"reached": 0', '"reached": 1'))
    result = cli("verify", path, "--json")
    assert result.code == exits.VOID
    assert result.json["holds"] is False


def test_a_part_of_the_suite_certifies_nothing(cli: Cli, tmp_path: Path) -> None:
    result = cli("null", *ONE, "--json")
    assert result.code == exits.CERTIFIED
    assert result.json["complete"] is False
    assert result.json["counts"] == {"passed": 1}
    assert result.json["levels"]["2"] == "in part"
    assert result.json["reached"] is None
    assert "not certified" in (tmp_path / "conformance-null" / "badge.svg").read_text()
    assert not (tmp_path / "conformance-null" / "certificate.json").exists()


def test_what_only_others_ran_is_not_enough(cli: Cli) -> None:
    result = cli("null", "--only", "published/add", "--no-report")
    assert result.code == exits.NOT_SHOWN
    result = cli("null", "--level", "0", "--require", "1", "--no-report")
    assert result.code == exits.NOT_SHOWN


@pytest.mark.parametrize(
    "arguments",
    [
        ("no_such_provider",),
        ("null", "--level", "8"),
        ("null", "--only", "no/such/case"),
        ("null", "--expect", "missing.toml"),
        ("null", "--baseline", "missing.json"),
        ("diff", "missing.json", "missing.json"),
        ("verify", "missing.json"),
        (),
    ],
    ids=" ".join,
)
def test_misuse_ends_with_2(cli: Cli, arguments: tuple[str, ...]) -> None:
    result = cli(*arguments)
    assert result.code == exits.MISUSED
    assert result.out == "" or not arguments


def test_a_misspelt_provider_is_told_before_anything_is_made(cli: Cli) -> None:
    result = cli("nul", "--json")
    assert "did you mean 'null'" in result.json["error"]["try"]


def test_expectations_change_the_end(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "expected.toml").write_text('[[unsupported]]\ncase = "published/relu"\nreason = "no"\n')
    result = cli("null", *ONE, "--expect", "expected.toml", "--json", "--no-report")
    assert result.code == exits.FAILED
    assert result.json["errors"][0]["state"] == "unexpected pass"
    (tmp_path / "expected.toml").write_text('[[unsupported]]\ncase = "published/add"\nreason = "no adder"\n')
    result = cli("null", "--only", "published/add", "--expect", "expected.toml", "--json", "--no-report")
    assert result.json["counts"] == {"unsupported": 1}


def test_a_baseline_counts_regressions_only(cli: Cli, tmp_path: Path) -> None:
    cli("null", *ONE)
    path = tmp_path / "conformance-null" / "report.json"
    assert cli("null", *ONE, "--baseline", path, "--no-report").code == exits.CERTIFIED
    (tmp_path / "expected.toml").write_text('[[unsupported]]\ncase = "published/*"\nreason = "no"\n')
    options = ("null", "--only", "published/[ra]*d*", "--only", "published/relu", "--no-report")
    fails = cli(*options, "--expect", "expected.toml", "--baseline", path)
    assert fails.code == exits.CERTIFIED  # an unexpected pass, but not a regression
    report = json.loads(path.read_text())
    report["entries"][0]["name"] = "published/add"  # it "passed" once
    path.write_text(json.dumps(report))
    result = cli("null", "--only", "published/add", "--baseline", path, "--no-report", "--json")
    assert result.code == exits.REGRESSED
    assert result.json["regressions"] == ["published/add"]


def test_the_list_names_cases_and_explains_levels(cli: Cli) -> None:
    assert cli("list", "--only", "first/*").out == "1 first/one_kernel_runs\n"
    assert "capture and replay" in cli("list", "--levels").out


def test_the_workflow_is_for_the_provider(cli: Cli) -> None:
    text = cli("ci", "my_npu").out
    assert "epkit conformance my_npu" in text and "acme" not in text
    assert "actions/upload-artifact" in text and "--baseline" in text


def test_new_packages_get_the_workflow() -> None:
    text = (PROJECT / "conformance" / "pyproject.toml").read_text(encoding="utf-8")
    entry = tomllib.loads(text)["project"]["entry-points"]["epkit.scaffold"]["conformance"]
    module, _, function = entry.partition(":")
    added = getattr(importlib.import_module(module), function)(derive_names("acme"))
    example = PROJECT / "examples" / "epkit-acme"
    assert added == {path: (example / path).read_text(encoding="utf-8") for path in added}
    assert list(added) == [".github/workflows/epkit-conformance.yml"]


class Impatient(Silent):
    """A user who presses Ctrl-C after three cases."""

    seen = 0

    def ended(self, entry: Entry) -> None:
        self.seen += 1
        if self.seen == 3:
            raise KeyboardInterrupt


def test_an_interrupted_run_reports_what_was_done(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    cli("null", "--level", "0", "--report", "there")
    assert (tmp_path / "there" / "certificate.json").exists()
    monkeypatch.setattr(progress, "watcher", lambda console: Impatient())
    result = cli("null", "--level", "0", "--report", "there")
    assert result.code == exits.INTERRUPTED
    assert "interrupted after 3 of" in result.out
    assert len(json.loads((tmp_path / "there" / "report.json").read_text())["entries"]) == 3
    assert not (tmp_path / "there" / "certificate.json").exists()  # it was of another run


class Unplugged(epkit.backend.null.NullProvider):
    """Installed, and its hardware is not there."""

    name = "made_unplugged"

    def devices(self) -> epkit.backend.Devices:
        return epkit.backend.Devices((), reason="no card on the bus", remedy="seat the card")


def test_a_provider_without_hardware_is_asked_nothing_more(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(default._types, Unplugged.name, Unplugged)
    result = cli(Unplugged.name, "--jobs", "1", "--no-report", "--json")
    assert result.code == exits.FAILED
    assert "no card on the bus" in result.json["stopped"]
    assert result.json["levels"]["0"] == "failing"
    assert set(result.json["levels"].values()) == {"failing", "not run"}


class Lazy(epkit.backend.null.NullProvider):
    """Refuses everything, and lets others work."""

    name = "made_lazy"

    def claim(self, graph: epkit.backend.Subgraph) -> Iterator[epkit.backend.Refusal]:
        return (epkit.backend.Refusal(node, "cost", "somebody else will do it") for node in graph.nodes)


def test_who_computes_nothing_is_certified_for_nothing(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(default._types, Lazy.name, Lazy)
    patterns = ("published/ab*", "graphs/*/3_rows", "generated/Add/*", "partitions/*")
    only = [text for pattern in patterns for text in ("--only", pattern)]
    result = cli(Lazy.name, *only, "--jobs", "2", "--no-report", "--json")
    assert result.code == exits.NOT_SHOWN
    assert set(result.json["counts"]) <= {"refused", "unsupported"}
    assert result.json["counts"]["refused"] > 50


def test_two_reports_side_by_side(cli: Cli, tmp_path: Path) -> None:
    cli("null", *ONE, "--report", "one")
    cli("cpu", *ONE, "--report", "two")
    result = cli("diff", "one/report.json", "two/report.json", "--html", "both.html", "--json")
    assert result.code == 0
    assert (result.json["old"].split()[0], result.json["new"].split()[0]) == ("null", "cpu")
    page = (tmp_path / "both.html").read_text()
    assert "null" in page and "cpu" in page and "Relu" in page


def test_pytest_gives_the_same_results(cli: Cli, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "--pyargs", "epkit_conformance", "--provider", "null"]
    command += ["--conformance-level", "1", "--conformance-report", "by_pytest", "-p", "no:cacheprovider"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    cli("null", "--level", "1", "--report", "by_command")
    one, other = (
        {entry["name"]: entry["result"]["state"] for entry in json.loads(path.read_text())["entries"]}
        for path in (tmp_path / "by_pytest" / "report.json", tmp_path / "by_command" / "report.json")
    )
    assert one == other and len(one) >= 8
    assert cli("verify", tmp_path / "by_pytest" / "certificate.json").code == exits.CERTIFIED
