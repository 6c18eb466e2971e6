"""Recipes for operators with bodies. The runtime walks through them; their nodes are the provider's to run."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper

from epkit.dtypes import CODE

from .trial import Trial, draw, exactly, recipe


def _body(
    nodes: Sequence[tuple[str, Sequence[str], str]],
    inputs: Sequence[tuple[str, int, Sequence[int] | None]],
    outputs: Sequence[tuple[str, int, Sequence[int] | None]],
) -> onnx.GraphProto:
    """A graph of (operator, inputs, output), with its inputs and outputs as (name, element type, shape)."""
    made = [helper.make_node(op, given, [output], f"{op}_{output}") for op, given, output in nodes]
    given, results = ([helper.make_tensor_value_info(*item) for item in items] for items in (inputs, outputs))
    return helper.make_graph(made, "body", given, results)


@recipe("If")
def if_(op: str, version: int, dtype: str, rng: np.random.Generator) -> Trial:
    """The branch that is not the first; both read a tensor of the graph around them."""
    x = draw(rng, (3, 5), "float32")
    out = [("r", TensorProto.FLOAT, (3, 5))]
    branches = {
        "then_branch": _body([("Neg", ["x"], "r")], [], out),
        "else_branch": _body([("Relu", ["x"], "r")], [], out),
    }
    return Trial([np.array(False)], exactly(np.maximum(x, 0)), branches, result="float32", outer={"x": x})


@recipe("Loop")
def loop(op: str, version: int, dtype: str, rng: np.random.Generator) -> Trial:
    """Three rounds of a sum in whole numbers; what each round leaves is stacked."""
    x, first = np.round(draw(rng, (2, 3), "float32")), np.round(draw(rng, (2, 3), "float32"))
    body = _body(
        [("Identity", ["going"], "on"), ("Add", ["sum", "x"], "next"), ("Neg", ["next"], "seen")],
        [("i", TensorProto.INT64, ()), ("going", TensorProto.BOOL, ()), ("sum", TensorProto.FLOAT, (2, 3))],
        [
            ("on", TensorProto.BOOL, ()),
            ("next", TensorProto.FLOAT, (2, 3)),
            ("seen", TensorProto.FLOAT, (2, 3)),
        ],
    )
    rounds = [first + turn * x for turn in (1, 2, 3)]
    want = exactly(rounds[-1], -np.stack(rounds))
    return Trial([np.array(3), np.array(True), first], want, {"body": body}, result="float32", outer={"x": x})


@recipe("Scan")
def scan(op: str, version: int, dtype: str, rng: np.random.Generator) -> Trial:
    """Each row takes the place of the one after it; the first is given, the last comes out by itself."""
    kind = "float32" if version < 9 else dtype
    start, rows = draw(rng, (3,), kind), draw(rng, (4, 3), kind)
    code = CODE[kind]
    body = _body(
        [("Identity", ["row"], "kept"), ("Identity", ["before"], "out")],
        [("before", code, (3,)), ("row", code, (3,))],
        [("kept", code, (3,)), ("out", code, (3,))],
    )
    moved = np.concatenate([start[None], rows[:-1]])
    how = {"body": body, "num_scan_inputs": 1}
    if version < 9:  # everything has a batch axis, and lengths may be given
        return Trial([None, start[None], rows[None]], exactly(rows[-1:], moved[None]), how, result=kind)
    return Trial([start, rows], exactly(rows[-1], moved), how)


@recipe("SequenceMap")
def sequence_map(op: str, version: int, dtype: str, rng: np.random.Generator) -> Trial:
    """Two columns of each item, by indices that all items share."""
    items = [draw(rng, (2, columns), dtype) for columns in (2, 3, 4)]
    body = helper.make_graph(
        [helper.make_node("Gather", ["item", "which"], ["picked"], "pick", axis=1)],
        "body",
        [
            helper.make_tensor_value_info("item", CODE[dtype], [2, None]),
            helper.make_tensor_value_info("which", TensorProto.INT64, [2]),
        ],
        [helper.make_tensor_value_info("picked", CODE[dtype], [2, 2])],
    )
    picked = [item[:, [1, 0]] for item in items]
    return Trial([items, np.array([1, 0])], [picked], {"body": body})
