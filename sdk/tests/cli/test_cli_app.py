"""How the command line behaves as a whole: exit codes, streams, widths, errors."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Cli

import epkit
from epkit.errors import EpkitError

COMMANDS = ("run", "inspect", "explain", "providers", "bench", "new-provider")


def test_an_error_is_read_by_people_on_stderr(cli: Cli) -> None:
    result = cli("run", "nope.onnx")
    assert (result.code, result.out) == (1, "")
    what, where, remedy = result.err.splitlines()
    assert what.startswith("error: ") and "nope.onnx" in what
    assert where.startswith("  where:") and remedy.startswith("  try:")


def test_an_error_is_read_by_programs_on_stdout(cli: Cli, model: Path) -> None:
    result = cli("run", model, "-p", "nul", "--json")
    assert result.code == 1
    assert result.json["error"]["type"] == "UnknownProviderError"
    assert result.json["error"]["where"]["provider"] == "nul"
    assert "'null'" in result.json["error"]["try"]


def test_debug_shows_the_traceback(cli: Cli) -> None:
    with pytest.raises(EpkitError):
        cli("run", "nope.onnx", "--debug")


def test_a_fault_of_our_own_is_told_apart(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(epkit, "providers", lambda: 1 / 0)
    result = cli("providers")
    assert result.code == 1
    assert "ZeroDivisionError" in result.err and "--debug" in result.err


def test_interrupting_is_quiet(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(epkit, "providers", interrupted)
    assert vars(cli("providers")) == {"code": 130, "out": "", "err": ""}


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("frobnicate",),
        ("run",),
        ("run", "m.onnx", "--frob"),
        ("run", "m.onnx", "-p", "null:fast"),
        ("run", "m.onnx", "--fix", "batch"),
        ("run", "m.onnx", "--fix", "batch=-1"),
        ("run", "m.onnx", "--repeat", "0"),
    ],
    ids=" ".join,
)
def test_misuse_ends_with_2(cli: Cli, arguments: tuple[str, ...]) -> None:
    assert cli(*arguments).code == 2


@pytest.mark.parametrize("columns", [80, 120])
def test_everything_fits_the_terminal(cli: Cli, model: Path, columns: int) -> None:
    shown = [
        ("explain", model, "-p", "null", "--nodes"),
        ("inspect", model),
        ("run", model, "-p", "null"),
        ("bench", model, "-p", "null", "--runs", 1),
        *((command, "--help") for command in COMMANDS),
    ]
    for arguments in shown:
        result = cli(*arguments, columns=columns)
        assert result.code == 0
        assert max(map(len, result.out.splitlines())) <= columns


def test_in_a_pipe_there_are_no_colours_and_rows_stay_whole(model: Path) -> None:
    environment = {key: value for key, value in os.environ.items() if key not in ("COLUMNS", "FORCE_COLOR")}
    command = [sys.executable, "-m", "epkit.cli", "explain", str(model), "-p", "null", "--nodes"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    assert "\x1b" not in done.stdout + done.stderr
    assert done.stderr == ""
    (row,) = (line for line in done.stdout.splitlines() if line.startswith("ReduceSum_"))
    assert "null runs only Relu, Neg" in row
    assert row == row.rstrip()


def test_version(cli: Cli) -> None:
    assert cli("--version").out == f"epkit {epkit.__version__}\n"


def test_help_imports_nothing_heavy() -> None:
    code = "import sys, epkit.cli; print(sorted({'numpy', 'onnx', 'onnx_ir'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_only_the_command_line_imports_the_terminal_libraries() -> None:
    package = Path(epkit.__file__).parent
    for path in package.rglob("*.py"):
        if path.is_relative_to(package / "cli"):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not {name.partition(".")[0] for name in names} & {"typer", "rich"}, path


def test_json_has_no_words_for_what_is_not_a_number(cli: Cli, model: Path, tmp_path: Path) -> None:
    import numpy as np

    np.savez(
        tmp_path / "in.npz", x=np.full((1, 3), np.nan, np.float32), bias=np.full((1, 3), np.inf, np.float32)
    )
    out = cli("run", model, "--input", tmp_path / "in.npz", "--json").out

    def refuse(word: str) -> None:
        raise AssertionError(word)

    (case,) = json.loads(out, parse_constant=refuse)["cases"]
    assert case["outputs"][0]["max"] is None
