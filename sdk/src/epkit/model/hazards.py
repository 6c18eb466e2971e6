"""What makes the C++ shape inference of onnx (1.23.2) crash or hang; found by fuzzing, kept away from it.

No good model is lost: each of these breaks the standard, or only costs some precision of shapes. A model
made on purpose may know more ways: who loads models of strangers should do so in a process of its own.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import onnx
import onnx_ir as ir

from epkit.model.normalize import graphs

INT, INTS = ir.AttributeType.INT, ir.AttributeType.INTS

_WIDE = frozenset({"value_int", "value_ints", "starts", "ends"})  # attributes that may hold any 64-bit number
_TERM = r"[A-Za-z ]*(?:\.\.\.[A-Za-z ]*)?"
_EQUATION = re.compile(rf"{_TERM}(,{_TERM})*(->{_TERM})?")
LONG = 1 << 16
_INTEGERS = (onnx.TensorProto.INT64, onnx.TensorProto.INT32)
_HIDDEN = "epkit:length:"
# the result has as many dimensions as an input after the first has elements; ConstantOfShape: the first
_BY_LENGTH = {"CenterCropPad", "Col2Im", "ConstantOfShape", "Expand", "Pad", "Reshape", "Resize"} | {
    *("Tile", "Upsample")
}
# data propagation makes one object for each element of a 1-D input of these
_PROPAGATED = {"Add", "Cast", "Concat", "Gather", "MeanVarianceNormalization", "Mul"} | {
    *("Size", "Slice", "Squeeze", "Sub", "Unsqueeze")
}


def bad_attribute(node: ir.Node) -> str:
    """What is wrong with an attribute of a node of the default domain or of a function call, or ""."""
    for name, attribute in node.attributes.data.items():
        if attribute.is_ref():
            continue
        kind = attribute.type
        if (kind is INT or kind is INTS) and name not in _WIDE:
            for number in (attribute.value,) if kind is INT else attribute.value:
                if not -(2**31) <= number < 2**31:
                    return f"has the attribute {name!r} with {number}, which is out of range"
        if name == "batch_dims" and attribute.type == INT and attribute.value < 0:
            return f"has the attribute {name!r} with {attribute.value}; it must not be negative"
        if node.op_type == "Split" and name == "num_outputs" and attribute.value != len(node.outputs):
            return f"has the attribute {name!r} with {attribute.value}, but {len(node.outputs)} outputs"
        if node.op_type == "Einsum" and name == "equation" and not _EQUATION.fullmatch(str(attribute.value)):
            return f"has the malformed equation {attribute.value!r}"
    return ""


def hide_references(proto: onnx.ModelProto) -> None:
    """Make opaque the nodes of functions that take a dangerous attribute from their caller, unseen."""
    for function in proto.functions:
        for node in function.node:
            if any(
                a.ref_attr_name and a.name in ("equation", "batch_dims", "num_outputs")
                for a in node.attribute
            ):
                node.domain = "epkit.opaque"


def may_propagate(model: onnx.ModelProto) -> bool:
    """Whether no long 1-D value goes into an operator for which data propagation would count it out."""
    called = {(function.domain, function.name) for function in model.functions}
    long: set[str] = set()
    for graph in graphs(model, functions=False):
        infos = (*graph.input, *graph.output, *graph.value_info)
        long.update(info.name for info in infos if _length(info) > LONG)
        long.update(each.name for each in graph.initializer if len(each.dims) == 1 and each.dims[0] > LONG)
    return not long or not any(
        long.intersection(node.input)
        for graph in graphs(model, functions=False)
        for node in graph.node
        if node.op_type in _PROPAGATED or (node.domain, node.op_type) in called
    )


def hide_lengths(model: onnx.ModelProto) -> None:
    """Turn lengths of 1-D values into names where they may be used as a shape: each element would be a dimension."""
    infos = [
        info for graph in graphs(model) for info in (*graph.input, *graph.value_info) if _length(info) > LONG
    ]
    shaping = _shaping(model) if infos else set()
    for info in infos:
        if info.name in shaping or info.type.tensor_type.elem_type in _INTEGERS:
            info.type.tensor_type.shape.dim[0].dim_param = f"{_HIDDEN}{_length(info)}"


def _shaping(model: onnx.ModelProto) -> set[str]:
    """The values from which a length may get into a shape: backwards from there, up to where it is read off."""
    found: set[str] = set()
    functions = {(function.domain, function.name) for function in model.functions}
    inner = any(node.op_type in _BY_LENGTH for function in model.functions for node in function.node)

    def sweep(nodes: Sequence[onnx.NodeProto]) -> None:
        for node in reversed(nodes):
            if not found.isdisjoint(node.output) and node.op_type not in ("Shape", "Size"):
                found.update(node.input)
            if node.op_type in _BY_LENGTH:
                found.update(node.input[node.op_type != "ConstantOfShape" :])
            elif inner and (node.domain, node.op_type) in functions:
                found.update(node.input)
            for graph in (a.g for a in node.attribute if a.HasField("g")):
                if not found.isdisjoint(node.output):
                    found.update(output.name for output in graph.output)
                sweep(graph.node)
                if any(given.name in found for given in graph.input):
                    found.update(node.input)

    sweep(model.graph.node)
    return found


def _length(info: onnx.ValueInfoProto) -> int:
    """The length of a 1-D value; 0 if unknown, or of any other."""
    dims = info.type.tensor_type.shape.dim
    return dims[0].dim_value if len(dims) == 1 else 0


def unhidden(dim_param: str) -> int | None:
    """The length behind a name given by `hide_lengths`; None for any other name."""
    number = dim_param.removeprefix(_HIDDEN)
    return int(number) if number != dim_param and number.isdecimal() and len(number) < 20 else None
