"""Random models with control flow that give values other names: carried, swapped, doubled, captured, returned as they are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

DTYPES = (np.float32, np.float64, np.int32, np.int64)
SHAPE = (2, 3)
OPS = ("Add", "Sub", "Max")

Choose = Callable[[int], int]
"""A number from 0 to one less than that."""


@dataclass
class Maker:
    """Makes graphs over matrices of one type and shape.

    Attributes:
        choose: the source of chance.
        dtype: of all matrices.
    """

    choose: Choose
    dtype: type
    count: int = 0
    made: list[str] = field(default_factory=list)

    def name(self, stem: str) -> str:
        """A name that nobody has."""
        self.count += 1
        return f"{stem}{self.count}"

    def pick(self, values: Sequence[str]) -> str:
        """One of them, later ones more often."""
        return values[-1 - min(self.choose(len(values)), self.choose(len(values)))]

    def matrix(self, name: str, *more: str | int) -> ValueInfoProto:
        """The type of a matrix, or of several."""
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(self.dtype))
        return helper.make_tensor_value_info(name, kind, [*more, *SHAPE])

    def body(self, known: Sequence[str], depth: int, least: int = 0) -> tuple[list[NodeProto], list[str]]:
        """Nodes over the known values; and all values that there are then."""
        nodes, values = [], list(known)
        for _ in range(least + self.choose(3)):
            nested = depth > 0 and self.choose(3) == 0
            if nested:
                kind = (self.branch, self.loop, self.scan)[self.choose(3)]
                made, outputs = kind(values, depth - 1)
                nodes += made
                values += outputs
            else:
                output = self.name("v")
                inputs = [self.pick(values), self.pick(values)]
                nodes.append(helper.make_node(OPS[self.choose(len(OPS))], inputs, [output], output))
                values.append(output)
        return nodes, values

    def results(self, nodes: list[NodeProto], values: Sequence[str], count: int) -> list[str]:
        """Names of results, which differ; what they are named after may not."""
        names = []
        for _ in range(count):
            source = self.pick(values)
            local = any(source in node.output for node in nodes)
            if local and source not in names and self.choose(2):
                names.append(source)
                continue
            names.append(self.name("r"))  # of values from outside, onnxruntime wants a node to be there
            nodes.append(helper.make_node("Identity", [source], [names[-1]], names[-1]))
        return names

    def branch(self, known: Sequence[str], depth: int) -> tuple[list[NodeProto], list[str]]:
        """An If."""
        count, graphs = 1 + self.choose(2), {}
        for side in ("then_branch", "else_branch"):
            nodes, values = self.body(known, depth)
            names = self.results(nodes, values, count)
            graphs[side] = helper.make_graph(nodes, self.name(side), [], [self.matrix(n) for n in names])
        outputs = [self.name("y") for _ in range(count)]
        condition = ("c", "d")[self.choose(2)]
        return [helper.make_node("If", [condition], outputs, self.name("if"), **graphs)], outputs

    def loop(self, known: Sequence[str], depth: int) -> tuple[list[NodeProto], list[str]]:
        """A Loop that ends by its number of trips or by its condition; the last slice that it stacked is a value."""
        carried, stacked = self.choose(3), 1 + self.choose(2)
        number, going, stay = self.name("i"), self.name("go"), self.name("on")
        formals = [self.name("s") for _ in range(carried)]
        nodes, values = self.body([*known, *formals], depth)
        names = self.results(nodes, values, carried + stacked)
        if self.choose(2):
            nodes.append(helper.make_node("Less", [number, "few"], [stay], stay))
        else:
            nodes.append(helper.make_node("Identity", [going], [stay], stay))
        graph = helper.make_graph(
            nodes,
            self.name("body"),
            [
                helper.make_tensor_value_info(number, TensorProto.INT64, []),
                helper.make_tensor_value_info(going, TensorProto.BOOL, []),
                *map(self.matrix, formals),
            ],
            [helper.make_tensor_value_info(stay, TensorProto.BOOL, []), *map(self.matrix, names)],
        )
        outputs = [self.name("y") for _ in range(carried)]
        stacks = [self.name("all") for _ in range(stacked)]
        inputs = ["n", ("c", "")[self.choose(2)], *(self.pick(known) for _ in range(carried))]
        made = [helper.make_node("Loop", inputs, [*outputs, *stacks], self.name("loop"), body=graph)]
        return self.summed(made, stacks, outputs)

    def scan(self, known: Sequence[str], depth: int) -> tuple[list[NodeProto], list[str]]:
        """A Scan over the rows or columns of stacked matrices, forwards or backwards."""
        state, stacked = self.choose(3), 1 + self.choose(2)
        axis = self.choose(3)
        source = self.name("rows")
        source_nodes = [
            helper.make_node("Unsqueeze", [self.pick(known), "places"], [source + "u"]),
            helper.make_node("Concat", [source + "u"] * 3, [source + "c"], axis=0),
            helper.make_node(
                "Transpose", [source + "c"], [source], perm=[[0, 1, 2], [1, 0, 2], [1, 2, 0]][axis]
            ),
        ]
        formals, slices = [self.name("s") for _ in range(state)], [self.name("x")]
        nodes, values = self.body([*known, *formals, *slices], depth)
        names = self.results(nodes, values, state + stacked)
        graph = helper.make_graph(
            nodes, self.name("body"), [*map(self.matrix, [*formals, *slices])], [*map(self.matrix, names)]
        )
        outputs = [self.name("y") for _ in range(state)]
        stacks = [self.name("all") for _ in range(stacked)]
        made = helper.make_node(
            "Scan",
            [*(self.pick(known) for _ in range(state)), source],
            [*outputs, *stacks],
            self.name("scan"),
            body=graph,
            num_scan_inputs=1,
            scan_input_axes=[axis - 3 * self.choose(2)],
            scan_input_directions=[self.choose(2)],
            scan_output_axes=[self.choose(3) for _ in stacks],
            scan_output_directions=[self.choose(2) for _ in stacks],
        )
        axes = [item.ints for item in made.attribute if item.name == "scan_output_axes"][0]
        back = []
        for name, where in zip(stacks, axes, strict=True):
            back.append(
                helper.make_node(
                    "Transpose", [name], [name + "t"], perm=[[0, 1, 2], [1, 0, 2], [2, 0, 1]][where]
                )
            )
        return self.summed([*source_nodes, made, *back], [name + "t" for name in stacks], outputs)

    def summed(
        self, nodes: list[NodeProto], stacks: Sequence[str], outputs: list[str]
    ) -> tuple[list[NodeProto], list[str]]:
        """Stacks as matrices: by their sums along the first axis, weighted so that the order counts."""
        for stack in stacks:
            total, weighted = self.name("z"), self.name("w")
            nodes.append(helper.make_node("CumSum", [stack, "zero"], [weighted]))
            nodes.append(helper.make_node("ReduceSum", [weighted, "places"], [total], total, keepdims=0))
            outputs = [*outputs, total]
        return nodes, outputs

    def model(self, depth: int) -> onnx.ModelProto:
        """A model of inputs ``a`` and ``b``, trips ``n``, conditions ``c`` and ``d``, with all values as results."""
        weights = {
            "weight": np.arange(6).reshape(SHAPE).astype(self.dtype),
            "places": np.array([0]),
            "zero": np.array(0),
            "few": np.array(1),
        }
        nodes, values = self.body(["weight", "a", "b"], depth, least=2)
        names = [value for value in values if value not in ("weight", "a", "b")]
        bools = [helper.make_tensor_value_info(name, TensorProto.BOOL, []) for name in "cd"]
        graph = helper.make_graph(
            nodes,
            "g",
            [
                self.matrix("a"),
                self.matrix("b"),
                helper.make_tensor_value_info("n", TensorProto.INT64, []),
                *bools,
            ],
            [self.matrix(name) for name in names],
            [numpy_helper.from_array(array, name) for name, array in weights.items()],
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
