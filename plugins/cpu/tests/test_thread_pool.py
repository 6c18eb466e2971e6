"""The engine's pool of threads by itself: every piece once, fair to callers at once, and without races."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

ENGINE = Path(__file__).parents[1] / "native" / "engine"
SOURCES = [Path(__file__).with_name("pool_driver.cpp"), ENGINE / "pool.cpp"]

pytestmark = pytest.mark.skipif(not shutil.which("g++"), reason="there is no compiler")


Pieces = Callable[..., list[tuple[int, int]]]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Pieces:
    """Of each caller: the pieces that it did itself, and those that the pool's threads did for it."""

    @cache
    def driver(cpus: int, *flags: str) -> str:
        program = str(tmp_path_factory.mktemp("pool") / "driver")
        command = ["g++", "-std=c++17", "-O1", "-g1", "-pthread", f"-I{ENGINE}", f"-DCPUS={cpus}", *flags]
        subprocess.run([*command, *map(str, SOURCES), "-o", program], check=True)
        return program

    def run(
        *flags: str, cpus: int = 16, callers: int, threads: int, jobs: int, pieces: int
    ) -> list[tuple[int, int]]:
        command = [driver(cpus, *flags), *map(str, (callers, threads, jobs, pieces))]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]
        counts = [(int(own), int(others)) for own, others in map(str.split, done.stdout.splitlines())]
        assert sum(map(sum, counts)) == jobs * pieces
        return counts

    return run


# With two threads a caller there is one helper for both, and where CPUs are fewer than threads the system's scheduler
# decides with whom it runs at the same time.
@pytest.mark.parametrize("threads", [4, 6])
def test_runs_at_once_have_equal_shares_of_the_pool(served: Pieces, threads: int) -> None:
    found = [others for _, others in served(callers=2, threads=threads, jobs=600, pieces=16)]
    assert sum(found) > 100, found
    assert min(found) > sum(found) / 4, found  # half of it would be equal


def test_callers_that_have_all_cpus_work_alone(served: Pieces) -> None:
    """A third thread would only take their CPUs away. Jobs at the start and at the end have no other beside them."""
    found = [others for _, others in served(cpus=2, callers=2, threads=2, jobs=600, pieces=16)]
    assert sum(found) < 600 * 16 / 4, found


@pytest.mark.parametrize(("callers", "threads"), [(1, 2), (1, 5), (3, 3), (11, 4)])
def test_every_piece_once_and_no_race(served: Pieces, callers: int, threads: int) -> None:
    """Under ThreadSanitizer; eleven callers are more than there can be jobs at once."""
    served("-fsanitize=thread", callers=callers, threads=threads, jobs=60, pieces=7)
