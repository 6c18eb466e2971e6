"""The page on native kernels is true: its C compiles without warnings, its Python runs."""

from __future__ import annotations

import re
import shutil
import subprocess
import types
from pathlib import Path

import pytest

from epkit.backend.native import INCLUDE

PAGE = Path(__file__).resolve().parents[2] / "docs" / "native-kernels.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.S | re.M)


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
def test_the_page_compiles_and_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (kernel,) = blocks("c")
    assert len(kernel.splitlines()) <= 32
    (tmp_path / "kernels.c").write_text(kernel, encoding="utf-8")
    flags = ["-std=c11", "-O3", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", f"-I{INCLUDE}"]
    subprocess.run(["cc", *flags, "kernels.c", "-o", "kernels.so"], cwd=tmp_path, check=True)
    monkeypatch.chdir(tmp_path)
    module = types.ModuleType("native_kernels_page")
    exec(compile("\n".join(blocks("python")), str(PAGE), "exec"), module.__dict__)


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
@pytest.mark.parametrize("language", ["c", "c++"])
def test_the_header_stands_alone(tmp_path: Path, language: str) -> None:
    text = f'#include "{INCLUDE / "epkit_kernel.h"}"\nint unused(void);\n'
    (tmp_path / "alone.c").write_text(text, encoding="utf-8")
    flags = ["-x", language, "-Wall", "-Wextra", "-Wno-unused-function", "-Werror", "-fsyntax-only"]
    subprocess.run(["cc", *flags, "alone.c"], cwd=tmp_path, check=True)
