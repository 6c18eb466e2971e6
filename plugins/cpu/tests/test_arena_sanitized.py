"""AddressSanitizer knows the arena's buffers one by one, although they lie in one block of the system's memory."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ENGINE = Path(__file__).parents[1] / "native" / "engine"
SOURCES = [Path(__file__).with_name("arena_driver.cpp"), ENGINE / "arena.cpp", ENGINE / "offsets.cpp"]

pytestmark = pytest.mark.skipif(not shutil.which("g++"), reason="there is no compiler")


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> str:
    program = str(tmp_path_factory.mktemp("arena") / "driver")
    command = ["g++", "-std=c++17", "-O1", "-g1", "-fsanitize=address", f"-I{ENGINE}", *map(str, SOURCES)]
    subprocess.run([*command, "-o", program], check=True)
    return program


@pytest.mark.parametrize("size", [1, 64, 3 << 20])
def test_every_byte_outside_a_buffer_is_an_error(driver: str, size: int) -> None:
    def outcome(*arguments: object) -> str:
        done = subprocess.run([driver, str(size), *map(str, arguments)], capture_output=True, text=True)
        assert (done.returncode != 0) == ("use-after-poison" in done.stderr), done.stderr[-2000:]
        return "error" if done.returncode else "right"

    assert [outcome(0), outcome(size - 1)] == ["right"] * 2
    assert [outcome(-1), outcome(size), outcome(size + 63), outcome(0, "given")] == ["error"] * 4
