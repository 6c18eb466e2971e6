"""The suite itself: an honest provider gets honest results, a lazy one none."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from epkit_conformance.catalogue import all_cases
from epkit_conformance.compare import difference
from epkit_conformance.corpus.published import published
from epkit_conformance.evidence import run_model
from epkit_conformance.result import Result, State
from epkit_conformance.runner import run_here


def result(name: str, provider: str) -> Result:
    return run_here(next(case for case in all_cases() if case.name == name), provider)


def test_a_case_that_ran_on_the_provider_passes() -> None:
    assert result("published/relu", "null").state is State.PASSED


def test_a_case_that_the_fallback_ran_is_refused_with_the_reason() -> None:
    refused = result("published/add", "null")
    assert refused.state is State.REFUSED
    assert "null runs only" in refused.detail


def test_a_case_that_ran_partly_elsewhere_is_no_pass() -> None:
    assert result("graphs/diamond/3_rows", "null").state is State.FALLBACK


def test_a_wrong_expectation_fails() -> None:
    item = next(case for case in published() if case.name == "test_relu")
    (inputs, outputs) = item.data_sets[0]
    with pytest.raises(AssertionError, match="differs in"):
        run_model(item.model, [(inputs, [outputs[0] + 1])], "null")


@pytest.mark.parametrize(
    ("got", "want", "word"),
    [
        (np.zeros(2, "f"), np.zeros(3, "f"), "shape"),
        (np.zeros(2, "d"), np.zeros(2, "f"), "dtype"),
        (np.array([1, 2]), np.array([1, 3]), "differs in 1 of 2"),
        ([np.zeros(1)], [], "list of 0"),
        (np.array(["a"], object), np.array(["b"], object), "must be"),
        (None, np.zeros(()), "dtype"),
    ],
)
def test_differences_are_told(got: object, want: object, word: str) -> None:
    assert word in difference(got, want, 1e-3, 1e-6)


def test_equal_values_do_not_differ() -> None:
    assert difference(np.array([np.nan, np.inf], "f"), np.array([np.nan, np.inf], "f"), 1e-3, 0) == ""


def test_the_command_for_a_vendor_works_anywhere(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "--pyargs", "epkit_conformance", "--provider", "null"]
    command += ["-k", "level0 or level1 or published/relu", "-p", "no:cacheprovider"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "conformance of null: 8 passed" in done.stdout


def test_onnx_is_a_source_of_the_cases() -> None:
    assert len(published()) >= 1800
    assert len({case.name for case in all_cases()}) == len(all_cases())
