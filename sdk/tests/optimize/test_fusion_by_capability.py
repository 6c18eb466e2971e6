"""Fusions are driven by what providers know: who knows the operator gets it, for any other the parts remain."""

from __future__ import annotations

import contextlib
from collections import Counter
from typing import Any

import numpy as np
import onnx
import pytest
from transformer_samples import bert, bert_feeds

import epkit
import epkit.backend as ep
from epkit.pipeline import stages
from epkit.settings import Settings
from epkit.testing.oracle import assert_same, expected
from epkit.testing.plugins import registry_of


def standardised(x: Any, epsilon: float) -> Any:
    d = x - x.mean(-1, keepdims=True)
    return d / np.sqrt((d * d).mean(-1, keepdims=True) + np.float32(epsilon))


@ep.kernel("SkipLayerNormalization", domain="com.microsoft")
def skip_layer_normalization(
    x: Any, skip: Any, gamma: Any, beta: Any = None, bias: Any = None, *, epsilon: float
) -> Any:
    total = x + skip
    y = standardised(total, epsilon) * gamma
    return (y if beta is None else y + beta), None, None, total


@ep.kernel("Gelu", domain="com.microsoft")
def gelu(x: Any) -> Any:
    from math import erf

    return (x * (1 + np.vectorize(erf)(x / np.sqrt(2))) / 2).astype(x.dtype)


def toy(*kernels: ep.Kernel) -> type[ep.Provider]:
    class Toy(ep.KernelProvider):
        name = "toy"
        version = "1"

        def devices(self) -> ep.Devices:
            return ep.Devices((ep.Device("toy:0", "toy"),))

    Toy.kernels = kernels
    return Toy


def run(
    model: onnx.ModelProto, provider: type[ep.Provider], level: str = "extended"
) -> dict[str, Counter[str]]:
    """Check the result against the reference; return the operators of each provider."""
    feeds = bert_feeds()
    with epkit.load(model, ["toy"], registry=registry_of(provider), optimise=level) as session:
        assert_same(session.run(None, feeds), expected(model, feeds))
        found: dict[str, Counter[str]] = {"toy": Counter(), "cpu": Counter()}
        for node in session.placement.nodes:
            found[node.provider][node.operator] += 1
    return found


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_who_knows_only_skip_layer_normalization_gets_exactly_those(layers: int) -> None:
    """Two a layer, and the embeddings': the first rows of a table, of the length of what they are added to."""
    found = run(bert(layers), toy(skip_layer_normalization))
    assert found["toy"] == {"com.microsoft.SkipLayerNormalization": 2 * layers + 1}
    assert "com.microsoft.SkipLayerNormalization" not in found["cpu"]


def nodes_of(model: onnx.ModelProto, level: str, *kernels: ep.Kernel) -> set[tuple[str, str]]:
    """Names and operators, where only a toy is there, and the model is not run."""
    settings = Settings(("toy",), "error", level)
    found = {}
    with contextlib.suppress(epkit.EpkitError):  # the toy does not take all nodes
        for stage, value in stages(model, settings, registry_of(toy(*kernels), installed=False)):
            found[stage] = value
    return {(str(node.name), node.op_type) for node in found["claim"].model.graph}


def test_where_nobody_knows_a_fused_operator_the_nodes_stay_as_they_were() -> None:
    assert nodes_of(bert(), "extended") == nodes_of(bert(), "basic")


@ep.kernel("SkipLayerNormalization", domain="com.microsoft", when=lambda node: "not today")
def reluctant(*inputs: Any, epsilon: float) -> Any:
    raise AssertionError("never called")


def test_who_knows_it_and_refuses_it_gets_the_nodes_as_they_were() -> None:
    assert nodes_of(bert(), "extended", reluctant) == nodes_of(bert(), "basic")


def test_a_name_of_another_domain_is_given_to_those_who_want_it() -> None:
    found = run(bert(), toy(gelu))
    assert found["toy"] == {"com.microsoft.Gelu": 2}
