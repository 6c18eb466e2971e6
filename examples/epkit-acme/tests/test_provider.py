"""Each operator against its definition. ``fallback="error"``: no other provider may help."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx.parser
import pytest

import epkit

OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "Add(x, y)": lambda x, y: x + y,
    "Mul(x, y)": lambda x, y: x * y,
    "Relu(x)": lambda x, y: np.where(x > 0, x, 0),
    "Sigmoid(x)": lambda x, y: 1 / (1 + np.exp(-x)),
    "Tanh(x)": lambda x, y: np.tanh(x),
    "MatMul(x, y)": lambda x, y: x @ y,
}


def load(call: str, dtype: str = "float", rank: int = 2, **options: Any) -> epkit.Session:
    shape = ", ".join(["4"] * rank)
    text = f"{dtype}[{shape}] x, {dtype}[{shape}] y) => ({dtype}[{shape}] z) {{ z = {call} }}"
    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 18]> graph ({text}')
    return epkit.load(model, [("acme", options)], fallback="error")


@pytest.mark.parametrize("call", OPERATORS)
def test_operator_equals_its_definition(call: str) -> None:
    x, y = np.random.default_rng(0).uniform(-3, 3, (2, 4, 4))
    session, profile = load(call), epkit.Profile()
    feeds = {"x": x.astype(np.float32), "y": y.astype(np.float32)}
    z = session.run(None, feeds, epkit.RunOptions(profile=profile))["z"]
    np.testing.assert_allclose(z, OPERATORS[call](x, y), rtol=1e-5, atol=1e-5)
    assert set(profile.dispatched().values()) == {"acme"}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("precise", [False, True])
@pytest.mark.parametrize("call", OPERATORS)
def test_infinity_is_no_reason_to_warn(call: str, precise: bool) -> None:
    x = np.array([np.inf, -np.inf, np.nan, 3e38], np.float32).repeat(4).reshape(4, 4)
    with np.errstate(all="ignore"):
        want = OPERATORS[call](x, -x)
    want = np.where(np.isnan(x), x, want) if call == "Relu(x)" else want
    np.testing.assert_allclose(load(call, precise=precise)(x=x, y=-x)["z"], want, rtol=1e-5)


def test_precise_sums_in_float64() -> None:
    x = np.full((4, 4), 1, np.float32)
    y = np.array([[1e8], [1], [-1e8], [1]], np.float32).repeat(4, axis=1)
    np.testing.assert_array_equal(load("MatMul(x, y)", precise=True)(x=x, y=y)["z"], 2)


@pytest.mark.parametrize(
    ("call", "dtype", "rank", "reason"),
    [
        ("Add(x, y)", "double", 2, "needs T in float32; found float64"),
        ("MatMul(x, y)", "float", 3, "acme multiplies matrices only, found ranks [3, 3]"),
        ("Div(x, y)", "float", 2, "no kernel for Div"),
    ],
)
def test_refusals_say_why(call: str, dtype: str, rank: int, reason: str) -> None:
    with pytest.raises(epkit.EpkitError) as caught:
        load(call, dtype, rank)
    assert reason in str(caught.value)


def test_the_package_is_found_and_ready() -> None:
    states = {state.name: state for state in epkit.providers()}
    assert (states["acme"].state, states["acme"].package) == ("ready", "epkit-acme")
