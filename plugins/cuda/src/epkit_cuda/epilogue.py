"""A bias and an activation that follow a product with a weight become part of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import onnx_ir as ir

from epkit.backend import Subgraph, element_type

from .kernels.products import gelu_or_relu

if TYPE_CHECKING:
    from .step import Step


def absorb(steps: list[Step], readers: Mapping[ir.Value, set[ir.Node]], subgraph: Subgraph) -> list[Step]:
    """The steps, those chains gone that are no more than a bias and an activation after a product."""
    makers = {step.outputs[0]: step for step in steps if _is_product(step)}
    kept = {id(step): step for step in steps}
    for step in steps:
        product = _product_before(step, makers, readers, subgraph)
        found = None if product is None else _epilogue(step, product, subgraph)
        if product is None or found is None:
            continue
        bias, activation = found
        reads = product.reads if bias is None else (*product.reads, bias)
        merged = replace(product, nodes=(*product.nodes, *step.nodes), reads=reads, activation=activation)
        del kept[id(product)]
        kept[id(step)] = merged
    return list(kept.values())


def _is_product(step: Step) -> bool:
    if step.kernel is None or step.kernel.op_type != "MatMul" or "activation" not in step.kernel.attributes:  # type: ignore[operator]
        return False
    return len(step.nodes) == 1


def _product_before(
    step: Step,
    makers: Mapping[ir.Value, Step],
    readers: Mapping[ir.Value, set[ir.Node]],
    subgraph: Subgraph,
) -> Step | None:
    """The product with a weight whose only reader is the chain's first node, or None."""
    if step.chain is None:
        return None
    first = step.nodes[0]
    for value in first.inputs:
        if value is None or value not in makers:
            continue
        if value not in subgraph.outputs and readers[value] == {first}:
            weight = makers[value].nodes[0].inputs[1]
            if weight is not None and (array := subgraph.constant(weight)) is not None and array.ndim == 2:
                return makers[value]
    return None


def _epilogue(step: Step, product: Step, subgraph: Subgraph) -> tuple[ir.Value | None, str] | None:
    """The bias and the activation that the chain is, or None if it is something else."""
    nodes, made = list(step.nodes), product.outputs[0]
    bias = None
    if nodes[0].op_type == "Add" and not nodes[0].domain:
        bias = next((value for value in nodes[0].inputs if value is not made), None)
        if bias is None or not _is_bias(bias, product, subgraph):
            return None
        nodes = nodes[1:]
    if not nodes:
        return bias, ""
    activation = gelu_or_relu(nodes[0])
    return None if activation is None or len(nodes) > 1 else (bias, activation)


def _is_bias(bias: ir.Value, product: Step, subgraph: Subgraph) -> bool:
    array, weight = subgraph.constant(bias), product.nodes[0].inputs[1]
    if array is None or weight is None or weight.shape is None:
        return False
    same = element_type(bias) == element_type(weight)
    return same and tuple(array.shape) == (weight.shape[1],)
