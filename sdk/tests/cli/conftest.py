"""Runs the command line in this process and keeps what it printed."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from epkit.cli.app import app

HEADER = '<ir_version: 8, opset_import: ["": 18]>'


@dataclass(frozen=True)
class Result:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """What it printed on stdout, all of it, as JSON."""
        return json.loads(self.out)


Cli = Callable[..., Result]
TextModel = Callable[..., Path]


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Cli:
    """``cli("run", path, columns=80)`` is ``epkit run path`` on 80 columns."""
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)  # typer sets it

    def call(*arguments: object, columns: int = 80) -> Result:
        monkeypatch.setenv("COLUMNS", str(columns))
        capsys.readouterr()
        code: Any = 0
        try:
            app([str(argument) for argument in arguments], prog_name="epkit")
        except SystemExit as end:
            code = end.code or 0
        printed = capsys.readouterr()
        return Result(code, printed.out, printed.err)

    return call


@pytest.fixture
def text_model(tmp_path: Path) -> TextModel:
    """Writes the text of a graph as a model file."""

    def write(graph: str, header: str = HEADER) -> Path:
        path = tmp_path / "model.onnxtxt"
        path.write_text(f"{header} {graph}")
        return path

    return write


@pytest.fixture
def model(text_model: TextModel) -> Path:
    """``y = max(x, 0) + bias``, and ``total``, the sum of y."""
    return text_model(
        """graph (float[batch, 3] x, float[batch, 3] bias) => (float[batch, 3] y, float[] total) {
            positive = Relu(x)
            y = Add(positive, bias)
            total = ReduceSum <keepdims = 0> (y)
        }"""
    )
