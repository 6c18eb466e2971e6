"""Small models for tests: from text, and random ones.

Random models are over float32 matrices of one shape, so that any two values may meet in a node. They have
diamonds, nodes of several outputs, dead ends, constants, and bodies of If, Loop and Scan that capture values.
All values stay small, so results of different evaluators can be compared with one tolerance.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnx.parser
from onnx import TensorProto, helper

OPSET = 18
SIDE = 3
"""Random models compute with matrices of this many rows and columns."""

UNARY = ("Relu", "Neg", "Tanh", "Abs", "Sigmoid", "Identity", "Transpose")
BINARY = ("Add", "Sub", "Max", "Min", "Mul", "MatMul")


def model(text: str, *, opset: int = OPSET, domains: Mapping[str, int] | None = None) -> onnx.ModelProto:
    """A model in ONNX's textual syntax, without the header: ``model("g (float[N] x) => (float[N] y) { ... }")``.

    Functions may follow the graph. ``domains`` are imported besides the default one.
    """
    imports = ", ".join(f'"{name}": {version}' for name, version in {"": opset, **(domains or {})}.items())
    return onnx.parser.parse_model(f"<ir_version: 10, opset_import: [{imports}]> {text}")


def random_model(rng: random.Random, nodes: int = 10, depth: int = 1) -> onnx.ModelProto:
    """A random model of about ``nodes`` nodes with inputs ``a`` and ``b``; control flow up to ``depth`` deep."""
    build = _Builder(rng)
    top = _Scope(["a", "b"], ["w"])
    for _ in range(nodes):
        build.step(top, depth)
    outputs = list(dict.fromkeys([*top.unused, rng.choice(top.values[2:])]))
    graph = helper.make_graph(
        top.nodes,
        "main",
        [_matrix("a"), _matrix("b")],
        [_matrix(name) for name in outputs],
        [onnx.numpy_helper.from_array(array, name) for name, array in _constants().items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)


def random_feeds(seed: int = 0) -> dict[str, np.ndarray[Any, Any]]:
    """Inputs for a random model."""
    rng = np.random.default_rng(seed)
    return {name: rng.standard_normal((SIDE, SIDE)).astype(np.float32) for name in "ab"}


def _matrix(name: str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, [SIDE, SIDE])


def _row(name: str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, [SIDE])


def _constants() -> dict[str, np.ndarray[Any, Any]]:
    return {
        "w": np.linspace(-1, 1, SIDE * SIDE, dtype=np.float32).reshape(SIDE, SIDE),
        "row": np.linspace(-1, 1, SIDE, dtype=np.float32),
        "yes": np.array(True),
        "zero": np.array(0, np.float32),
        "first_axis": np.array([0], np.int64),
        "sizes": np.array([1, SIDE - 1], np.int64),
        **{f"trips_{count}": np.array(count, np.int64) for count in (1, 2, 3)},
    }


@dataclass
class _Scope:
    """One graph in the making. ``outside`` are values of the enclosing graphs and constants."""

    values: list[str]
    outside: list[str]
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    unused: dict[str, None] = field(default_factory=dict)


class _Builder:
    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.count = 0

    def name(self, stem: str) -> str:
        self.count += 1
        return f"{stem}{self.count}"

    def node(
        self, scope: _Scope, op_type: str, inputs: Sequence[str], n_outputs: int = 1, **attributes: Any
    ) -> str:
        """Append a node; its outputs are ``NAME`` (and ``NAME.1``, ...); returns the first."""
        name = self.name(op_type.lower())
        outputs = [name, *(f"{name}.{index}" for index in range(1, n_outputs))]
        scope.nodes.append(helper.make_node(op_type, inputs, outputs, name=name, **attributes))
        for used in inputs:
            scope.unused.pop(used, None)
        return name

    def keep(self, scope: _Scope, value: str) -> None:
        scope.values.append(value)
        scope.unused[value] = None

    def pick(self, scope: _Scope) -> str:
        """A value to read; the latest are likelier, so that graphs are deep as well as wide."""
        known = scope.values[-4:] if self.rng.random() < 0.6 else [*scope.values, *scope.outside]
        return self.rng.choice(known)

    def step(self, scope: _Scope, depth: int) -> None:
        kinds = [self.unary, self.unary, self.binary, self.binary, self.binary, self.split]
        nested = [self.branch, self.loop, self.scan] if depth > 0 and self.rng.random() < 0.3 else []
        if nested:
            self.keep(scope, self.rng.choice(nested)(scope, depth - 1))
        else:
            self.keep(scope, self.rng.choice(kinds)(scope))

    # ---- nodes ----

    def unary(self, scope: _Scope) -> str:
        return self.node(scope, self.rng.choice(UNARY), [self.pick(scope)])

    def binary(self, scope: _Scope) -> str:
        op_type = self.rng.choice(BINARY)
        result = self.node(scope, op_type, [self.pick(scope), self.pick(scope)])
        return self.node(scope, "Tanh", [result]) if op_type in ("Mul", "MatMul") else result

    def split(self, scope: _Scope) -> str:
        parts = self.node(scope, "Split", [self.pick(scope), "sizes"], 2, axis=0)
        order = [parts, f"{parts}.1"]
        self.rng.shuffle(order)
        return self.node(scope, "Concat", order, axis=0)

    def branch(self, scope: _Scope, depth: int) -> str:
        total = self.node(scope, "ReduceSum", [self.pick(scope)], keepdims=0)
        condition = self.node(scope, "Greater", [total, "zero"])
        graphs = {name: self.body(scope, name, [], [], depth) for name in ("then_branch", "else_branch")}
        return self.node(scope, "If", [condition], **graphs)

    def loop(self, scope: _Scope, depth: int) -> str:
        carried = self.name("carried")
        trip, going = self.name("trip"), self.name("going")
        head = [
            helper.make_tensor_value_info(trip, TensorProto.INT64, []),
            helper.make_tensor_value_info(going, TensorProto.BOOL, []),
            _matrix(carried),
        ]
        body = self.body(scope, "body", head, [carried], depth, going=going)
        trips = f"trips_{self.rng.randint(1, 3)}"
        result = self.node(scope, "Loop", [trips, "yes", self.pick(scope)], 2, body=body)
        total = self.node(scope, "ReduceSum", [f"{result}.1", "first_axis"], keepdims=0)
        return self.node(scope, "Add", [result, total])

    def body(
        self,
        outer: _Scope,
        name: str,
        inputs: list[onnx.ValueInfoProto],
        values: list[str],
        depth: int,
        going: str = "",
    ) -> onnx.GraphProto:
        """A body over matrices; with ``going`` that of a Loop, which also gives a row of its last value.

        Loops run once at least, with a condition, and stack rows: ``onnx.reference`` 1.23 gets nothing else right.
        """
        scope = _Scope(list(values), [*outer.values, *outer.outside])
        if not values:
            self.keep(scope, self.node(scope, "Tanh", [self.pick(outer)]))
        for _ in range(self.rng.randint(1, 3)):
            self.step(scope, depth)
        result = scope.values[-1]
        outputs = [_matrix(result)]
        if going:
            go_on = self.node(scope, "Identity", [going])
            row = self.node(scope, "ReduceMax", [result, "first_axis"], keepdims=0)
            outputs = [helper.make_tensor_value_info(go_on, TensorProto.BOOL, []), _matrix(result), _row(row)]
        return helper.make_graph(scope.nodes, self.name(name), inputs, outputs)

    def scan(self, scope: _Scope, depth: int) -> str:
        """Rows of a matrix go in and come out; the state is a row."""
        del depth
        source = self.pick(scope)
        start = self.node(scope, "ReduceMax", [source, "first_axis"], keepdims=0)
        state, row = self.name("state"), self.name("row")
        inner = _Scope([state, row], ["row"])
        for _ in range(self.rng.randint(1, 2)):
            self.keep(
                inner, self.node(inner, self.rng.choice(BINARY[:4]), [self.pick(inner), self.pick(inner)])
            )
        after = self.node(inner, "Tanh", [inner.values[-1]])
        out = self.node(inner, "Sub", [after, row])
        vectors = [_row(name) for name in (state, row, after, out)]
        body = helper.make_graph(inner.nodes, self.name("scan_body"), vectors[:2], vectors[2:])
        result = self.node(scope, "Scan", [start, source], 2, body=body, num_scan_inputs=1)
        return self.node(scope, "Add", [f"{result}.1", result])
