"""The tests of the kernels once more, on a device with 64 work-items and 16 KiB of local memory."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

FILES = ("kernels", "fused", "half", "recurrent", "winograd", "pooling", "movement", "scatter")


@pytest.mark.slow
def test_all_kernels_on_a_tiny_gpu() -> None:
    here = Path(__file__).parent
    files = [str(here / f"test_opencl_{name}.py") for name in FILES]
    plain = ["-q", "-p", "opencl_tiny", "-p", "no:cacheprovider", "-m", "not slow"]
    code = f"import sys, pytest; sys.path.insert(0, {str(here)!r}); sys.exit(pytest.main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, *plain, *files]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    said = re.search(r"launches of a tiny device: (\d+)", done.stdout)
    assert said is not None and int(said[1]) > 1000
