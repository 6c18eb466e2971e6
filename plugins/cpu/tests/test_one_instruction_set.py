"""An engine built for one instruction set only, as ``make demo`` builds it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

NATIVE = Path(__file__).parents[1] / "native"
OBJECTS = NATIVE / "build" / "release"

sys.path.insert(0, str(NATIVE))
import build  # noqa: E402


@pytest.mark.skipif(not OBJECTS.is_dir(), reason="the engine was not built here")
def test_it_can_be_imported_and_has_that_set(tmp_path: Path) -> None:
    folder = tmp_path / "objects"
    shutil.copytree(OBJECTS, folder)  # what is the same for all sets is not compiled again
    library = build.build(tmp_path / f"_engine{build.SUFFIX}", folder, only="native")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import _engine; print(*_engine.isas())"
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert library.exists()
    assert build.native_isa() in found.split()
    assert not set(found.split()) & (set(build.instruction_sets()) - {build.native_isa()})
