"""The published cases that the official runner cannot compare: see NOT_HERE in test_onnx_backend.py."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import onnx
import pytest

import epkit
from epkit.compat.onnx_backend import EpkitBackend

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from onnx.backend.test.loader import load_model_tests
    from onnx.backend.test.runner import Runner

    CASES = {case.name: case for case in load_model_tests(kind="node")}

DRAWS = 20_000


@pytest.mark.parametrize("name", sorted(name for name in CASES if name.startswith("test_bernoulli")))
def test_bernoulli_in_distribution(name: str) -> None:
    """Type and shape as published; over many draws, each element is 1 at its own rate, within six deviations.

    The published expansions compare a uniform number with x by Greater, so their rate is 1 - x.
    """
    case = CASES[name]
    [([x], [published])] = case.data_sets
    (drawn,) = EpkitBackend.prepare(case.model).run([x])
    assert drawn.dtype == published.dtype and drawn.shape == published.shape
    assert set(drawn.tolist()) <= {0.0, 1.0}

    many = onnx.ModelProto.FromString(case.model.SerializeToString())
    for value in (*many.graph.input, *many.graph.output):
        value.type.tensor_type.ClearField("shape")
    with epkit.load(many) as session:
        draws = session(x=np.tile(x, (DRAWS, 1)))["y"]
        again = session(x=np.tile(x, (DRAWS, 1)))["y"]
    rate = 1 - x if name.endswith("_expanded") else x
    deviation = np.sqrt(rate * (1 - rate) / DRAWS)
    assert (np.abs(draws.mean(axis=0) - rate) < 6 * deviation).all()
    together = np.corrcoef(draws, rowvar=False)
    assert np.abs(together - np.eye(len(x))).max() < 6 / np.sqrt(DRAWS), "the elements are independent"
    assert np.array_equal(draws, again) == ("seed" in name)


def test_loop16_seq_none_gives_the_published_sequence() -> None:
    case = CASES["test_loop16_seq_none"]
    [(inputs, [published])] = case.data_sets
    (found,) = EpkitBackend.prepare(case.model).run(inputs)
    assert len(found) == len(published) == 6
    for one, other in zip(found, published, strict=True):
        np.testing.assert_array_equal(one, other, strict=True)


def test_loop16_seq_none_cannot_pass_the_runner() -> None:
    """No answer can: of a sequence the runner takes len() of the published scalar, of all else a list's shape."""
    [(_, published)] = CASES["test_loop16_seq_none"].data_sets
    as_object = np.empty(len(published[0]), object)
    as_object[:] = published[0]
    answers: list[tuple[Any, type[Exception], str]] = [
        (published, TypeError, "Unable to compare"),
        (tuple(published), TypeError, "Unable to compare"),
        ([tuple(published[0])], TypeError, "Unable to compare"),
        ([[[item] for item in published[0]]], TypeError, "Unable to compare"),
        ([as_object], AttributeError, "'list' object has no attribute 'shape'"),
    ]
    for answer, error, said in answers:
        with pytest.raises(error, match=said):
            Runner.assert_similar_outputs(published, answer, rtol=1e-3, atol=1e-7)
