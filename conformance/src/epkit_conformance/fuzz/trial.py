"""A model with inputs, and what must come out of it.

The oracle is ``onnx.reference`` in a wider type: floats are given to it as float64. Where an operator also has a
closed form of ours (``meanings``), a trial on which the two disagree says nothing, and is passed over.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnx.shape_inference
from onnx import helper, numpy_helper

from epkit.dtypes import CODE, name_of

from ..probes import reference

OPSET = 21
FLOATS = ("float16", "bfloat16", "float32", "float64")
SLACK = 64
"""How many units in the last place of the largest term a float may be off: the budgets' work is the corpus's."""


@dataclass(frozen=True)
class Trial:
    """One model and one set of inputs.

    Attributes:
        model: the model.
        feeds: its inputs by name.
        dtype: the element type that it is about.
        meaning: the closed form of the only output on wide inputs, if there is one.
    """

    model: onnx.ModelProto
    feeds: Mapping[str, Any]
    dtype: str
    meaning: Callable[..., Any] | None = None

    @property
    def operators(self) -> frozenset[str]:
        """The operators in it."""
        return frozenset(node.op_type for node in self.model.graph.node)


@dataclass(frozen=True)
class Expected:
    """What an output must be.

    Attributes:
        values: in the output's type, computed in a wider one.
        also: computed in the output's type itself, which is as right.
        slack: how far each may be off; None: not at all.
    """

    values: Any
    also: Any
    slack: Any = None


def expected(trial: Trial) -> list[Expected] | None:
    """What must come out; None where the oracles have no answer, or two."""
    try:
        exact = reference(widened(trial.model), {k: wide(x) for k, x in trial.feeds.items()})
        narrow = reference(trial.model, trial.feeds)
        sizes = reference(enlarged(trial.model), {k: _size(wide(x)) for k, x in trial.feeds.items()})
    except Exception:  # whatever the oracle cannot do, it says in its own way
        return None
    if not _have_types(narrow, trial.model):
        return None
    if trial.meaning is not None:
        with np.errstate(all="ignore"):
            ours = np.asarray(trial.meaning(*map(wide, trial.feeds.values())))
        if not _agree(ours, exact[0]):
            return None
        exact = [ours]
    return [_allowed(*three) for three in zip(exact, narrow, sizes, strict=True)]


def _allowed(exact: Any, narrow: Any, size: Any) -> Expected:
    if exact.dtype.kind in "biu" or narrow.dtype.name not in FLOATS:
        return Expected(narrow, narrow)
    eps = float(ml_dtypes.finfo(narrow.dtype).eps)  # type: ignore[no-untyped-call]
    terms = np.abs(size) if size.shape == exact.shape else np.zeros_like(exact)
    largest = np.where(np.isfinite(terms), terms, 0) + np.where(np.isfinite(exact), np.abs(exact), 0) + 1
    return Expected(exact.astype(narrow.dtype), narrow, SLACK * eps * largest)


def _have_types(found: Sequence[Any], model: onnx.ModelProto) -> bool:
    """False if the reference gives another type than the schema, as it does for some sums of integers."""
    inferred = onnx.shape_inference.infer_shapes(model).graph.output
    return all(
        isinstance(value, np.ndarray) and CODE[name_of(value.dtype)] == item.type.tensor_type.elem_type
        for value, item in zip(found, inferred, strict=True)
    )


def _agree(ours: Any, theirs: Any) -> bool:
    """False if the closed form says something else than the reference."""
    return ours.shape == theirs.shape and bool(
        np.allclose(ours, theirs, rtol=1e-6, atol=1e-6, equal_nan=True)
    )


def wide(x: Any) -> Any:
    """Floats as float64, the rest as it is."""
    return x.astype(np.float64) if x.dtype.name in FLOATS else x


def _size(x: Any) -> Any:
    return np.abs(x) if x.dtype == np.float64 else x


def widened(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with float64 in the place of every float type."""
    codes = {CODE[name] for name in FLOATS}
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    graph = changed.graph
    for info in (*graph.input, *graph.output):
        if info.type.tensor_type.elem_type in codes:
            info.type.tensor_type.elem_type = onnx.TensorProto.DOUBLE
    for tensor in graph.initializer:
        if tensor.data_type in codes:
            values = numpy_helper.to_array(tensor).astype(np.float64)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.name == "to" and attribute.i in codes:
                attribute.i = onnx.TensorProto.DOUBLE
    return changed


def enlarged(model: onnx.ModelProto) -> onnx.ModelProto:
    """The widened model in which nothing cancels: what comes out shows how large the terms are."""
    changed = widened(model)
    for node in changed.graph.node:
        node.op_type = {"Sub": "Add", "Neg": "Abs"}.get(node.op_type, node.op_type)
    for tensor in changed.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype == np.float64:
            tensor.CopyFrom(numpy_helper.from_array(np.abs(values), tensor.name))
    return changed


def make_model(
    nodes: Sequence[onnx.NodeProto],
    feeds: Mapping[str, Any],
    constants: Mapping[str, Any],
    outputs: Sequence[str],
    *,
    symbolic: bool = False,
) -> onnx.ModelProto:
    """A model of the inputs' types; with ``symbolic``, no size is known before a run."""
    inputs = []
    for name, array in feeds.items():
        shape = [f"{name}_{axis}" for axis in range(array.ndim)] if symbolic else array.shape
        inputs.append(helper.make_tensor_value_info(name, CODE[name_of(array.dtype)], shape))
    graph = helper.make_graph(
        list(nodes),
        "fuzz",
        inputs,
        [helper.make_empty_tensor_value_info(name) for name in outputs],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)
