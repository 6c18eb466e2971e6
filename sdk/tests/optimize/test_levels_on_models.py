"""Whole models at every level: the values stay, whoever runs what; and every prefix of the changes is sound."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from transformer_samples import bert, bert_feeds

import epkit
from epkit.errors import InvalidModelError
from epkit.knobs import CHECKED
from epkit.model.check import check
from epkit.model.fix import fix_dimensions
from epkit.model.read import read
from epkit.optimize.levels import LEVELS
from epkit.optimize.optimise import optimise
from epkit.testing.models import model, random_feeds, random_model
from epkit.testing.oracle import assert_same, expected

ENCODER = bert(layers=1)


@pytest.fixture(autouse=True)
def checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CHECKED.name, "1")


def run(proto: Any, feeds: dict[str, np.ndarray[Any, Any]], level: str) -> dict[str, Any]:
    with epkit.load(proto, optimise=level) as session:
        return dict(session.run(None, feeds))


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("length", [1, 5])
def test_an_encoder_computes_the_same_at_every_level(level: str, length: int) -> None:
    feeds = bert_feeds(2, length)
    assert_same(run(ENCODER, feeds, level), expected(ENCODER, feeds), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("seed", range(4))
def test_random_models_compute_the_same_at_every_level(level: str, seed: int) -> None:
    proto = random_model(random.Random(seed), 14, 2)
    assert_same(run(proto, random_feeds(), level), expected(proto, random_feeds()))


def test_every_prefix_of_the_changes_is_a_sound_model() -> None:
    """What ``--stop-after N`` bisects over: if the whole is right, all beginnings of it are."""
    feeds = bert_feeds(2, 3)
    wanted = expected(ENCODER, feeds)
    found = check(read(ENCODER)).model
    whole = optimise(found, "extended").applied
    assert len(whole) > 8
    for count in range(0, len(whole) + 1, 3):
        part = optimise(found, "extended", stop_after=count)
        assert part.applied == whole[:count]
        assert_same(run(part.model, feeds, "none"), wanted, rtol=1e-5, atol=1e-5)


def test_what_a_fixed_length_makes_certain_is_fused_too() -> None:
    """The embeddings' sum is fused once the length is known: then the positions cannot broadcast."""
    raw = read(ENCODER)
    fix_dimensions(raw, {"batch": 2, "length": 5})
    fused = optimise(check(raw).model, "extended").model
    found = {node.op_type for node in fused.graph}
    assert_same(run(fused, bert_feeds(), "none"), expected(ENCODER, bert_feeds()), rtol=1e-5, atol=1e-5)
    assert {"EmbedLayerNormalization", "MultiHeadAttention"} <= found
    assert "Softmax" not in found and "LayerNormalization" not in found


def test_a_rule_that_breaks_the_graph_is_named() -> None:
    def cut(found: ir.Model) -> int:
        node = found.graph[0]
        node.replace_input_with(0, ir.Value(name="nowhere"))
        return 1

    found = check(read(model("g (float[2] x) => (float[2] y) { y = Neg(x) }"))).model
    with pytest.raises(InvalidModelError, match="after cut, .* reads nowhere"):
        optimise(found, "extended", extra=[cut])


def test_rules_reach_into_bodies() -> None:
    proto: onnx.ModelProto = model("""
        g (float[2] x, bool c) => (float[2] y) <float one = {1}, float half = {0.5}, float r = {1.4142135}> {
            y = If(c) <then_branch = a () => (float[2] p) { d = Div(x, r)  e = Erf(d)  s = Add(e, one)  h = Mul(x, half)  p = Mul(h, s) },
                       else_branch = b () => (float[2] q) { z = Mul(x, one)  q = Neg(z) }> }""")
    found = optimise(check(read(proto)).model, "extended")
    assert {"gelu", "remove_neutral"} <= {each.rule for each in found.applied}
    feeds = {"x": np.array([1, -2], np.float32), "c": np.array(True)}
    assert_same(run(proto, feeds, "extended"), expected(proto, feeds))


@pytest.mark.parametrize("level", ["extended", "all"])
def test_weights_of_rows_that_a_body_reads_are_there_when_it_does(level: str) -> None:
    proto: onnx.ModelProto = model("""
        g (float[4, 3, 2] q, float[4, 3, 2] k, float[4, 3, 2] v, bool c) => (float[4, 3, 2] y, float[4, 3, 3] z) {
            t = Transpose <perm = [0, 2, 1]> (k)  p = MatMul(q, t)  w = Softmax <axis = -1> (p)
            z = If(c) <then_branch = a () => (float[4, 3, 3] r) { r = Neg(w) }, else_branch = b () => (float[4, 3, 3] s) { s = Abs(w) }>
            o = MatMul(w, v)  y = Neg(o) }""")
    rng = np.random.default_rng(0)
    feeds = {name: rng.standard_normal((4, 3, 2)).astype(np.float32) for name in "qkv"} | {
        "c": np.array(True)
    }
    assert_same(run(proto, feeds, level), expected(proto, feeds), rtol=1e-5, atol=1e-6)
