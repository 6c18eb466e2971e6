"""Settles what the standard leaves open or shipped models get wrong, on the skeleton, before any check.

Where a file is ambiguous the meaning is onnxruntime's (1.32), found by trying: a domain imported twice has
the version of the last entry; the default domain, if not imported, has the newest version known; of two
initializers of one name the last counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import onnx
import onnx.defs
import onnx.numpy_helper

from epkit.errors import InvalidModelError, UnsupportedOpsetError
from epkit.model.constants import lift_constants
from epkit.model.limits import Limits
from epkit.model.names import free_name

OLDEST_IR = 3  # the first with opset_import

_GRAPHS = (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS)


def normalize(model: onnx.ModelProto, limits: Limits) -> tuple[list[str], tuple[str, ...]]:
    """Rewrite a skeleton in place.

    Returns:
        Warnings, and the names of initializers that were also graph inputs (which a caller may override).

    Raises:
        UnsupportedOpsetError: the IR version is newer than the installed onnx.
        InvalidModelError: no opset is imported.
    """
    warnings: list[str] = []
    _check_versions(model)
    _settle_opsets(model, warnings)
    own = list(graphs(model, functions=False))
    for graph in (*own, *(inner for function in model.functions for inner in _inner_graphs(function.node))):
        _drop_negative_dims(graph, warnings)
        _expand_sparse(graph, limits)
        _last_initializer_counts(graph, warnings)
    overridable = _drop_overridable_inputs(model)
    _name_nodes([node for graph in own for node in graph.node])
    for function in model.functions:
        inner = [node for graph in _inner_graphs(function.node) for node in graph.node]
        _name_nodes([*function.node, *inner])
    if lift_constants(own):
        model.ir_version = max(model.ir_version, 4)  # before, an initializer had to be an input too
    return warnings, overridable


def graphs(model: onnx.ModelProto, *, functions: bool = True) -> Iterator[onnx.GraphProto]:
    """The main graph and every graph inside, with `functions` also those inside of functions."""
    yield model.graph
    yield from _inner_graphs(model.graph.node)
    if functions:
        for function in model.functions:
            yield from _inner_graphs(function.node)


def _inner_graphs(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.GraphProto]:
    for node in nodes:
        for attribute in node.attribute if node.attribute else ():
            if attribute.type in _GRAPHS or not attribute.type:
                for graph in (*([attribute.g] if attribute.HasField("g") else ()), *attribute.graphs):
                    yield graph
                    yield from _inner_graphs(graph.node)


def _check_versions(model: onnx.ModelProto) -> None:
    if model.ir_version > onnx.IR_VERSION:
        raise UnsupportedOpsetError(
            f"The model has IR version {model.ir_version}; "
            f"onnx {onnx.__version__} knows versions up to {onnx.IR_VERSION}.",
            remedy="pip install -U onnx onnx-ir, or export for an older version",
        )
    if model.ir_version < OLDEST_IR:
        raise InvalidModelError(
            f"The model has IR version {model.ir_version}; {OLDEST_IR} is the oldest that is read here.",
            remedy="export the model anew",
        )
    if not model.opset_import:
        raise InvalidModelError(
            "The model imports no operator set, so its operators have no meaning.",
            remedy="export it anew, or add model.opset_import with the version that it was written against",
        )


def _settle_opsets(model: onnx.ModelProto, warnings: list[str]) -> None:
    for owner in (model, *model.functions):
        versions: dict[str, int] = {}
        for entry in owner.opset_import:
            domain = "" if entry.domain == "ai.onnx" else entry.domain
            if versions.get(domain, entry.version) != entry.version:
                warnings.append(
                    f"domain {domain or 'ai.onnx'!r} is imported as version {versions[domain]} "
                    f"and {entry.version}: taken as {entry.version}"
                )
            versions[domain] = entry.version
        if owner is model and "" not in versions:
            versions[""] = onnx.defs.onnx_opset_version()
        settled = [onnx.OperatorSetIdProto(domain=domain, version=each) for domain, each in versions.items()]
        del owner.opset_import[:]  # not before: a domain that is no text has stopped here, and is still there
        owner.opset_import.extend(settled)


def _drop_negative_dims(graph: onnx.GraphProto, warnings: list[str]) -> None:
    """Some exporters write -1 for a dimension that they do not know."""
    found = {}
    for info in (*graph.input, *graph.output, *graph.value_info):
        for dim in info.type.tensor_type.shape.dim:
            if dim.dim_value < 0:
                found[info.name] = dim.dim_value
                dim.Clear()
    if found:
        name, size = next(iter(found.items()))
        rest = f" (and {len(found) - 1} more values)" if len(found) > 1 else ""
        warnings.append(f"value {name!r} has the dimension {size}{rest}: taken as unknown")


def _last_initializer_counts(graph: onnx.GraphProto, warnings: list[str]) -> None:
    last = {tensor.name: index for index, tensor in enumerate(graph.initializer)}
    for index in reversed(range(len(graph.initializer))):
        name = graph.initializer[index].name
        if last[name] != index:
            warnings.append(f"initializer {name!r} is given more than once: the last counts")
            del graph.initializer[index]


def _drop_overridable_inputs(model: onnx.ModelProto) -> tuple[str, ...]:
    """Before IR version 4 every initializer had to be listed as an input; here it is a constant."""
    constants = {tensor.name for tensor in model.graph.initializer}
    both = tuple(value.name for value in model.graph.input if value.name in constants)
    if both:
        kept = [value for value in model.graph.input if value.name not in constants]
        del model.graph.input[:]
        model.graph.input.extend(kept)
        model.ir_version = max(model.ir_version, 4)
    return both


def _name_nodes(nodes: list[onnx.NodeProto]) -> None:
    """Give every node a name of its own: placement speaks of nodes by name. The first of a name keeps it."""
    taken = {node.name for node in nodes}
    if len(taken) == len(nodes) and "" not in taken:
        return
    seen: set[str] = set()
    for index, node in enumerate(nodes):
        if not node.name or node.name in seen:
            stem = node.name or f"{node.op_type}_{index}"
            node.name = free_name(stem, taken) if node.name or stem in taken else stem
            taken.add(node.name)
        seen.add(node.name)


def _expand_sparse(graph: onnx.GraphProto, limits: Limits) -> None:
    """Write sparse constants as dense ones: no operator of the standard takes a sparse tensor."""
    for sparse in graph.sparse_initializer:
        graph.initializer.append(_dense(sparse, limits))
    del graph.sparse_initializer[:]
    for node in graph.node:
        for attribute in node.attribute if node.op_type == "Constant" else ():
            if attribute.type == onnx.AttributeProto.SPARSE_TENSOR:
                attribute.t.CopyFrom(_dense(attribute.sparse_tensor, limits))
                attribute.ClearField("sparse_tensor")
                attribute.name, attribute.type = "value", onnx.AttributeProto.TENSOR


def _dense(sparse: onnx.SparseTensorProto, limits: Limits) -> onnx.TensorProto:
    name, shape = sparse.values.name, tuple(sparse.dims)
    try:
        values = onnx.numpy_helper.to_array(sparse.values)
        indices = onnx.numpy_helper.to_array(sparse.indices).astype(np.int64)
        size = int(np.prod([int(dim) for dim in shape], dtype=object)) * values.itemsize
        limits.refuse_above("expanded_bytes", size, f"Bytes of the sparse constant {name!r} written as dense")
        dense = np.zeros(shape, values.dtype)
        at = indices if indices.ndim == 1 else np.ravel_multi_index(tuple(indices.T), shape)
        dense.reshape(-1)[at] = values
    except (ValueError, IndexError, TypeError) as error:
        raise InvalidModelError(
            f"The sparse constant {name!r} is malformed: {error}.", remedy="export the model anew"
        ) from None
    return onnx.numpy_helper.from_array(dense, name)
