"""The rules that prepare others, and those of the layout, on random instances: each fires, and the values stay."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from rule_instances import Draw
from test_basic_rules import MAKERS as BASIC
from test_basic_rules import Drawn, Example
from test_fusion_rules import CASES as FUSED

import epkit
import epkit.backend as ep
from epkit.model.check import check
from epkit.model.read import read
from epkit.optimize.layouts import LAYOUTS, Blocks
from epkit.optimize.levels import LEVELS
from epkit.optimize.optimise import optimise
from epkit.testing.oracle import assert_same

SIDE = st.integers(1, 4)


def rotated(b: Drawn, both: Callable[[str], str], half: int) -> str:
    """x [.., .., length, 2 half] turned by angles of which ``both`` makes the factors."""
    low, high = (
        b.op("Slice", b.x, b.ints(s), b.ints(e), b.ints(3)) for s, e in ((0, half), (half, 2 * half))
    )
    turned = b.op("Concat", b.op("Neg", high), low, axis=-1)
    return b.op("Add", b.op("Mul", b.x, both("Cos")), b.op("Mul", turned, both("Sin")))


def halve_angles(draw: Draw) -> Example:
    """Of angles that are computed, or of a table of which the first rows or some rows are taken."""
    length, half, how = draw(SIDE), draw(SIDE), draw(st.sampled_from(["computed", "first rows", "rows"]))
    b = Drawn(draw, 4, draw(SIDE), 2, length, 2 * half, dims=["N", 2, "L", 2 * half])
    rows, places = b.given("f", length, half), b.input("p", onnx.TensorProto.INT64, [length])
    b.feeds["p"] = np.arange(length)
    table = {kind: np.tile(b.rng.standard_normal((9, half)), 2) for kind in ("Cos", "Sin")}

    def both(kind: str) -> str:
        if how == "computed":
            found = b.op(kind, b.op("Concat", rows, rows, axis=-1))
        elif how == "rows":
            found = b.op("Gather", b.constant(table[kind]), places)
        else:
            size = b.op("Shape", b.x, start=2, end=3)
            found = b.op("Slice", b.constant(table[kind]), b.ints(0), size, b.ints(0))
        return b.op("Unsqueeze", b.op("Cast", found, to=1), b.ints(0, 1))

    return b.done(rotated(b, both, half))


def spell_out_angles(draw: Draw) -> Example:
    length, half = draw(SIDE), draw(SIDE)
    b = Drawn(draw, 4, draw(SIDE), 2, length, 2 * half)
    form = draw(st.sampled_from([(), (1,), (1, 1)]))
    return b.done(
        rotated(b, lambda _: b.constant(np.tile(b.rng.standard_normal((*form, length, half)), 2)), half)
    )


def lift_angles(draw: Draw) -> Example:
    length, half = draw(SIDE), draw(SIDE)
    b = Drawn(draw, 4, draw(SIDE), 2, length, 2 * half)
    wide = draw(st.booleans())

    def both(kind: str) -> str:
        angles = b.given(kind, length, half)
        pair = b.op("Concat", angles, angles, axis=1)
        return b.op("Unsqueeze", pair, b.ints(0, 1)) if wide else pair

    return b.done(rotated(b, both, half))


def attended(b: Drawn, k: str, turn: list[int]) -> str:
    n, heads, length, size = b.shape
    scores = b.op("MatMul", b.x, b.op("Transpose", k, perm=turn))
    weights = b.op("Softmax", b.op("Mul", scores, b.constant(0.5)), axis=-1)
    return b.op("MatMul", weights, b.given("v", n, heads, 3, size))


def expose_keys(draw: Draw) -> Example:
    b = Drawn(draw, 4)
    n, heads, _, size = b.shape
    return b.done(attended(b, b.given("k", n, 3, heads, size), [0, 2, 3, 1]))


def join_heads(draw: Draw) -> Example:
    b = Drawn(draw, 4)
    n, heads, _, size = b.shape
    mixed = attended(b, b.given("k", n, heads, 3, size), [0, 1, 3, 2])
    rows = b.op("Reshape", b.op("Transpose", mixed, perm=[0, 2, 1, 3]), b.ints(-1, heads * size))
    return b.done(b.op("Gemm", rows, b.weight(heads * size, 2)))


def choose_by_product(draw: Draw) -> Example:
    """As tf2onnx writes a choice: of scores, or of what the softmax gave; by a mask, or by a known one."""
    b = Drawn(draw, 4)
    n, heads, length, size = b.shape
    keep, is_known = b.rng.random((n, 1, length, 3)) < 0.6, draw(st.booleans())
    m = b.constant(keep, bool) if is_known else b.input("m", onnx.TensorProto.BOOL, [n, 1, length, 3])
    if is_known:
        keep[..., 0], keep[0, 0, 0, -1] = True, False  # one that is chosen, and one that is not
        m = b.constant(keep, bool)
    else:
        b.feeds["m"] = keep
    kept = b.op("Cast", m, to=1)
    spelled = draw(st.booleans())
    dropped = b.op("Sub", b.constant(1.0), kept) if spelled else b.op("Cast", b.op("Not", m), to=1)

    def chosen(x: str, other: float) -> str:
        rest = b.op("Mul", *draw(st.permutations([b.constant(other), dropped])))
        return b.op("Add", *draw(st.permutations([b.op("Mul", *draw(st.permutations([kept, x]))), rest])))

    scores = b.op("MatMul", b.x, b.given("k", n, heads, size, 3))
    weights = b.op("Softmax", chosen(scores, -2e38), axis=-1)
    weights = chosen(weights, 0.0) if draw(st.booleans()) else weights
    return b.done(b.op("MatMul", weights, b.given("v", n, heads, 3, size)))


def turn_scores(draw: Draw) -> Example:
    """As tf2onnx writes Keras 2's attention: a column for each query; the softmax before or after the turn."""
    b = Drawn(draw, 4)
    n, heads, length, size = b.shape
    keys = b.op("Transpose", b.given("k", n, 3, heads, size), perm=[0, 2, 1, 3])
    scores = b.op("MatMul", keys, b.op("Transpose", b.x, perm=[0, 1, 3, 2]))
    if draw(st.booleans()):
        scores = b.op("Mul", *draw(st.permutations([scores, b.constant(0.3)])))
    if draw(st.booleans()):
        form = draw(st.sampled_from([(n, 1, 3, 1), (1, 1, 3, length), (3, length), (length,), (1,)]))
        mask = b.given("mask", *form) if draw(st.booleans()) else b.weight(*form)
        scores = b.op("Add", *draw(st.permutations([scores, mask])))
    is_plain = scores == b.nodes[2].output[0]  # turned after it, that is the business of transpose_of_product
    if is_plain or draw(st.booleans()):
        axis = draw(st.sampled_from([2, -2]))
        weights = b.op("Transpose", b.op("Softmax", scores, axis=axis), perm=[0, 1, 3, 2])
    else:
        weights = b.op("Softmax", b.op("Transpose", scores, perm=[0, 1, 3, 2]), axis=-1)
    return b.done(b.op("MatMul", weights, b.given("v", n, heads, 3, size)))


def rows_as_batches(draw: Draw) -> Example:
    """As torch writes attention whose weights are asked for: a row for each head of each sample."""
    b = Drawn(draw, 3)
    rows, length, size = b.shape
    turn, k = draw(st.sampled_from([([0, 2, 1], (rows, 3, size)), ([1, 2, 0], (3, rows, size))]))
    q = b.op("Mul", b.x, b.constant(0.3)) if draw(st.booleans()) else b.x
    scores = b.op("MatMul", q, b.op("Transpose", b.given("k", *k), perm=turn))
    if draw(st.booleans()):
        scores = b.op("Div", scores, b.constant(2.0))
    if draw(st.booleans()):
        mask = draw(st.sampled_from([(rows, 1, 3), (1, length, 3), (length, 3), (3,)]))
        scores = b.op("Add", *draw(st.permutations([scores, b.given("mask", *mask)])))
    weights = b.op("Softmax", scores, axis=draw(st.sampled_from([-1, 2])))
    mixed = b.op("Neg", b.op("MatMul", weights, b.given("v", rows, 3, size)))
    return b.done(mixed, *([b.op("Neg", weights)] if draw(st.booleans()) else []))


def image(draw: Draw, block: int = 1) -> Drawn:
    spatial = [draw(SIDE) + 1 for _ in range(draw(st.integers(1, 2)))]
    return Drawn(draw, 0, draw(SIDE), block * draw(SIDE), *spatial)


def layout_of(operator: str, size: int) -> Callable[[Draw], Example]:
    def make(draw: Draw) -> Example:
        b = image(draw, size)
        kernel = [2] * (len(b.shape) - 2)
        filters = (b.shape[1], 3 * size) if operator == "ConvTranspose" else (3 * size, b.shape[1])
        weight = b.weight(*filters, *kernel)
        if operator == "FusedConv":
            return b.done(b.op("Relu", b.op("Conv", b.x, weight)))
        if operator.startswith("Conv"):
            return b.done(b.op(operator, b.x, weight))
        return b.done(
            b.op(operator, b.x, **({} if operator.startswith("Global") else {"kernel_shape": kernel}))
        )

    return make


def convolved(b: Drawn, channels: int = 3) -> str:
    return b.op("Conv", b.x, b.weight(channels, b.shape[1], *[1] * (len(b.shape) - 2)))


def sink_below_unary(draw: Draw, size: int = 1) -> Example:
    b = image(draw, size)
    y, op_type = convolved(b, 3 * size), draw(st.sampled_from(["Elu", "Abs", "Softplus", "Erf", "Swish"]))
    return b.done(b.op("Mul", y, b.op("Sigmoid", y)) if op_type == "Swish" else b.op(op_type, y))


def sink_below_binary(draw: Draw, size: int = 1) -> Example:
    b = image(draw, size)
    spatial, channels = len(b.shape) - 2, 3 * size
    each = (1, channels, *[1] * spatial)
    other = draw(st.sampled_from([(), each, (b.shape[-1],), (*b.shape[2:],), "convolved"]))
    second = convolved(b, channels) if other == "convolved" else b.weight(*other)
    pair = draw(st.permutations([convolved(b, channels), second]))
    per_channel = other in [(), each]  # of which Sub becomes a part of the convolution
    operators = ["Max", "Min"] if per_channel else ["Max", "Min", "Sub"]
    return b.done(b.op(draw(st.sampled_from(operators)), *pair))


def sink_below_concat(draw: Draw, size: int = 1) -> Example:
    b = image(draw, size)
    axis = draw(st.integers(-len(b.shape), len(b.shape) - 1))
    return b.done(b.op("Concat", convolved(b, 3 * size), convolved(b, 3 * size), axis=axis))


def sink_below_split(draw: Draw, size: int = 1) -> Example:
    b = image(draw, size)
    y = convolved(b, 3 * size)
    pieces = b.ints(2 * size, size)
    if draw(st.booleans()):
        low, high = (
            b.op("Slice", y, b.ints(s), b.ints(e), b.ints(1)) for s, e in ((0, 2 * size), (2 * size, 99))
        )
    else:
        low, high = "low", "high"
        axis = draw(st.sampled_from([1, 1 - len(b.shape)]))
        b.nodes.append(onnx.helper.make_node("Split", [y, pieces], [low, high], "split", axis=axis))
    return b.done(b.op("Neg", low), b.op("Abs", high))


def cancel_blocks(draw: Draw, size: int = 4) -> Example:
    b = image(draw, size)
    inner = b.weight(size, 3 * size, *[1] * (len(b.shape) - 2))
    return b.done(b.op("Conv", b.op("Relu", convolved(b, 3 * size)), inner))


SINKS = (sink_below_unary, sink_below_binary, sink_below_concat, sink_below_split)
SERVING: dict[str, Callable[[Draw], Example]] = {
    make.__name__: make
    for make in (
        *(halve_angles, spell_out_angles, lift_angles, expose_keys, join_heads),
        *(choose_by_product, rows_as_batches, turn_scores, *SINKS),
    )
}
LAID_OUT = (
    *("Conv", "ConvTranspose", "MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "FusedConv"),
)
IN_BLOCKS: dict[str, tuple[str, int, Callable[[Draw], Example]]] = {
    "cancel_blocks": ("cancel_blocks", 4, cancel_blocks)
}
"""The rule, the size of the blocks, and what makes an instance."""
for each in LAYOUTS:
    if not isinstance(each, Blocks):
        SERVING |= {f"{each.name}_{name}": layout_of(name, 1) for name in LAID_OUT}
        continue
    made = {f"{each.name}_{name}": layout_of(name, each.size) for name in LAID_OUT}
    IN_BLOCKS |= {name: (name, each.size, make) for name, make in made.items()}
    if each.size in (4, 8):
        IN_BLOCKS |= {
            f"{make.__name__}_{each.name}": (make.__name__, each.size, partial(make, size=each.size))
            for make in SINKS
        }


def test_every_rule_of_every_level_runs_on_random_instances() -> None:
    made = {*SERVING, *(name for name, _, _ in IN_BLOCKS.values()), *BASIC, *FUSED}
    assert {rule.name for phase in LEVELS["all"] for rule in phase.rules} == made


def fires(name: str, example: Example, providers: Sequence[ep.Provider] | None = None) -> None:
    """The rule is applied, for these providers, and onnxruntime finds the values unchanged."""
    proto, feeds = example
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    wanted: list[Any] = onnxruntime.InferenceSession(proto.SerializeToString(), options).run(None, feeds)
    found = optimise(check(read(proto)).model, "all", providers=providers)
    assert name in {each.rule for each in found.applied}, found.missed
    with epkit.load(found.model, optimise="none") as session:
        assert_same(list(session.run(None, feeds).values()), wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", SERVING)
@settings(max_examples=5, deadline=None, database=None, phases=[Phase.generate])
@given(data=st.data())
def test_the_rule_fires_and_keeps_the_values(name: str, data: st.DataObject) -> None:
    fires(name, SERVING[name](data.draw))


class InBlocks(ep.KernelProvider):
    """Knows all operators with channels in blocks of a size, and FusedConv, but not channels last."""

    name = "in-blocks"
    version = "1"

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def devices(self) -> ep.Devices:
        return ep.Devices(())

    def knows(self, domain: str, op_type: str) -> bool:
        return domain == f"epkit.blocks_of_{self.size}" or (domain, op_type) == ("com.microsoft", "FusedConv")


@pytest.mark.parametrize("case", IN_BLOCKS)
@settings(max_examples=3, deadline=None, database=None, phases=[Phase.generate])
@given(data=st.data())
def test_the_rule_fires_for_who_asks_for_blocks_and_keeps_the_values(case: str, data: st.DataObject) -> None:
    name, size, make = IN_BLOCKS[case]
    fires(name, make(data.draw), [InBlocks(size)])
