"""The rules of the basic level, on random instances: each fires, and onnxruntime finds the values unchanged."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from rule_instances import Draw
from transformer_samples import Builder

import epkit
from epkit.model.check import check
from epkit.model.read import read
from epkit.optimize.levels import CLEAN
from epkit.optimize.optimise import optimise
from epkit.testing.oracle import assert_same

FLOAT, INT64 = onnx.TensorProto.FLOAT, onnx.TensorProto.INT64
SIDE = st.integers(1, 5)
Example = tuple[onnx.ModelProto, dict[str, np.ndarray[Any, Any]]]


class Drawn(Builder):
    """A graph with one input ``x`` of random sides, and opset 18."""

    def __init__(self, draw: Draw, rank: int, *shape: int, dims: list[Any] | None = None) -> None:
        super().__init__(18, draw(st.integers(0, 99)))
        self.draw = draw
        self.shape = list(shape) or [draw(SIDE) for _ in range(rank)]
        self.feeds: dict[str, np.ndarray[Any, Any]] = {}
        self.x = self.given("x", *self.shape, dims=dims)

    def given(self, name: str, *shape: int, dims: list[Any] | None = None) -> str:
        self.feeds[name] = self.rng.standard_normal(shape).astype(np.float32)
        return self.input(name, FLOAT, dims or list(shape))

    def ints(self, *values: int) -> str:
        return self.constant(values, np.int64)

    def done(self, *outputs: str) -> Example:
        return self.model(*outputs), self.feeds


def merge_transposes(draw: Draw) -> Example:
    b = Drawn(draw, 4)
    one, two = (draw(st.permutations(range(4))) for _ in range(2))
    return b.done(
        b.op(
            "Transpose",
            b.op("Abs", b.op("Transpose", b.op("Transpose", b.x, perm=one), perm=two)),
            perm=[1, 0, 2, 3],
        )
    )


def transpose_of_product(draw: Draw) -> Example:
    b = Drawn(draw, 4)
    n, m, s, d = b.shape
    left = b.op("Transpose", b.x, perm=[0, 2, 1, 3])
    right = b.op("Transpose", b.given("y", n, draw(SIDE), s, d), perm=[0, 2, 3, 1])
    return b.done(b.op("Neg", b.op("Transpose", b.op("MatMul", left, right), perm=[0, 1, 3, 2])))


def transpose_in_batches(draw: Draw) -> Example:
    b = Drawn(draw, 4)
    n, m, s, d = b.shape
    swapped = b.op("Transpose", b.op("Reshape", b.x, b.ints(n * m, s, d)), perm=[0, 2, 1])
    return b.done(b.op("Neg", b.op("Reshape", swapped, b.ints(n, m, d, s))))


def merge_reshapes(draw: Draw) -> Example:
    b = Drawn(draw, 3)
    first, total = b.shape[0], int(np.prod(b.shape))
    inner = b.op("Reshape", b.x, draw(st.sampled_from([b.ints(-1), b.ints(total, 1, 1)])))
    return b.done(b.op("Neg", b.op("Reshape", inner, b.ints(first, -1))))


def fix_reshape_target(draw: Draw) -> Example:
    b = Drawn(draw, 2, draw(SIDE), 6, dims=["N", 6])
    rows = b.op("Shape", b.x, start=0, end=1)
    return b.done(b.op("Neg", b.op("Reshape", b.x, b.op("Concat", rows, b.ints(2, 3), axis=0))))


def drop_allowzero(draw: Draw) -> Example:
    b = Drawn(draw, 3)
    target = b.ints(*draw(st.sampled_from([(-1,), (-1, b.shape[2]), (b.shape[0], -1)])))
    return b.done(b.op("Neg", b.op("Reshape", b.x, target, allowzero=1)))


def remove_reshape(draw: Draw) -> Example:
    b = Drawn(draw, 3)
    return b.done(
        b.op("Neg", b.op("Reshape", b.x, draw(st.sampled_from([b.ints(0, 0, -1), b.ints(*b.shape)]))))
    )


def cancel_unsqueeze(draw: Draw) -> Example:
    b = Drawn(draw, 2)
    axis = draw(st.integers(-3, 2))
    wide = b.op("Unsqueeze", b.x, b.ints(axis))
    return b.done(b.op("Neg", b.op("Squeeze", wide, b.ints(axis % 3))))


def merge_casts(draw: Draw) -> Example:
    b = Drawn(draw, 2)
    wide = b.op("Cast", b.op("Cast", b.x, to=onnx.TensorProto.FLOAT16), to=FLOAT)
    return b.done(b.op("Cast", wide, to=onnx.TensorProto.DOUBLE))


def remove_neutral(draw: Draw) -> Example:
    b = Drawn(draw, 3)
    op, neutral = draw(st.sampled_from([("Mul", 1), ("Add", 0), ("Sub", 0), ("Div", 1), ("Pow", 1)]))
    shape = draw(st.sampled_from([(), (1,), (1, 1, 1), tuple(b.shape)]))
    pair = [b.x, b.constant(np.full(shape, neutral))]
    if op in ("Mul", "Add") and draw(st.booleans()):
        pair.reverse()
    return b.done(b.op("Neg", b.op(op, *pair)))


def remove_idle(draw: Draw) -> Example:
    b = Drawn(draw, 2)
    idle = {
        "Concat": lambda: b.op("Concat", b.x, axis=0),
        "Max": lambda: b.op("Max", b.x),
        "Pad": lambda: b.op("Pad", b.x, b.ints(0, 0, 0, 0)),
        "Tile": lambda: b.op("Tile", b.x, b.ints(1, 1)),
        "Slice": lambda: b.op("Slice", b.x, b.ints(0), b.ints(99), b.ints(1)),
        "Clip": lambda: b.op("Clip", b.x),
    }
    return b.done(b.op("Neg", idle[draw(st.sampled_from(sorted(idle)))]()))


def slices_to_split(draw: Draw) -> Example:
    b = Drawn(draw, 2, draw(SIDE), 7)
    edges = [0, *sorted(draw(st.sets(st.integers(1, 6), min_size=1, max_size=3))), 2**62]
    ends = [draw(st.sampled_from([e, e - 7])) if e < 7 else e for e in edges[1:]]
    pieces = [
        b.op("Slice", b.x, b.ints(s), b.ints(e), b.ints(draw(st.sampled_from([1, -1]))))
        for s, e in zip(edges, ends, strict=False)
    ]
    return b.done(*(b.op("Neg", piece) for piece in draw(st.permutations(pieces))))


def matmul_add(draw: Draw) -> Example:
    b = Drawn(draw, 2)
    n = draw(SIDE)
    row = b.given("row", *draw(st.sampled_from([(n,), (1,), (1, n), ()])))
    pair = [b.op("MatMul", b.x, b.given("w", b.shape[1], n)), row]
    return b.done(b.op("Add", *draw(st.permutations(pair))))


def transposed_gemm(draw: Draw) -> Example:
    b = Drawn(draw, 2)
    n, k = b.shape[1], draw(SIDE)
    flipped = b.op("Transpose", b.x, perm=[1, 0])
    if draw(st.booleans()):
        return b.done(b.op("Gemm", flipped, b.given("w", b.shape[0], k), alpha=0.5))
    return b.done(b.op("Gemm", b.given("w", k, n), flipped, transA=0))


def fold_affine(draw: Draw) -> Example:
    kind = draw(st.sampled_from(["Conv", "ConvTranspose", "Gemm", "MatMul"]))
    if kind in ("Gemm", "MatMul"):
        b = Drawn(draw, 2)
        k, channels, form = b.shape[1], draw(SIDE), (lambda n: (n,))
        swap = draw(st.booleans()) and kind == "Gemm"
        weight = b.weight(*((channels, k) if swap else (k, channels)))
        bias = [b.weight(channels)] if kind == "Gemm" and draw(st.booleans()) else []
        y = b.op(kind, b.x, weight, *bias, **({"transB": int(swap), "beta": 2.0} if kind == "Gemm" else {}))
    else:
        group, inner, outer = draw(st.integers(1, 2)), draw(SIDE), draw(SIDE)
        b = Drawn(draw, 4, 2, group * inner, 4, 3)
        channels, form = group * outer, (lambda n: (n, 1, 1))
        weight = b.weight(channels, inner, 2, 2) if kind == "Conv" else b.weight(group * inner, outer, 2, 2)
        bias = [b.weight(channels)] if draw(st.booleans()) else []
        y = b.op(kind, b.x, weight, *bias, group=group)
    return b.done(_affine(b, y, channels, form, kind))


def _affine(b: Drawn, y: str, channels: int, form: Callable[[int], tuple[int, ...]], kind: str) -> str:
    names = ["Mul", "Div"] if kind == "MatMul" else ["Mul", "Div", "Add", "Sub"]
    names += ["BatchNormalization"] if kind.startswith("Conv") else []
    op = b.draw(st.sampled_from(names))
    if op == "BatchNormalization":
        variance = b.constant(b.rng.uniform(0.5, 2, channels))
        return b.op(op, y, b.weight(channels), b.weight(channels), b.weight(channels), variance)
    values = b.rng.uniform(0.5, 2, b.draw(st.sampled_from([(), form(channels)])))
    return b.op(op, y, b.constant(values))


def requantize(draw: Draw) -> Example:
    b = Drawn(draw, 2)
    scale, zero = b.constant(0.05), b.constant(draw(st.integers(-9, 9)), np.int8)
    codes = b.op("QuantizeLinear", b.x, scale, zero)
    again = b.op("QuantizeLinear", b.op("DequantizeLinear", codes, scale, zero), scale, zero)
    return b.done(b.op("DequantizeLinear", again, scale, zero))


def saturate(draw: Draw) -> Example:
    b = Drawn(draw, 2)
    kind, zero = draw(st.sampled_from([(np.uint8, 0), (np.int8, -128)]))
    scale, code = b.constant(0.01), b.constant(zero, kind)
    top = (np.iinfo(kind).max - zero) * 0.01
    bounded = draw(
        st.sampled_from(
            [
                lambda: b.op("Relu", b.x),
                lambda: b.op("Clip", b.x, b.constant(0.0)),
                lambda: b.op("Clip", b.x, b.constant(-1.0), b.constant(top)),
            ]
        )
    )()
    return b.done(b.op("DequantizeLinear", b.op("QuantizeLinear", bounded, scale, code), scale, code))


def merge_unsqueezes(draw: Draw) -> Example:
    b = Drawn(draw, 2)
    first = draw(st.sampled_from([[0], [1], [2], [0, 1], [1, 3], [-1]]))
    second = draw(st.sampled_from([[0], [1], [-1], [0, 2], [-2]]))
    inner = b.op("Unsqueeze", b.x, b.ints(*first))
    return b.done(b.op("Neg", b.op("Unsqueeze", inner, b.ints(*second))))


def tile_as_expand(draw: Draw) -> Example:
    b = Drawn(draw, 2, dims=["N", "M"] if draw(st.booleans()) else None)
    counts = [draw(st.sampled_from([1, 2, 3])), 1, draw(st.integers(2, 3)), 1]
    wide = b.op("Unsqueeze", b.x, b.ints(0, 2))
    return b.done(b.op("Neg", b.op("Tile", wide, b.ints(*counts))))


def reshape_whole(draw: Draw) -> Example:
    b = Drawn(draw, 2, draw(SIDE), 6, dims=["N", 6] if draw(st.booleans()) else None)
    split = b.op("Reshape", b.op("Neg", b.x), b.ints(-1, 2, 3, 1))
    form = draw(st.sampled_from([("Squeeze", (3,)), ("Unsqueeze", (0,)), ("Unsqueeze", (2, -1))]))
    return b.done(b.op("Neg", b.op(form[0], split, b.ints(*form[1]))))


def unsqueeze_last(draw: Draw) -> Example:
    b = Drawn(draw, 3)
    wide = b.op("Unsqueeze", b.x, b.ints(*draw(st.sampled_from([(0, 2), (1, 3), (-1, 0), (2, 4)]))))
    return b.done(b.op("Neg", b.op("Transpose", wide, perm=draw(st.permutations(range(5))))))


def matmul_in_batches(draw: Draw) -> Example:
    n, h, m, k, p = (draw(SIDE) for _ in range(5))
    batch, turned = draw(st.sampled_from([n, "N"])), draw(st.booleans())
    last = (p, k) if turned else (k, p)
    b = Drawn(draw, 4, n, h, m, k, dims=[batch, h, m, k])
    y = b.op("Reshape", b.given("y", n, h, *last, dims=[batch, h, *last]), b.ints(-1, *last))
    x = b.op("Reshape", b.x, b.ints(-1, m, k))
    product = b.op("MatMul", x, b.op("Transpose", y, perm=[0, 2, 1]) if turned else y)
    return b.done(b.op("Neg", b.op("Reshape", product, b.ints(-1, h, m, p))))


def add_before_split(draw: Draw) -> Example:
    heads, size = draw(SIDE) + 1, draw(SIDE) + 1
    b = Drawn(draw, 3, draw(SIDE), draw(SIDE), heads * size)
    split = b.op("Reshape", b.x, b.ints(0, 0, heads, size))
    shift = b.weight(*draw(st.sampled_from([(heads, size), (1, heads, size), (1, 1, heads, size)])))
    return b.done(b.op("Neg", b.op("Add", *draw(st.permutations([split, shift])))))


def dims_of_inputs(draw: Draw) -> Example:
    b = Drawn(draw, 2, draw(SIDE), 3, dims=["N", 3])
    middle = b.op("Neg", b.op("MatMul", b.x, b.weight(3, 4)))
    shape = b.op("Shape", middle)
    if draw(st.booleans()):
        target = b.op("Concat", b.op("Slice", shape, b.ints(0), b.ints(1)), b.ints(2), axis=0)
    else:
        row = b.op("Gather", shape, b.constant(0, np.int64))
        target = b.op("Concat", b.op("Unsqueeze", row, b.ints(0)), b.ints(2), axis=0)
    return b.done(b.op("ConstantOfShape", target))


def einsum_as_product(draw: Draw) -> Example:
    """Letters in any order, and several columns or summed ones where there is no batch."""
    several = draw(st.booleans())
    batch, rows, columns, summed = (
        (
            "",
            *draw(
                st.sampled_from([("ab", "c", "d"), ("a", "cd", "e"), ("ab", "c", "de"), ("ab", "cd", "ef")])
            ),
        )
        if several
        else (draw(st.sampled_from(["", "a", "ab"])), "i", "j", "k")
    )
    sizes = {letter: draw(SIDE) for letter in batch + rows + columns + summed}
    left, right, out = (
        "".join(draw(st.permutations(text)))
        for text in (batch + rows + summed, batch + summed + columns, batch + rows + columns)
    )
    b = Drawn(draw, 1, *(sizes[letter] for letter in left))
    y = b.given("y", *(sizes[letter] for letter in right))
    return b.done(b.op("Einsum", b.x, y, equation=f"{left}, {right} -> {out}"))


MAKERS = {
    make.__name__: make
    for make in (
        merge_transposes, transpose_of_product, transpose_in_batches, merge_reshapes, fix_reshape_target, drop_allowzero,
        remove_reshape, cancel_unsqueeze, merge_casts, remove_neutral, remove_idle, slices_to_split, matmul_add, transposed_gemm,
        fold_affine, requantize, saturate, merge_unsqueezes, tile_as_expand, add_before_split, dims_of_inputs,
        einsum_as_product, reshape_whole, unsqueeze_last, matmul_in_batches,
    )
}  # fmt: skip


def test_every_rule_has_a_maker() -> None:
    assert {rule.name for rule in CLEAN.rules} == set(MAKERS)


@pytest.mark.parametrize("name", MAKERS)
@settings(max_examples=12, deadline=None, database=None, phases=[Phase.generate])
@given(data=st.data())
def test_the_rule_fires_and_keeps_the_values(name: str, data: st.DataObject) -> None:
    proto, feeds = MAKERS[name](data.draw)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    wanted = onnxruntime.InferenceSession(proto.SerializeToString(), options).run(None, feeds)
    found = optimise(check(read(proto)).model, "basic")
    fired = {each.rule for each in found.applied}
    assert (
        name in fired
        or (name == "merge_transposes" and "remove_identities" in fired)
        or may_be_idle(name, found)
    ), found.missed
    with epkit.load(found.model, optimise="none") as session:
        assert_same(list(session.run(None, feeds).values()), list(wanted), rtol=1e-5, atol=1e-5)


def may_be_idle(name: str, found: Any) -> bool:
    """Another rule was there before: what is left has none of the operators that this one looks for."""
    roots = {operator for rule in CLEAN.rules if rule.name == name for _, operator in rule.roots}
    return not any(node.op_type in roots for node in found.model.graph)


def test_constants_are_shared() -> None:
    b = Builder(18)
    x = b.input("x", FLOAT, [2, 3])
    row = np.arange(3)
    y = b.op("Add", b.op("Mul", x, b.constant(row)), b.constant(row))
    found = optimise(check(read(b.model(y))).model, "basic")
    assert len(found.model.graph.initializers) == 1
