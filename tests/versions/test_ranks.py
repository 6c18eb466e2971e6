"""Every family on ranks 0 to 8 and on empty tensors: one session a rank, which only knows names of sizes."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

import epkit
from epkit.dtypes import CODE, name_of

from .ways import way as way

Array = np.ndarray[Any, Any]
SHAPE = (2, 1, 3, 1, 2, 3, 1, 2)
OPSET = 22


@dataclass(frozen=True)
class Use:
    """A node and what it gives.

    Attributes:
        expect: of x and of the further inputs.
        more: the further inputs for x.
        attributes: of the node.
        op: the operator, if the use has another name.
        least: the lowest rank that it is for.
        filled: whether an empty x is no input for it.
    """

    expect: Callable[..., Any]
    more: Callable[[Array], list[Array]] = lambda x: []
    attributes: Mapping[str, Any] = field(default_factory=dict)
    op: str = ""
    least: int = 0
    filled: bool = False


def ints(*values: int) -> Array:
    """A vector of int64."""
    return np.array(values, np.int64)


def softmax(x: Array) -> Array:
    """Over the last axis."""
    shares = np.exp(x)
    return shares / shares.sum(-1, keepdims=True)


def layer_norm(x: Array, scale: Array) -> Array:
    """Over the last axis, which is at least 1 long."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the mean of nothing
        return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5) * scale


def best(x: Array, k: Array) -> Array:
    """The k greatest along the last axis."""
    return -np.sort(-x, -1)[..., : int(k[0])]


def scattered(x: Array, indices: Array, updates: Array) -> Array:
    """x with its first row along axis 0 replaced."""
    result = x.copy()
    np.put_along_axis(result, indices, updates, 0)
    return result


def in_front(x: Array) -> list[Array]:
    """A padding of 1 in front of every axis."""
    return [ints(*[1] * x.ndim, *[0] * x.ndim)]


USES: Mapping[str, Use] = {
    "Identity": Use(lambda x: x),
    "Relu": Use(lambda x: np.maximum(x, 0)),
    "Tanh": Use(np.tanh),
    "Clip": Use(lambda x, low: np.maximum(x, low), lambda x: [np.array(0.5, x.dtype)]),
    "Mul": Use(lambda x, y: x * y, lambda x: [np.array(2, x.dtype)]),
    "Add": Use(lambda x, y: x + y, lambda x: [np.array(x[..., :1])], least=1),
    "Add over": Use(lambda x, y: x + y, lambda x: [np.ones((2, *[1] * x.ndim), x.dtype)], op="Add"),
    "Greater": Use(lambda x, y: x > y, lambda x: [-x]),
    "Where": Use(lambda x, c, y: np.where(c, x, y), lambda x: [x > 0, -x]),
    "Cast": Use(lambda x: x.astype(np.int64), attributes={"to": 7}),
    "QuantizeLinear": Use(
        lambda x, s: np.clip(np.round(x / s), 0, 255).astype(np.uint8), lambda x: [np.array(0.125, x.dtype)]
    ),
    "Shape": Use(lambda x: ints(*x.shape)),
    "Size": Use(lambda x: np.array(x.size)),
    "ConstantOfShape": Use(lambda x, shape: np.zeros(shape, np.float32), lambda x: [ints(*x.shape)]),
    "Reshape": Use(lambda x, s: x[..., None], lambda x: [ints(*x.shape, 1)], {"allowzero": 1}),
    "Flatten": Use(lambda x: x.reshape(1, x.size), attributes={"axis": 0}),
    "Squeeze": Use(lambda x: x.squeeze()),
    "Unsqueeze": Use(lambda x, axes: x[None, ..., None], lambda x: [ints(0, -1)]),
    "Transpose": Use(lambda x: x.T),
    "Expand": Use(lambda x, s: np.stack([x, x]), lambda x: [ints(2, *x.shape)]),
    "Tile": Use(np.tile, lambda x: [ints(*[2] * x.ndim)]),
    "Pad": Use(lambda x, p: np.pad(x, [(1, 0)] * x.ndim) if x.ndim else x, in_front),
    "Concat": Use(lambda x, y: np.concatenate([x, y], -1), lambda x: [x], {"axis": -1}, least=1),
    "Split": Use(lambda x, s: x[..., :0], lambda x: [ints(0, x.shape[-1])], {"axis": -1}, least=1),
    "Slice": Use(lambda x, *_: x[..., ::-1], lambda x: [ints(99), ints(-99), ints(-1), ints(-1)], least=1),
    "Gather": Use(lambda x, i: x[..., :0], lambda x: [ints()], {"axis": -1}, least=1),
    "Gather one": Use(lambda x, i: x[..., -1], lambda x: [np.array(-1)], {"axis": -1}, "Gather", 1, True),
    "GatherElements": Use(
        lambda x, i: x[:1], lambda x: [np.zeros((1, *x.shape[1:]), np.int64)], least=1, filled=True
    ),
    "GatherND": Use(lambda x, i: x[0], lambda x: [ints(0)], least=1, filled=True),
    "ScatterElements": Use(
        scattered, lambda x: [np.zeros((1, *x.shape[1:]), np.int64), -x[:1]], least=1, filled=True
    ),
    "ScatterND": Use(
        lambda x, i, u: np.concatenate([u, x[1:]]), lambda x: [ints(0)[None], -x[:1]], least=1, filled=True
    ),
    "Compress": Use(lambda x, c: x[c], lambda x: [np.arange(x.shape[0]) % 2 == 0], {"axis": 0}, least=1),
    "NonZero": Use(lambda x: np.array(np.nonzero(np.atleast_1d(x))[: x.ndim]).reshape(x.ndim, -1), least=1),
    "Unique": Use(np.unique),
    "Trilu": Use(np.triu, least=2),
    "Sign": Use(np.sign),
    "CumSum": Use(lambda x, axis: x.cumsum(-1), lambda x: [np.array(-1)], least=1),
    "TopK": Use(best, lambda x: [ints(min(1, x.shape[-1]))], least=1),
    "ArgMax": Use(lambda x: x.argmax(-1)[..., None], attributes={"axis": -1}, least=1, filled=True),
    "ReduceSum": Use(lambda x: x.sum(), attributes={"keepdims": 0}),
    "ReduceSum one": Use(lambda x, a: x.sum(0), lambda x: [ints(0)], {"keepdims": 0}, "ReduceSum", 1),
    "ReduceMax": Use(lambda x, a: x.max(0, keepdims=True, initial=-np.inf), lambda x: [ints(0)], least=1),
    "ReduceProd": Use(lambda x, a: x.prod(-1, keepdims=True), lambda x: [ints(-1)], least=1),
    "Softmax": Use(softmax, attributes={"axis": -1}, least=1),
    "LayerNormalization": Use(layer_norm, lambda x: [np.ones(x.shape[-1:], x.dtype)], least=1),
    "MatMul": Use(lambda x, y: x @ y, lambda x: [x.swapaxes(-1, -2).copy()], least=2),
    "Einsum": Use(lambda x: x.sum(-1), attributes={"equation": "...i->..."}, least=1),
}
"""Uses on one input of any rank."""


def shapes(rank: int) -> Iterator[tuple[int, ...]]:
    """A plain one, one with each axis empty in turn, all empty, and the plain one again."""
    plain = SHAPE[:rank]
    yield plain
    for axis in range(rank):
        yield (*plain[:axis], 0, *plain[axis + 1 :])
    if rank:
        yield (0,) * rank
    yield plain


def model_of(uses: Mapping[str, Use], rank: int) -> onnx.ModelProto:
    """All uses side by side; every size is a name."""
    example = np.ones(SHAPE[:rank], np.float32)
    values = {"x": example}
    nodes = []
    for name, use in uses.items():
        more = {f"{name}.{i}": array for i, array in enumerate(use.more(example))}
        values |= more
        inputs = {"ConstantOfShape": [*more], "Where": ["Where.0", "x", "Where.1"]}.get(name, ["x", *more])
        outputs = [name, f"other of {name}"] if name in ("Split", "TopK") else [name]
        nodes.append(helper.make_node(use.op or name, inputs, outputs, **use.attributes))
    infos = [
        helper.make_tensor_value_info(
            name, CODE[name_of(array.dtype)], [f"{name} {axis}" for axis in range(array.ndim)]
        )
        for name, array in values.items()
    ]
    results = [onnx.ValueInfoProto(name=name) for name in uses]
    graph = helper.make_graph(nodes, "uses", infos, results)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)


@pytest.mark.parametrize("rank", range(9))
def test_every_rank_from_0_to_8_and_empty_tensors(way: str, rank: int) -> None:
    rng = np.random.default_rng(rank)
    possible = {name: use for name, use in USES.items() if use.least <= rank}
    for filled in (False, True):
        uses = {name: use for name, use in possible.items() if use.filled == filled}
        if not uses:
            continue
        with epkit.load(model_of(uses, rank), ["cpu"]) as session:
            for shape in shapes(rank):
                if not (filled and 0 in shape):
                    check(session, uses, np.asarray(rng.uniform(-2, 2, shape), np.float32))


def check(session: epkit.Session, uses: Mapping[str, Use], x: Array) -> None:
    """All uses on one input."""
    more = {name: use.more(x) for name, use in uses.items()}
    feeds = {f"{name}.{i}": array for name, arrays in more.items() for i, array in enumerate(arrays)}
    found = session.run(None, {"x": x, **feeds})
    for name, use in uses.items():
        expected = np.asarray(use.expect(x, *more[name]))
        assert found[name].shape == expected.shape, f"{name} of {x.shape}"
        np.testing.assert_allclose(
            found[name], expected, rtol=1e-5, atol=1e-6, err_msg=f"{name} of {x.shape}"
        )
