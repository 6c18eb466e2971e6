"""Level 3: graphs that a provider runs in part or whole agree with what the reference computes."""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import onnx
import onnx.parser

import epkit
from epkit.backend import Claim, Provider, Refusal, Subgraph
from epkit.backend.registry import Registry, default
from epkit.dtypes import numpy_dtype
from epkit.testing import awkward
from epkit.testing.models import random_feeds, random_model

from ..case import REFERENCE, Case
from ..compare import difference
from ..evidence import measured, reasons, recorded_run
from ..probes import feeds_for, is_valid, native_type, reference, retyped
from ..result import Result, State

GRAPHS = {
    "diamond": """(float[N, 4] x) => (float[N, 4] y) {
        a = Relu(x)  b = Sigmoid(a)  c = Neg(a)  d = Mul(b, c)  y = Add(d, a)
    }""",
    "long_chain": """(float[N, 4] x) => (float[N, 4] y) {
        a = Relu(x)  b = Neg(a)  c = Abs(b)  d = Sigmoid(c)  e = Add(d, x)  f = Mul(e, d)
        g = Sub(f, a)  h = Tanh(g)  i = Relu(h)  y = Add(i, i)
    }""",
    "two_diamonds": """(float[N, 4] x) => (float[N, 4] y, float[N, 4] z) {
        a = Relu(x)  b = Neg(a)  c = Abs(x)  d = Add(b, c)  e = Tanh(d)  f = Sigmoid(d)
        y = Sub(e, f)  g = Mul(e, a)  z = Add(g, f)
    }""",
    "many_outputs": """(float[N, 4] x) => (float[N, 4] a, float[N, 4] b, float[N, 4] y, float[N, 4] d) {
        a = Relu(x)  b = Neg(a)  c = Add(a, b)  d = Abs(c)  y = Identity(d)
    }""",
    "an_input_that_is_an_output": """(float[N, 4] x, float[N, 4] z) => (float[N, 4] y, float[N, 4] z) {
        y = Relu(x)
    }""",
    "one_value_twice": """(float[N, 4] x) => (float[N, 4] y, float[N, 4] same) {
        y = Relu(x)  same = Identity(y)
    }""",
    "a_dead_end": """(float[N, 4] x) => (float[N, 4] y) { a = Relu(x)  unused = Neg(a)  y = Abs(a) }""",
    "inside_if": """(float[N, 4] x, bool flag) => (float[N, 4] y) {
        a = Relu(x)
        y = If(flag) <
            then_branch = yes () => (float[N, 4] p) { q = Neg(a)  p = Add(q, x) },
            else_branch = no () => (float[N, 4] r) { s = Sigmoid(a)  r = Mul(s, a) }
        >
    }""",
    "inside_loop": """(float[N, 4] x, int64 trips) => (float[N, 4] y) {
        always = Equal(trips, trips)
        y = Loop(trips, always, x) <
            body = step (int64 i, bool going, float[N, 4] s) => (bool on, float[N, 4] t) {
                on = Identity(going)  r = Relu(x)  n = Neg(r)  t = Add(n, s)
            }
        >
    }""",
    "if_inside_loop": """(float[N, 4] x, int64 trips, bool flag) => (float[N, 4] y) {
        always = Equal(trips, trips)
        y = Loop(trips, always, x) <
            body = step (int64 i, bool going, float[N, 4] s) => (bool on, float[N, 4] t) {
                on = Identity(going)
                t = If(flag) <
                    then_branch = yes () => (float[N, 4] p) { q = Relu(x)  p = Sub(s, q) },
                    else_branch = no () => (float[N, 4] r) { n = Neg(x)  r = Add(n, s) }
                >
            }
        >
    }""",
    "if_inside_if": """(float[N, 4] x, bool flag, int64 trips) => (float[N, 4] y) {
        a = Relu(x)  other = Equal(trips, trips)
        y = If(flag) <
            then_branch = yes () => (float[N, 4] p) {
                p = If(other) <
                    then_branch = deep () => (float[N, 4] q) { q = Neg(a) },
                    else_branch = deeper () => (float[N, 4] r) { r = Abs(x) }
                >
            },
            else_branch = no () => (float[N, 4] s) { s = Add(a, x) }
        >
    }""",
    "inside_scan": """(float[N, 4] x) => (float[4] last, float[N, 4] y)
        <float[4] start = {0., 1., 2., 3.}> {
        last, y = Scan <num_scan_inputs = 1,
            body = step (float[4] s, float[4] row) => (float[4] t, float[4] out) {
                p = Relu(row)  t = Add(s, p)  out = Neg(t)
            }
        > (start, x)
    }""",
}

PATTERNS = {
    "gelu_by_erf": """(float[N, 8] x) => (float[N, 8] y)
        <float r = {1.41421356}, float one = {1.}, float half = {0.5}> {
        a = Div(x, r)  b = Erf(a)  c = Add(b, one)  d = Mul(x, c)  y = Mul(d, half)
    }""",
    "gelu_half_first": """(float[N, 8] x) => (float[N, 8] y)
        <float r = {0.70710678}, float one = {1.}, float half = {0.5}> {
        h = Mul(half, x)  a = Mul(x, r)  b = Erf(a)  c = Add(one, b)  y = Mul(h, c)
    }""",
    "gelu_by_tanh": """(float[N, 8] x) => (float[N, 8] y)
        <float three = {3.}, float k = {0.044715}, float s = {0.79788456}, float one = {1.}, float half = {0.5}> {
        p = Pow(x, three)  q = Mul(p, k)  a = Add(x, q)  b = Mul(a, s)  t = Tanh(b)
        c = Add(t, one)  d = Mul(half, c)  y = Mul(x, d)
    }""",
    "silu": "(float[N, 8] x) => (float[N, 8] y) { s = Sigmoid(x)  y = Mul(x, s) }",
    "mish_spelt_out": "(float[N, 8] x) => (float[N, 8] y) { a = Softplus(x)  t = Tanh(a)  y = Mul(x, t) }",
    "layer_norm_spelt_out": """(float[N, 8] x) => (float[N, 8] y)
        <float[8] g = {1., 2., 3., 4., 1., 2., 3., 4.}, float[8] b = {0., 1., 0., 1., 0., 1., 0., 1.},
         float two = {2.}, int64[1] axis = {-1}, float eps = {1e-5}> {
        m = ReduceMean(x, axis)  d = Sub(x, m)  p = Pow(d, two)  v = ReduceMean(p, axis)
        e = Add(v, eps)  s = Sqrt(e)  n = Div(d, s)  q = Mul(n, g)  y = Add(q, b)
    }""",
    "layer_norm_with_casts": """(float16[N, 8] x) => (float16[N, 8] y)
        <float[8] g = {1., 2., 3., 4., 1., 2., 3., 4.}, int64[1] axis = {-1}, float eps = {1e-5}> {
        w = Cast <to = 1> (x)  m = ReduceMean(w, axis)  d = Sub(w, m)  p = Mul(d, d)
        v = ReduceMean(p, axis)  e = Add(v, eps)  s = Sqrt(e)  n = Div(d, s)
        q = Mul(n, g)  y = Cast <to = 10> (q)
    }""",
    "rms_norm_spelt_out": """(float[N, 8] x) => (float[N, 8] y)
        <float[8] g = {1., 2., 3., 4., 1., 2., 3., 4.}, float two = {2.}, int64[1] axis = {-1}, float eps = {1e-6}> {
        p = Pow(x, two)  v = ReduceMean(p, axis)  e = Add(v, eps)  s = Sqrt(e)  r = Reciprocal(s)
        n = Mul(x, r)  y = Mul(n, g)
    }""",
    "softmax_spelt_out": """(float[N, 8] x) => (float[N, 8] y) <int64[1] axis = {-1}> {
        m = ReduceMax(x, axis)  d = Sub(x, m)  e = Exp(d)  s = ReduceSum(e, axis)  y = Div(e, s)
    }""",
    "attention_spelt_out": """(float[N, 4, 8] q, float[N, 5, 8] k, float[N, 5, 8] v) => (float[N, 4, 8] y)
        <float scale = {0.35355339}> {
        t = Transpose <perm = [0, 2, 1]> (k)  s = MatMul(q, t)  p = Mul(s, scale)
        a = Softmax <axis = -1> (p)  y = MatMul(a, v)
    }""",
    "matmul_add_relu": """(float[N, 4] x) => (float[N, 2] y)
        <float[4, 2] w = {1., -1., 2., 0.5, 0., 1., -2., 3.}, float[2] b = {1., -1.}> {
        p = MatMul(x, w)  q = Add(p, b)  y = Relu(q)
    }""",
    "conv_norm_relu": """(float[N, 2, 5, 5] x) => (float[N, 2, 4, 4] y)
        <float[2, 2, 2, 2] w = {1., 0., -1., 2., 1., 1., 0., 0., 2., 1., 0., -1., 1., 0., 1., 0.},
         float[2] s = {1., 2.}, float[2] b = {0., 1.}, float[2] m = {0.5, -0.5}, float[2] v = {1., 4.}> {
        c = Conv(x, w)  n = BatchNormalization(c, s, b, m, v)  y = Relu(n)
    }""",
    "hard_swish_spelt_out": """(float[N, 8] x) => (float[N, 8] y)
        <float three = {3.}, float zero = {0.}, float six = {6.}> {
        a = Add(x, three)  b = Clip(a, zero, six)  c = Mul(x, b)  y = Div(c, six)
    }""",
    "quantise_and_back": """(float[N, 4] x) => (float[N, 4] y) <float s = {0.1}, uint8 z = {128}> {
        q = QuantizeLinear(x, s, z)  y = DequantizeLinear(q, s, z)
    }""",
    "double_transpose": """(float[N, 4] x) => (float[N, 4] y) {
        a = Transpose(x)  b = Relu(a)  y = Transpose(b)
    }""",
    "swapped_operands": """(float[N, 4] x) => (float[N, 4] y) <float one = {1.}> {
        a = Sub(one, x)  b = Relu(a)  c = Sub(x, b)  y = Div(c, one)
    }""",
}
"""What compilers like to fuse, in several spellings; fused or not, the meaning stays."""

QUANTISED = {
    "qlinear_chain": """(int8[N, 4] x) => (int8[N, 2] y)
        <float s = {0.5}, float t = {2.}, int8 z = {2},
         int8[4, 4] v = {1, 2, -1, 0, 3, 1, -2, 1, 0, -1, 1, 0, 2, 5, 1, -1},
         int8[4, 2] w = {1, -1, 2, 5, 0, 1, -2, 3}> {
        p = QLinearMatMul(x, s, z, v, s, z, t, z)  y = QLinearMatMul(p, t, z, w, s, z, t, z)
    }""",
    "qlinear_conv_and_pool": """(int8[N, 1, 6, 6] x) => (int8[N, 2, 2, 2] y)
        <float s = {0.5}, float t = {4.}, int8 z = {0},
         int8[2, 1, 3, 3] k = {1, 0, -1, 2, 0, -2, 1, 0, -1, 1, 2, 1, 0, 0, 0, -1, -2, -1}> {
        c = QLinearConv(x, s, z, k, s, z, t, z)  y = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (c)
    }""",
    "quantised_dense": """(int8[N, 4] x) => (int8[N, 2] y)
        <float s = {0.5}, float t = {2.}, int8 z = {2}, int8[4, 2] w = {1, -1, 2, 5, 0, 1, -2, 3}> {
        a = DequantizeLinear(x, s, z)  b = DequantizeLinear(w, s, z)  c = MatMul(a, b)  d = Relu(c)
        y = QuantizeLinear(d, t, z)
    }""",
    "quantised_sum": """(int8[N, 4] x, int8[N, 4] z) => (int8[N, 4] y)
        <float s = {0.5}, float t = {0.25}, int8 o = {0}> {
        a = DequantizeLinear(x, s, o)  b = DequantizeLinear(z, t, o)  c = Add(a, b)  y = QuantizeLinear(c, s, o)
    }""",
    "matmul_of_integers": """(int8[N, 4] x) => (int32[N, 2] y) <int8[4, 2] w = {1, -1, 2, 5, 0, 1, -2, 3}> {
        p = MatMulInteger(x, w)  q = Add(p, p)  y = Neg(q)
    }""",
}
"""What devices without floats run. Scales are powers of two and zero points even, so that there is one right
answer whether one rounds before the zero point is added or after it."""

OTHERS = {"flag": (np.array(True), np.array(False)), "trips": (np.array(3), np.array(1))}

SEEDS = 12

LEFT_OUT = "left out on purpose by the case"


@cache
def model_of(name: str) -> onnx.ModelProto:
    """One of the graphs above, under opset 21."""
    text = (GRAPHS | PATTERNS | QUANTISED)[name]
    return onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : 21]> {name} {text}')


def whole_graphs(dtype: str) -> Iterator[onnx.ModelProto]:
    """Those of :data:`GRAPHS` that mean something in an element type, and :data:`QUANTISED`."""
    yield from filter(is_valid, (retyped(model_of(name), dtype) for name in GRAPHS))
    yield from map(model_of, QUANTISED)


def cases() -> Iterator[Case]:
    """Each graph with one, several and no rows; random graphs whose nodes are claimed by chance."""
    for name in (*GRAPHS, *PATTERNS, *QUANTISED):
        group = "graphs" if name in GRAPHS else "patterns" if name in PATTERNS else "quantised"
        for rows in (1, 3, 0):
            if not (name == "inside_scan" and rows == 0):  # the reference stacks no rows
                yield Case(f"{group}/{name}/{rows}_rows", 3, group, _runner(name, rows), oracle=REFERENCE)
    for seed in range(SEEDS):
        yield Case(f"partitions/random/{seed}", 3, "partitions", _random_runner(seed), oracle=REFERENCE)


def _runner(name: str, rows: int) -> Callable[[str], Result]:
    def run(provider: str) -> Result:
        dtype = "float32" if name in QUANTISED else native_type(provider)
        model = retyped(model_of(name), dtype)
        if not is_valid(model):
            return Result(State.UNSUPPORTED, f"the graph has no meaning in {dtype}, the provider's type")
        return run_graph(model, list(_feeds(model, rows)), provider, sizes={"N": rows})

    return run


def run_graph(
    model: onnx.ModelProto,
    feeds: list[dict[str, Any]],
    provider: str,
    *,
    sizes: Mapping[str, int] | None = None,
    rtol: float = 1e-4,
    atol: float = 1e-5,
    **options: Any,
) -> Result:
    """Run a graph with the provider in front; what it refuses falls back, which is no pass.

    Args:
        model, feeds: what to run; the feeds in turn, in one session.
        provider: the provider under test.
        sizes: of symbolic dimensions; if a provider leaves a node while they are free, it is asked again with these.
        rtol, atol: how far from the reference.
        options: for :func:`epkit.load`.

    Raises:
        AssertionError: if a result is wrong, or a node ran where it was not placed.
    """
    result = _run_graph(model, feeds, provider, rtol, atol, options)
    if result.state is State.PASSED or not sizes:
        return result
    free = {dim.dim_param for item in model.graph.input for dim in item.type.tensor_type.shape.dim}
    fix = {name: size for name, size in sizes.items() if name in free}
    again = _run_graph(model, feeds, provider, rtol, atol, {**options, "fix": fix})
    return (
        result
        if again.state in (State.REFUSED, result.state)
        else replace(again, detail=f"with fixed sizes; {again.detail}")
    )


def _run_graph(
    model: onnx.ModelProto,
    feeds: list[dict[str, Any]],
    provider: str,
    rtol: float,
    atol: float,
    options: Mapping[str, Any],
) -> Result:
    with epkit.load(model, [provider], **{"optimise": "none", **options}) as session:
        if provider not in session.placement.counts():
            return Result(State.REFUSED, reasons(session, provider))
        ran: dict[str, str] = {}
        for values in feeds:
            outputs, profile = recorded_run(session, values)
            ran |= profile.dispatched()
            _agrees_with_placement(session, profile)
            for info, want in zip(session.outputs, reference(model, values), strict=True):
                slack = 2e-2 if info.dtype in ("float16", "bfloat16") else 0
                problem = difference(outputs[info.name], want, max(rtol, slack), max(atol, slack))
                assert not problem, f"output {info.name} {problem}"
        measures = measured(session, feeds[-1], profile)
        excused = _left_out(session)
        elsewhere = [node for node, who in ran.items() if who != provider and node not in excused]
        if provider not in ran.values():
            due = [
                n.node
                for n in session.placement.nodes
                if n.provider == provider and n.graph == model.graph.name
            ]
            assert not due, (
                f"{provider} was given {', '.join(due)}, and the dispatch record shows none of them"
            )
            return Result(State.REFUSED, "it was given nodes of branches only, and none of those was taken")
    if elsewhere:
        return Result(State.FALLBACK, f"{len(elsewhere)} nodes ran elsewhere, as placed", **measures)
    return Result(State.PASSED, **measures)


def _random_runner(seed: int) -> Callable[[str], Result]:
    """A random graph, of which the provider is asked for random nodes only; a toy has the rest."""

    def run(provider: str) -> Result:
        dtype = native_type(provider)
        model = retyped(random_model(random.Random(f"conformance {seed}"), nodes=14, depth=seed % 3), dtype)
        if not is_valid(model):
            return Result(State.UNSUPPORTED, f"the graph has no meaning in {dtype}, the provider's type")
        rest = awkward.awkward("conformance_rest", awkward.everything)
        registry = Registry()
        registry.register(rest)
        registry.register(_picky(default.provider_type(provider), awkward.by_chance(seed, 0.6)))
        feeds = [
            {name: array.astype(numpy_dtype(dtype)) for name, array in random_feeds(each).items()}
            for each in (seed, seed + 1)
        ]
        return run_graph(model, feeds, provider, registry=registry, fallback=rest.name)

    return run


def _picky(base: type[Provider], pick: awkward.Picker) -> type[Provider]:
    """The provider, asked about some nodes only."""

    def claim(self: Provider, graph: Subgraph) -> Iterator[Claim | Refusal]:
        wanted = {node for group in pick(graph) for node in group}
        for answer in base.claim(self, graph):
            nodes = answer.nodes if isinstance(answer, Claim) else (answer.node,)
            if isinstance(answer, Refusal) or wanted.issuperset(nodes):
                yield answer
            else:
                yield from (Refusal(node, "cost", LEFT_OUT) for node in nodes)

    return type(base.__name__, (base,), {"claim": claim})


def _left_out(session: epkit.Session) -> set[str]:
    """The nodes that the provider was not asked for, which is no shortcoming of its own."""
    return {
        node.node
        for node in session.placement.nodes
        if any(refusal.reason == LEFT_OUT for refusal in node.refused)
    }


def _feeds(model: onnx.ModelProto, rows: int) -> Iterator[dict[str, Any]]:
    feeds = feeds_for(model, {"N": rows}, zlib.crc32(model.graph.name.encode()))
    for index in (0, 1):
        yield feeds | {name: values[index] for name, values in OTHERS.items() if name in feeds}


def _agrees_with_placement(session: epkit.Session, profile: epkit.Profile) -> None:
    placed = {node.node: node.provider for node in session.placement.nodes}
    for node, who in profile.dispatched().items():
        assert placed[node] == who, f"{node} was placed on {placed[node]} and ran on {who}"
