"""What a model should compute: an independent evaluator, and the comparison."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator


def expected(model: onnx.ModelProto, feeds: Mapping[str, Any]) -> dict[str, Any]:
    """The model's outputs by name, computed by ``onnx.reference``."""
    with np.errstate(all="ignore"):
        results = ReferenceEvaluator(model).run(None, dict(feeds))
    return {output.name: result for output, result in zip(model.graph.output, results, strict=True)}


def assert_same(actual: Any, wanted: Any, *, rtol: float = 1e-4, atol: float = 1e-5) -> None:
    """Names, types, shapes and values agree; dicts and lists are compared item by item.

    Raises:
        AssertionError: naming the first item that differs.
    """
    if isinstance(wanted, Mapping):
        assert sorted(actual) == sorted(wanted)
        for name, item in wanted.items():
            assert_same(actual[name], item, rtol=rtol, atol=atol)
    elif isinstance(wanted, list | tuple):
        assert len(actual) == len(wanted)
        for one, other in zip(actual, wanted, strict=True):
            assert_same(one, other, rtol=rtol, atol=atol)
    elif wanted is None:
        assert actual is None
    else:
        _assert_same_array(actual, np.asarray(wanted), rtol, atol)


def _assert_same_array(actual: Any, wanted: np.ndarray[Any, Any], rtol: float, atol: float) -> None:
    assert isinstance(actual, np.ndarray), f"expected an array, got {type(actual).__name__}"
    if wanted.dtype.kind in "OSU":
        assert actual.dtype.kind in "OSU"
        assert actual.tolist() == wanted.tolist()
        return
    assert (actual.dtype, actual.shape) == (wanted.dtype, wanted.shape)
    if wanted.dtype.kind in "biu":
        np.testing.assert_array_equal(actual, wanted)
    elif wanted.dtype.kind == "f":
        np.testing.assert_allclose(actual, wanted, rtol=rtol, atol=atol)
    else:  # the narrow floats of ml_dtypes
        np.testing.assert_allclose(actual.astype(np.float32), wanted.astype(np.float32), rtol=rtol, atol=atol)
