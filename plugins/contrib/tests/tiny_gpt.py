"""A decoder of GPT-2's shape, small enough to search with: one or two layers of com.microsoft's Attention."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

VOCABULARY, HIDDEN, HEADS, LONGEST = 11, 8, 2, 16
INT32, FLOAT = TensorProto.INT32, TensorProto.FLOAT


def decoder(layers: int = 1, seed: int = 0, sharpness: float = 3.0, outside: bool = False) -> Any:
    """The subgraph, and initializers for the graph around it (if ``outside``, else they are inside)."""
    random = np.random.default_rng(seed)

    def numbers(*shape: int, scale: float = 1.0) -> Any:
        return (random.standard_normal(shape) * scale).astype(np.float32)

    words = numbers(VOCABULARY, HIDDEN)
    weights = {
        "words": words,
        "places": numbers(LONGEST, HIDDEN),
        "head": np.ascontiguousarray(words.T) * np.float32(sharpness / HIDDEN),
    }
    nodes = [
        helper.make_node("Gather", ["words", "input_ids"], ["w"]),
        helper.make_node("Gather", ["places", "position_ids"], ["p"]),
        helper.make_node("Add", ["w", "p"], ["x_0"]),
    ]
    for i in range(layers):
        weights[f"qkv_{i}"] = numbers(HIDDEN, 3 * HIDDEN, scale=0.7)
        weights[f"bias_{i}"] = numbers(3 * HIDDEN)
        nodes += [
            helper.make_node(
                "Attention",
                [f"x_{i}", f"qkv_{i}", f"bias_{i}", "attention_mask", f"past_{i}"],
                [f"a_{i}", f"present_{i}"],
                domain="com.microsoft",
                num_heads=HEADS,
                unidirectional=1,
            ),
            helper.make_node("Add", [f"x_{i}", f"a_{i}"], [f"x_{i + 1}"]),
        ]
    nodes.append(helper.make_node("MatMul", [f"x_{layers}", "head"], ["logits"]))
    tensors = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    past = [2, "batch", HEADS, "past", HIDDEN // HEADS]
    graph = helper.make_graph(
        nodes,
        "decoder",
        [
            helper.make_tensor_value_info("input_ids", INT32, ["batch", "length"]),
            helper.make_tensor_value_info("position_ids", INT32, ["batch", "length"]),
            helper.make_tensor_value_info("attention_mask", INT32, ["batch", "all"]),
            *(helper.make_tensor_value_info(f"past_{i}", FLOAT, past) for i in range(layers)),
        ],
        [
            helper.make_tensor_value_info("logits", FLOAT, ["batch", "length", VOCABULARY]),
            *(
                helper.make_tensor_value_info(f"present_{i}", FLOAT, [*past[:3], "total", past[4]])
                for i in range(layers)
            ),
        ],
        initializer=[] if outside else tensors,
    )
    return graph, tensors if outside else []


def search_model(
    op: str,
    inputs: dict[str, Any],
    formal: tuple[str, ...],
    subgraph: Any,
    outputs: tuple[str, ...] = ("sequences",),
    opset: int = 17,
    **attributes: Any,
) -> onnx.ModelProto:
    """A model of one search; what ``inputs`` lacks is left out."""
    graph, tensors = subgraph
    names = [name if name in inputs else "" for name in formal]
    while not names[-1]:
        names.pop()
    node = helper.make_node(
        op, names, list(outputs), name="it", domain="com.microsoft", decoder=graph, **attributes
    )
    given = [
        helper.make_tensor_value_info(
            name,
            helper.np_dtype_to_tensor_dtype(value.dtype),
            [None] * value.ndim if name == "input_ids" else value.shape,
        )
        for name, value in inputs.items()
    ]
    kinds = {"sequences": INT32, "filtered_logits": FLOAT}
    results = [helper.make_tensor_value_info(name, kinds[name], [None, None]) for name in outputs]
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    around = helper.make_graph([node], "search", given, results, initializer=tensors)
    return helper.make_model(around, opset_imports=opsets, ir_version=8)
