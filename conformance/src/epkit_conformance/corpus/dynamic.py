"""Level 2: the published cases made dynamic. Of the 1,884 published, 4 have a dimension that is not fixed.

Two changes, both mechanical:

* *symbolic*: every dimension of every tensor input gets a name of its own, outputs lose their shapes, the data
  stay as published. Left out: models whose inputs are not all tensors with shapes, and those without inputs.
* *rows*: the leading dimension also gets other sizes: none, one, several. For that, axis 0 of an operator must be
  like any other element of a batch (``BATCHED``), or the operator look at each element by itself. Of a batch, the
  first input and the published outputs repeat or lose rows. Of elementwise operators, so do all inputs that have
  the first one's leading size and rank; what must come out is asked of ``onnx.reference``, and sizes that it cannot
  compute are left out when the case runs, which then says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import onnx

from ..case import PUBLISHED, REFERENCE, Case
from ..evidence import as_value, run_model
from ..meanings import words
from ..probes import reference
from ..result import Result, State
from .published import matrix_place, published, tolerance

ROWS = (0, 1, 3)

ELEMENTWISE = words(
    """
    Abs Acos Acosh Add And Asin Asinh Atan Atanh BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor
    Cast Ceil Celu Clip Cos Cosh Div Elu Equal Erf Exp Floor Gelu Greater GreaterOrEqual HardSigmoid
    HardSwish Identity IsInf IsNaN LeakyRelu Less LessOrEqual Log Max Mean Min Mish Mod Mul Neg Not
    Or PRelu Pow Reciprocal Relu Round Selu Shrink Sigmoid Sign Sin Sinh Softplus Softsign Sqrt Sub
    Sum Swish Tan Tanh ThresholdedRelu Where Xor
    """
)
BATCHED = ELEMENTWISE | words(
    """
    AveragePool BatchNormalization Conv ConvTranspose DepthToSpace GlobalAveragePool GlobalMaxPool
    InstanceNormalization LRN LpPool MaxPool SpaceToDepth
    """
)
"""Operators whose axis 0 is a batch of independent items (or that look at each element by itself)."""

UNLIKE_ITSELF = ("expanded", "training", "bfloat16", "argmax")
"""Words in names of cases left out of *rows*: function bodies fix shapes, training has batch statistics, and
``onnx.reference`` counts the indices of MaxPool within one item."""


def cases() -> Iterator[Case]:
    """The symbolic form of every case that can have one; other sizes where axis 0 is a batch."""
    for item in published():
        if not _has_shapes(item.model):
            continue
        name, place = item.name.removeprefix("test_"), matrix_place(item.model)
        yield Case(f"dynamic/{name}/symbolic", 2, "dynamic", _symbolic(item), *place, oracle=PUBLISHED)
        if _is_batched(item):
            for rows in ROWS:
                oracle = REFERENCE if place[0] in ELEMENTWISE else PUBLISHED
                run = _resized(item, rows)
                yield Case(f"dynamic/{name}/{rows}_rows", 2, "dynamic", run, *place, oracle=oracle)


def _has_shapes(model: onnx.ModelProto) -> bool:
    inputs = model.graph.input
    return any(item.type.tensor_type.shape.dim for item in inputs) and all(
        item.type.HasField("tensor_type") and item.type.tensor_type.HasField("shape") for item in inputs
    )


def _is_batched(item: Any) -> bool:
    nodes = item.model.graph.node
    if len(nodes) != 1 or nodes[0].domain or nodes[0].op_type not in BATCHED:
        return False
    return bool(item.model.graph.input[0].type.tensor_type.shape.dim) and not any(
        word in item.name for word in UNLIKE_ITSELF
    )


def made_symbolic(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with a name for each input dimension; what follows from them is for inference to say."""
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    weights = {tensor.name for tensor in changed.graph.initializer}
    for item in changed.graph.input:
        if item.name in weights:
            continue
        for axis, dim in enumerate(item.type.tensor_type.shape.dim):
            dim.dim_param = f"{item.name}_{axis}"
    for item in changed.graph.output:
        if item.type.HasField("tensor_type"):
            for axis, dim in enumerate(item.type.tensor_type.shape.dim):
                dim.dim_param = f"{item.name}_{axis}"
    del changed.graph.value_info[:]
    return changed


def _symbolic(item: Any) -> Callable[[str], Result]:
    return lambda provider: run_model(made_symbolic(item.model), item.data_sets, provider, tolerance(item))


def _resized(item: Any, rows: int) -> Callable[[str], Result]:
    def run(provider: str) -> Result:
        model = made_symbolic(item.model)
        given, published = ([as_value(value) for value in values] for values in item.data_sets[0])
        if item.model.graph.node[0].op_type not in ELEMENTWISE:  # a batch, and weights that stay
            data = [*resized(given[:1], rows), *given[1:]], [resized([value], rows)[0] for value in published]
            return run_model(model, [data], provider, tolerance(item))
        inputs = resized(given, rows)
        feeds = {info.name: value for info, value in zip(model.graph.input, inputs, strict=False)}
        try:
            expected = reference(model, feeds)
        except Exception as error:  # whatever the oracle cannot do, it says in its own way
            return Result(State.UNSUPPORTED, f"onnx.reference knows no answer for {rows} rows: {error}")
        return run_model(model, [(inputs, expected)], provider, tolerance(item))

    return run


def resized(inputs: list[Any], rows: int) -> list[Any]:
    """The inputs with another leading size, wherever they share the first one's leading size and rank."""
    first = inputs[0]
    chosen = np.arange(rows) % max(1, len(first))
    return [value[chosen] if _alike(value, first) else value for value in inputs]


def _alike(value: Any, first: Any) -> bool:
    return bool(isinstance(value, np.ndarray) and value.ndim == first.ndim and len(value) == len(first))
