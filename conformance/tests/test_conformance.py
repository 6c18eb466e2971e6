"""The suite itself: an honest provider gets honest results, a lazy one none."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import onnx
import pytest

from epkit_conformance.compare import difference
from epkit_conformance.evidence import State, run_case
from epkit_conformance.published import published_cases


def case(name: str):  # type: ignore[no-untyped-def]
    return next(c for c in published_cases() if c.name == name)


def test_a_case_that_ran_on_the_provider_passes() -> None:
    assert run_case(case("test_relu"), "null").state is State.PASSED


def test_a_case_that_the_fallback_ran_is_refused_with_the_reason() -> None:
    result = run_case(case("test_add"), "null")
    assert result.state is State.REFUSED
    assert "null runs only" in result.detail


def test_a_case_that_ran_partly_elsewhere_is_no_pass() -> None:
    result = run_case(case("test_hardswish_expanded"), "null")
    assert result.state in (State.FALLBACK, State.REFUSED)


def test_a_wrong_expectation_fails() -> None:
    good = case("test_relu")
    (inputs, outputs) = good.data[0]
    wrong = type(good)("wrong", good.model, [(inputs, [outputs[0] + 1])])
    result = run_case(wrong, "null")
    assert result.state is State.FAILED
    assert "differs in" in result.detail


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


def test_the_command_for_a_vendor_works_anywhere(tmp_path) -> None:  # type: ignore[no-untyped-def]
    command = [sys.executable, "-m", "pytest", "-q", "--pyargs", "epkit_conformance", "--provider", "null"]
    command += ["-k", "level_0 or level_1 or (operator and relu)", "-p", "no:cacheprovider"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "conformance of null" in done.stdout


def test_onnx_is_the_source_of_the_cases() -> None:
    assert len(published_cases()) >= 1800
    assert isinstance(published_cases()[0].model, onnx.ModelProto)
