"""BatchNormalization with constant statistics that are out of the ordinary."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import epkit
from epkit.errors import RunError
from epkit_cpu.native import isas

Array = np.ndarray[Any, Any]
ONES = np.ones(3, np.float32)
PLAIN = {"scale": ONES, "bias": ONES, "mean": ONES, "variance": ONES}


def run(statistics: Mapping[str, Array], optimise: str) -> Array:
    """On ones of 3 channels, whose number the model does not tell."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", "c", "h", "w"])
    node = helper.make_node("BatchNormalization", ["x", *statistics], ["y"], name="norm")
    weights = [numpy_helper.from_array(array, name) for name, array in statistics.items()]
    graph = helper.make_graph([node], "norm", [x], [onnx.ValueInfoProto(name="y")], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    with epkit.load(model, ["cpu"], optimise=optimise) as session:
        return np.asarray(session.run(None, {"x": np.ones((2, 3, 4, 5), np.float32)})["y"])


@pytest.fixture(params=("none", *isas()), autouse=True)
def isa(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EPKIT_CPU_ISA", request.param)


@pytest.mark.parametrize("optimise", ["none", "all"])
def test_a_variance_below_0_is_nan_and_no_warning(optimise: str) -> None:
    y = run(PLAIN | {"variance": np.array([1, -1, 1], np.float32)}, optimise)
    assert np.isnan(y).all(axis=(0, 2, 3)).tolist() == [False, True, False]


@pytest.mark.parametrize("optimise", ["none", "all"])
@pytest.mark.parametrize("name", PLAIN)
def test_statistics_of_another_size_are_an_error_of_the_node(name: str, optimise: str) -> None:
    with pytest.raises(RunError, match="norm"):
        run(PLAIN | {name: ONES[:1]}, optimise)
