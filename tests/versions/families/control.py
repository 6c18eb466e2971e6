"""If, Loop and Scan, with bodies that read values of the graph around them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from epkit.dtypes import CODE

from ..case import Case, cases_for, in_type_for
from ..data import floats, ints
from ..retype import as_element

F, I, B = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL  # noqa: E741
Info = tuple[str, int, Sequence[int | None] | None]


def graph(nodes: Sequence[str], inputs: Sequence[Info], outputs: Sequence[Info]) -> onnx.GraphProto:
    """A body; each node is written ``results = Operator arguments``."""
    made = []
    for line in nodes:
        left, _, right = line.partition("=")
        op, *arguments = right.split()
        made.append(helper.make_node(op, arguments, left.split()))
    ins, outs = ([helper.make_tensor_value_info(*info) for info in infos] for infos in (inputs, outputs))
    return helper.make_graph(made, "body", ins, outs)


@cases_for("If")
def branch(op: str, version: int) -> Iterator[Case]:
    """Both branches read a value of the graph around them; since opset 11 the results may differ in shape."""
    outer = floats(2, 3)
    shapes = ((2, 3), (2, 3)) if version < 11 else ((2, 3), (3, 2))
    then = graph(["r = Neg outer"], [], [("r", F, shapes[0])])
    other = graph(["r = Abs outer" if version < 11 else "r = Transpose outer"], [], [("r", F, shapes[1])])
    for condition in (True, False):
        chosen: Any = -outer if condition else (np.abs(outer) if version < 11 else outer.T)
        yield Case(
            [np.array(condition)],
            {"then_branch": then, "else_branch": other},
            captured={"outer": outer},
            expect=lambda _, chosen=chosen: [chosen],
            retype=False,
        )
    if version >= 13:
        sequences = graph(["r = SequenceConstruct outer outer"], [], [])
        sequences.output.add(
            name="r", type=helper.make_sequence_type_proto(helper.make_tensor_type_proto(F, None))
        )
        yield Case(
            [np.array(True)],
            {"then_branch": sequences, "else_branch": sequences},
            captured={"outer": outer},
            expect=lambda _: [[outer, outer]],
            retype=False,
        )


@cases_for("Loop")
def loop(op: str, version: int) -> Iterator[Case]:
    """Sums up, collects the sums, and stops at the limit, by the condition, or before it begins."""
    step, start = floats(2, low=0.5, high=1), np.array([0, 1], np.float32)
    adding = ["sum = Add v step", "out = Identity sum", "go = Identity keep"]
    body = graph(
        adding,
        [("i", I, ()), ("keep", B, ()), ("v", F, (2,))],
        [("go", B, ()), ("sum", F, (2,)), ("out", F, (2,))],
    )

    def case(limit: int | None, condition: bool | None, trips: int) -> Case:
        sums = np.array([start + step * (trip + 1) for trip in range(trips)], np.float32).reshape(trips, 2)
        inputs = [
            None if limit is None else np.array(limit),
            None if condition is None else np.array(condition),
        ]
        return Case(
            [*inputs, start],
            {"body": body},
            outputs=2,
            captured={"step": step},
            expect=lambda *_: [sums[-1] if trips else start, sums],
            retype=False,
        )

    yield case(4, True, 4)
    yield case(3, None, 3)
    yield case(0, True, 0)
    yield case(5, False, 0)
    counting = graph(
        ["n = Add v one", "go = Less n stop" if version >= 9 else "go = Identity keep"],
        [("i", I, ()), ("keep", B, ()), ("v", F, ())],
        [("go", B, ()), ("n", F, ())],
    )
    if version >= 9:
        yield Case(
            [None, np.array(True), np.array(0, np.float32)],
            {"body": counting},
            captured={"one": np.array(1, np.float32), "stop": np.array(6, np.float32)},
            expect=lambda *_: [np.array(6, np.float32)],
            retype=False,
        )
    if version >= 13:
        yield _growing()


def _growing() -> Case:
    """A carried sequence grows by one tensor, itself growing, at each trip."""
    items = helper.make_sequence_type_proto(helper.make_tensor_type_proto(F, None))
    body = graph(
        ["t = Cast i", "u = Unsqueeze t axes", "grown = SequenceInsert v u", "go = Identity keep"],
        [("i", I, ()), ("keep", B, ())],
        [("go", B, ())],
    )
    body.node[0].attribute.append(helper.make_attribute("to", F))
    body.input.add(name="v", type=items)
    body.output.add(name="grown", type=items)
    return Case(
        [np.array(3), np.array(True), []],
        {"body": body},
        types={2: items},
        captured={"axes": ints(0)},
        expect=lambda *_: [[np.array([n], np.float32) for n in range(3)]],
        retype=False,
    )


@cases_for("Scan")
def scan(op: str, version: int) -> Iterator[Case]:
    """A running sum: the sums so far are collected, and the last one is the final state."""
    body = graph(
        ["s = Add a b", "out = Identity s"],
        [("a", F, (2,)), ("b", F, (2,))],
        [("s", F, (2,)), ("out", F, (2,))],
    )
    given = {"body": body, "num_scan_inputs": 1}
    if version < 9:
        yield from _batched(given)
        return
    start, x = floats(2), floats(5, 2)

    def sums(x: Any) -> Any:
        return start + np.cumsum(x, axis=0, dtype=np.float64).astype(np.float32)

    def case(x: Any, expected: Any, **attributes: Any) -> Case:
        results = lambda *_: [sums(expected)[-1], _moved(sums(expected), attributes)]  # noqa: E731
        return Case([start, x], {**given, **attributes}, outputs=2, expect=results, retype=False)

    yield case(x, x)
    yield case(x, x[::-1], scan_input_directions=[1])
    yield case(x, x, scan_output_directions=[1])
    yield case(x.T.copy(), x, scan_input_axes=[1], scan_output_axes=[1])


def _moved(sums: Any, attributes: Any) -> Any:
    back = sums[::-1] if attributes.get("scan_output_directions") == [1] else sums
    return back.T if attributes.get("scan_output_axes") == [1] else back


def _batched(given: dict[str, Any]) -> Iterator[Case]:
    """Scan-8: each entry of the batch by itself; what lies behind a sequence's end is zero in the results."""
    start, x = floats(2, 2), floats(2, 3, 2)

    def results(lengths: Sequence[int], backwards: bool) -> list[Any]:
        final, collected = start.copy(), np.zeros((2, 3, 2), np.float32)
        for b, length in enumerate(lengths):
            row = x[b, :length][::-1] if backwards else x[b, :length]
            collected[b, :length] = start[b] + np.cumsum(row, axis=0)
            final[b] = collected[b, length - 1]
        return [final, collected]

    yield Case([None, start, x], given, outputs=2, expect=lambda *_: results((3, 3), False), retype=False)
    lengths = ints(2, 3)
    yield Case([lengths, start, x], given, outputs=2, expect=lambda *_: results((2, 3), False), retype=False)
    reverse = {**given, "directions": [1]}
    yield Case([lengths, start, x], reverse, outputs=2, expect=lambda *_: results((2, 3), True), retype=False)


@in_type_for("If", "Loop", "Scan", "SequenceMap")
def in_type(op: str, version: int, variable: str, element: str) -> Case | None:
    """Values of any type go through, unchanged."""
    x, code = as_element(floats(3, 2), element), CODE[element]
    if variable != "V":
        return None
    if op == "If":
        same = graph(["r = Identity outer"], [], [("r", code, (3, 2))])
        given = {"then_branch": same, "else_branch": same}
        return Case([np.array(True)], given, captured={"outer": x}, expect=lambda _: [x])
    if op == "Loop":
        nodes = ["next = Identity v", "out = Identity v", "go = Identity keep"]
        outputs = [("go", B, ()), ("next", code, (3, 2)), ("out", code, (3, 2))]
        body = graph(nodes, [("i", I, ()), ("keep", B, ()), ("v", code, (3, 2))], outputs)
        inputs = [np.array(2), np.array(True), x]
        return Case(inputs, {"body": body}, outputs=2, expect=lambda *_: [x, np.stack([x, x])])
    nodes = ["r = Identity b", "out = Identity a"]
    pair = [(name, code, (2,)) for name in ("a", "b", "r", "out")]
    body = graph(nodes, pair[:2], pair[2:])
    if op == "SequenceMap":
        items = [x[0], x[1]]
        return Case([items, x[2]], {"body": body}, outputs=2, expect=lambda *_: [[x[2], x[2]], items])
    results = [x[2], np.stack([x[2], x[0], x[1]])]
    inputs = [x[2], x]
    if version < 9:
        inputs, results = [None, x[2:], x[None]], [result[None] for result in results]
    given = {"body": body, "num_scan_inputs": 1}
    return Case(inputs, given, outputs=2, expect=lambda *_: results)
