"""``python -m tests.backend``: ONNX's published cases, then every version of every operator, counted."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import onnx
import pytest

from ..versions.__main__ import main as versions

HERE = Path(__file__).parent
KINDS = {
    "test_onnx_backend.py": "passed in ONNX's own runner, which is not modified",
    "test_bernoulli_in_distribution": "random by specification: compared in type, shape and distribution",
    "test_loop16_seq_none_gives_the_published_sequence": (
        "whose published data that runner cannot compare (it takes len() of a scalar): compared here"
    ),
}
PUBLISHED = 2033


class Count:
    """A pytest plugin that counts what passed, by kind; other tests of the folder must pass, uncounted."""

    def __init__(self) -> None:
        self.passed: Counter[str] = Counter()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Called by pytest for each phase of each test."""
        if report.when == "call" and report.passed:
            for part, said in KINDS.items():
                if part in report.nodeid and (part[-3:] != ".py" or report.nodeid.endswith("_cpu")):
                    self.passed[said] += 1


def main() -> int:
    """Run everything and print the counts; returns 0 if nothing failed or is missing."""
    count = Count()
    failed = pytest.main(["-q", "--no-header", "-p", "no:cacheprovider", str(HERE)], plugins=[count])
    print(f"\nThe backend tests that onnx {onnx.__version__} publishes, on the CPU provider:")
    for said, number in count.passed.items():
        print(f"{number:>6,}  {said}")
    print(f"{count.passed.total():>6,}  of {PUBLISHED:,}\n")
    print("Each version of each operator, by who vouches for the result:")
    wrong = versions([])
    return int(bool(failed) or bool(wrong) or count.passed.total() != PUBLISHED)


if __name__ == "__main__":
    sys.exit(main())
