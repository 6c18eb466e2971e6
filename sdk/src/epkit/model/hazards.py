"""What makes the C++ shape inference of onnx (1.23.2) crash or hang; found by fuzzing, kept away from it.

No good model is lost: each of these breaks the standard, or only costs some precision of shapes. A model
made on purpose may know more ways: who loads models of strangers should do so in a process of its own.
"""

from __future__ import annotations

import re

import onnx
import onnx_ir as ir

INT, INTS = ir.AttributeType.INT, ir.AttributeType.INTS

_WIDE = frozenset({"value_int", "value_ints", "starts", "ends"})  # attributes that may hold any 64-bit number
_TERM = r"[A-Za-z ]*(?:\.\.\.[A-Za-z ]*)?"
_EQUATION = re.compile(rf"{_TERM}(,{_TERM})*(->{_TERM})?")
_MOST_DIMS = 1 << 16
_INTEGERS = (onnx.TensorProto.INT64, onnx.TensorProto.INT32)
_HIDDEN = "epkit:length:"
# data propagation makes one object for each element of a 1-D input of these
_PROPAGATED = frozenset(
    {
        "Add",
        "Cast",
        "Gather",
        "MeanVarianceNormalization",
        "Mul",
        "Size",
        "Slice",
        "Squeeze",
        "Sub",
        "Unsqueeze",
    }
)


def bad_attribute(node: ir.Node) -> str:
    """What is wrong with an attribute of a node of the default domain or of a function call, or ""."""
    for name, attribute in node.attributes.items():
        if attribute.is_ref():
            continue
        if attribute.type in (INT, INTS) and name not in _WIDE:
            for number in (attribute.value,) if attribute.type == INT else attribute.value:
                if not -(2**31) <= number < 2**31:
                    return f"has the attribute {name!r} with {number}, which is out of range"
        if name == "batch_dims" and attribute.type == INT and attribute.value < 0:
            return f"has the attribute {name!r} with {attribute.value}; it must not be negative"
        if node.op_type == "Einsum" and name == "equation" and not _EQUATION.fullmatch(str(attribute.value)):
            return f"has the malformed equation {attribute.value!r}"
    return ""


def hide_references(proto: onnx.ModelProto) -> None:
    """Make opaque the nodes of functions that take a dangerous attribute from their caller, unseen."""
    for function in proto.functions:
        for node in function.node:
            if any(a.ref_attr_name and a.name in ("equation", "batch_dims") for a in node.attribute):
                node.domain = "epkit.opaque"


def may_propagate(graph: onnx.GraphProto) -> bool:
    """Whether no long 1-D value goes into an operator for which data propagation would count it out."""
    lengths = {tensor.name: tensor.dims[0] for tensor in graph.initializer if len(tensor.dims) == 1}
    for info in (*graph.input, *graph.output, *graph.value_info):
        dims = info.type.tensor_type.shape.dim
        if len(dims) == 1:
            lengths[info.name] = dims[0].dim_value
    long = {name for name, length in lengths.items() if length > _MOST_DIMS}
    counted = (node.input for node in graph.node if node.op_type in _PROPAGATED)
    return not long or not any(long.intersection(names) for names in counted)


def hide_lengths(graph: onnx.GraphProto) -> None:
    """Turn lengths of 1-D integers into names: used as a shape, each element would become a dimension."""
    for info in (*graph.input, *graph.value_info):
        dims = info.type.tensor_type.shape.dim
        if len(dims) == 1 and dims[0].dim_value > _MOST_DIMS and info.type.tensor_type.elem_type in _INTEGERS:
            dims[0].dim_param = f"{_HIDDEN}{dims[0].dim_value}"


def unhidden(dim_param: str) -> int | None:
    """The length behind a name given by `hide_lengths`; None for any other name."""
    number = dim_param.removeprefix(_HIDDEN)
    return int(number) if number != dim_param and number.isdecimal() and len(number) < 20 else None
