"""Level ``all``: a provider that knows operators of a layout gets them, with few changes of layout around."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from transformer_samples import Builder

import epkit
import epkit.backend as ep
from epkit.kernels.conv import conv
from epkit.kernels.pool import global_average_pool, max_pool
from epkit.model.check import check
from epkit.model.read import read
from epkit.optimize.layouts import LAYOUTS, Blocks, to_first, to_last
from epkit.optimize.optimise import optimise
from epkit.testing.oracle import assert_same, expected
from epkit.testing.plugins import registry_of

LAST, BLOCKS = LAYOUTS[0].domain, LAYOUTS[1].domain
SIZE = 4
"""Of the blocks."""

Change = Callable[[Any], Any]


def last(x: Any) -> Any:
    return np.ascontiguousarray(x.transpose(to_last(x.ndim)))


def first(x: Any) -> Any:
    return x.transpose(to_first(x.ndim))


def into_blocks(x: Any) -> Any:
    split = x.reshape(len(x), -1, SIZE, *x.shape[2:])
    return np.ascontiguousarray(np.moveaxis(split, 2, -1))


def from_blocks(x: Any) -> Any:
    whole = np.moveaxis(x, -1, 2)
    return np.ascontiguousarray(whole).reshape(len(x), -1, *x.shape[2:-1])


def laid_out(domain: str, into: Change, back: Change) -> tuple[ep.Kernel, ...]:
    """Kernels of a layout, by the portable ones."""

    def convolve(x: Any, w: Any, b: Any = None, *, pads: Any = None, strides: Any = None) -> Any:
        return into(conv(np, back(x), w, b, pads=pads, strides=strides))

    def largest(x: Any, *, kernel_shape: Any, pads: Any = None, strides: Any = None) -> Any:
        return into(max_pool(np, back(x), kernel_shape=kernel_shape, pads=pads, strides=strides, n_outputs=1))

    return (
        ep.kernel("Conv", domain=domain)(convolve),
        ep.kernel("MaxPool", domain=domain)(largest),
        ep.kernel("GlobalAveragePool", domain=domain)(lambda x: into(global_average_pool(np, back(x)))),
    )


POINTWISE = (
    ep.kernel("Relu")(lambda x: np.maximum(x, np.float32(0))),
    ep.kernel("Add")(lambda a, b: a + b),
    ep.kernel("Mul")(lambda a, b: a * b),
    ep.kernel("Sigmoid")(lambda x: 1 / (1 + np.exp(-x))),
    ep.kernel("Concat")(lambda *parts, axis: np.concatenate(parts, axis)),
    ep.kernel("Transpose")(lambda x, *, perm: np.ascontiguousarray(x.transpose(perm))),
)


class Last(ep.KernelProvider):
    """Convolutions with channels last, and what works element by element in any layout."""

    name = "last"
    version = "1"
    kernels: tuple[ep.Kernel, ...] = (*laid_out(LAST, last, first), *POINTWISE)

    def devices(self) -> ep.Devices:
        return ep.Devices((ep.Device("last:0", "toy"),))


class InBlocks(Last):
    """Channels in blocks; it knows the changes of layout, too."""

    name = "in-blocks"
    kernels = (
        *laid_out(BLOCKS, into_blocks, from_blocks),
        ep.kernel("ToBlocks", domain=BLOCKS)(into_blocks),
        ep.kernel("FromBlocks", domain=BLOCKS)(from_blocks),
        *POINTWISE,
    )


class Reluctant(Last):
    """Knows blocks, and takes none."""

    name = "reluctant"
    kernels = (
        *(
            ep.kernel(op, domain=BLOCKS, when=lambda node: "not today")(lambda *x, **_: x)
            for op in ("Conv", "MaxPool", "GlobalAveragePool")
        ),
        *POINTWISE,
    )


class First(Last):
    name = "first"
    kernels = POINTWISE


def residual_network(height: Any = 5, channels: int = 8) -> onnx.ModelProto:
    """Convolutions, a pooling, a residual, a gate by the mean of each channel, and pieces that are joined."""
    b, c = Builder(18), channels
    x = b.input("x", onnx.TensorProto.FLOAT, ["N", 4, height, 4])
    y = b.op("Relu", b.op("Conv", x, b.weight(c, 4, 3, 3), b.weight(c), pads=[1, 1, 1, 1]))
    z = b.op("Conv", y, b.weight(c, c, 3, 3), pads=[1, 1, 1, 1])
    z = b.op("Mul", b.op("Sigmoid", z), b.weight(c, 1, 1))
    gate = b.op("Sigmoid", b.op("Conv", b.op("GlobalAveragePool", z), b.weight(c, c, 1, 1)))
    both = b.op("Concat", b.op("Relu", b.op("Add", b.op("Mul", z, gate), y)), y, axis=1)
    pooled = b.op("MaxPool", both, kernel_shape=[2, 2], strides=[2, 2])
    return b.model(b.op("Conv", pooled, b.weight(4, 2 * c, 1, 1)))


def operators(
    provider: type[ep.Provider], level: str = "all", height: Any = 5, channels: int = 8
) -> Counter[tuple[str, str]]:
    proto = residual_network(height, channels)
    feeds = {"x": np.random.default_rng(0).standard_normal((2, 4, 5, 4)).astype(np.float32)}
    with epkit.load(proto, [provider.name], registry=registry_of(provider), optimise=level) as session:
        assert_same(session.run(None, feeds), expected(proto, feeds), rtol=1e-5, atol=1e-5)
        return Counter((node.provider, node.operator) for node in session.placement.nodes)


@pytest.mark.parametrize("height", [5, "H"])
def test_who_asks_for_channels_last_gets_them_between_two_transpositions(height: Any) -> None:
    found = operators(Last, height=height)
    assert found["last", f"{LAST}.Conv"] == 4
    assert found["last", "Transpose"] == 2, "one in front, and one behind"
    assert not [operator for _, operator in found if operator == "Conv"]


@pytest.mark.parametrize("height", [5, "H"])
def test_who_asks_for_blocks_gets_them_between_two_changes_of_layout(height: Any) -> None:
    found = operators(InBlocks, height=height)
    assert {operator for provider, operator in found if provider != "in-blocks"} == set()
    assert found["in-blocks", f"{BLOCKS}.Conv"] == 4
    assert found["in-blocks", f"{BLOCKS}.ToBlocks"] == found["in-blocks", f"{BLOCKS}.FromBlocks"] == 1


class OnlyConvolutions(InBlocks):
    name = "only-convolutions"
    kernels = (*laid_out(BLOCKS, into_blocks, from_blocks), *POINTWISE)


def test_who_does_not_know_the_changes_of_layout_gets_them_in_parts() -> None:
    found = operators(OnlyConvolutions)
    assert found["only-convolutions", f"{BLOCKS}.Conv"] == 4
    assert found["only-convolutions", "Transpose"] == 4 and found["cpu", "Reshape"] == 2


@pytest.mark.parametrize("provider", [Last, InBlocks])
def test_at_other_levels_the_layout_stays(provider: type[ep.Provider]) -> None:
    names = {operator for _, operator in operators(provider, "extended")}
    assert "Conv" in names and not names & {"Transpose", f"{BLOCKS}.ToBlocks"}


@pytest.mark.parametrize("provider", [First, Reluctant])
def test_who_does_not_ask_or_refuses_computes_with_channels_in_front(provider: type[ep.Provider]) -> None:
    found = {operator for _, operator in operators(provider)}
    assert not [operator for operator in found if LAST in operator or BLOCKS in operator]
    assert "Conv" in found


def test_channels_that_are_no_whole_blocks_stay_as_they_are() -> None:
    """Of six channels, only the first convolution's input and the last one's output are whole blocks."""
    found = operators(InBlocks, channels=6)
    assert found["cpu", "Conv"] == 3 and found["in-blocks", f"{BLOCKS}.Conv"] == 1
    providers = [InBlocks()]
    missed = optimise(check(read(residual_network(channels=6))).model, "all", providers=providers).missed
    assert {each.reason for each in missed if "multiple of 4" in each.reason}


@pytest.mark.parametrize(("between", "changes"), [("Relu", 1), ("Softmax", 2)])
def test_what_does_not_work_element_by_element_is_computed_outside_of_the_layout(
    between: str, changes: int
) -> None:
    b = Builder(18)
    x = b.input("x", onnx.TensorProto.FLOAT, [1, 4, 3, 3])
    y = b.op(between, b.op("Conv", x, b.weight(4, 4, 1, 1)))
    proto = b.model(b.op("Conv", y, b.weight(4, 4, 1, 1)))
    found = optimise(check(read(proto)).model, "all", providers=[InBlocks()])
    assert Counter(node.op_type for node in found.model.graph)["ToBlocks"] == changes
    assert ("cancel_blocks" in {each.rule for each in found.applied}) is (between == "Relu")


SIDES = st.integers(1, 3)


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.name)
@settings(max_examples=8, deadline=None, database=None, phases=[Phase.generate])
@given(data=st.data())
def test_into_a_layout_and_back_is_what_it_was(layout: Any, data: st.DataObject) -> None:
    """As nodes, and as it is done with constants; which is what the words say of it."""
    blocks = data.draw(SIDES)
    channels = blocks * layout.size if isinstance(layout, Blocks) else blocks
    shape = [data.draw(SIDES), channels, *(data.draw(SIDES) for _ in range(data.draw(st.integers(1, 3))))]
    x = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    turned = layout.array(x)
    for place in np.ndindex(*shape):
        n, c, *spatial = place
        there = (n, *spatial, c)
        if isinstance(layout, Blocks):
            there = (n, c // layout.size, *spatial, c % layout.size)
        assert turned[there] == x[place]
    assert_same([run_nodes(layout.entering, x, shape, x.shape)], [turned])
    assert_same([run_nodes(layout.leaving, turned, shape, turned.shape)], [x])


def run_nodes(change: Any, x: Any, shape: list[int], given_shape: tuple[int, ...]) -> Any:
    """What the nodes of a change of layout compute; ``shape`` is that with channels in front."""
    import onnx_ir as ir

    like = ir.Value(name="like", shape=ir.Shape(shape), type=ir.TensorType(ir.DataType.FLOAT))
    value = ir.Value(name="x", shape=ir.Shape(given_shape), type=like.type)
    nodes = change(value, like)
    nodes[-1].outputs[0].name = "y"
    for number, node in enumerate(nodes):
        for output in node.outputs:
            output.name = output.name or f"v{number}"
    graph = ir.Graph([value], nodes[-1].outputs, nodes=nodes, opset_imports={"": 18}, name="g")
    proto = ir.to_proto(ir.Model(graph, ir_version=10))
    proto.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    return expected(proto, {"x": x})["y"]
