"""No kernel reads or writes outside its buffers, and no two work-items race, says Oclgrind."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CHECKED = Path(__file__).parent / "opencl_checked.py"
FINDINGS = ("Invalid read", "Invalid write", "data race", "Work-group divergence", "barrier")


def output_of(*arguments: str) -> str:
    """What Oclgrind and the program say."""
    command = ["oclgrind", "--data-races", sys.executable, str(CHECKED), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.skipif(
    shutil.which("oclgrind") is None, reason="oclgrind is not installed (apt-get install oclgrind)"
)
def test_kernels_stay_inside_their_buffers() -> None:
    assert "Invalid read" in output_of("control")
    said = output_of()
    assert "platform Oclgrind" in said
    assert said.count("done ") == 50
    assert not [line for line in said.splitlines() if any(word in line for word in FINDINGS)]
