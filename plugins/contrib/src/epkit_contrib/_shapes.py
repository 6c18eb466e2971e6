"""Shape rules that are borrowed from a like operator of the standard."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import onnx.numpy_helper
import onnx.shape_inference
from onnx import TensorProto, TypeProto
from onnx.defs import get_schema
from onnx.helper import make_opsetid, make_tensor_type_proto

from ._infer import Dim, attr, dims, elem, put

Rule = Callable[[Any], None]


def copied(i: int = 0, *, element_of: int | None = 0, code: int = 0) -> Rule:
    """The rule of operators whose output has the shape of input ``i``; for the type see ``element``."""

    def infer(ctx: Any) -> None:
        put(ctx, 0, element(ctx, element_of, code), dims(ctx, i))

    return infer


def element(ctx: Any, i: int | None, code: int) -> int:
    """The element type of input ``i``; where there is none, ``code``."""
    return (elem(ctx, i) if i is not None else 0) or code


def values(ctx: Any, i: int) -> list[int] | None:
    """The elements of a small integer input, if they are constant."""
    data = ctx.get_input_data(i) if ctx.has_input(i) else None
    return None if data is None else [int(v) for v in onnx.numpy_helper.to_array(data).reshape(-1)]


def standard(
    name: str,
    *,
    inputs: Callable[[int], Iterable[int]] | Sequence[int] = (0,),
    element_of: int | None = 0,
    code: int = 0,
    opset: int = 13,
    channels_last: bool | None = False,
    rename: Mapping[str, str] | None = None,
) -> Rule:
    """The rule of the standard's operator ``name``, given some of the inputs and the attributes it knows.

    Args:
        name: an operator of the default domain as of ``opset``.
        inputs: which inputs it is given, or a function of their number.
        element_of, code: the input with the element type of the result; that type where there is none.
        opset: its version.
        channels_last: whether channels are the last axis; None if an attribute of that name says so.
        rename: attributes that go by another name here.
    """
    schema = get_schema(name, opset, "")

    def infer(ctx: Any) -> None:
        count = ctx.get_num_inputs()
        chosen = [i for i in (inputs(count) if callable(inputs) else inputs) if i < count]
        last = bool(attr(ctx, "channels_last", 0)) if channels_last is None else channels_last
        put(ctx, 0, element(ctx, element_of, code), shape_of(ctx, schema, chosen, last, rename or {}))

    return infer


def shape_of(
    ctx: Any, schema: Any, chosen: Sequence[int], last: bool, rename: Mapping[str, str]
) -> list[Dim] | None:
    """The shape of the first output of a node of the standard with our inputs and attributes."""
    kinds = {f"i{i}": as_standard(ctx.get_input_type(i)) for i in chosen if ctx.has_input(i)}
    data = {
        f"i{i}": found for i in chosen if ctx.has_input(i) and (found := ctx.get_input_data(i)) is not None
    }
    if last:
        kinds[f"i{chosen[0]}"] = moved(kinds[f"i{chosen[0]}"], -1, 1)
    node = onnx.NodeProto(
        op_type=schema.name, input=[f"i{i}" * ctx.has_input(i) for i in chosen], output=["y"]
    )
    for name in schema.attributes:
        given = ctx.get_attribute(rename.get(name, name))
        if given is not None:
            node.attribute.add().CopyFrom(given)
            node.attribute[-1].name = name
    imports = [make_opsetid("", schema.since_version)]
    try:
        kind = onnx.shape_inference.infer_node_outputs(schema, node, kinds, data, opset_imports=imports).get(
            "y"
        )
    except onnx.shape_inference.InferenceError:  # the kernel will say what is wrong
        return None
    return None if kind is None else dimensions(moved(kind, 1, -1) if last else kind)


def as_standard(kind: TypeProto) -> TypeProto:
    """The type as the standard may demand it: int64 for int32 too, bool, float for all else."""
    copy = TypeProto()
    copy.CopyFrom(kind)
    code = copy.tensor_type.elem_type
    if code in (TensorProto.INT32, TensorProto.INT64):
        copy.tensor_type.elem_type = TensorProto.INT64
    elif code != TensorProto.BOOL:
        copy.tensor_type.elem_type = TensorProto.FLOAT
    return copy


def dimensions(kind: TypeProto) -> list[Dim] | None:
    """The shape in a type."""
    if not kind.tensor_type.HasField("shape"):
        return None
    return [
        d.dim_value if d.HasField("dim_value") else d.dim_param or None for d in kind.tensor_type.shape.dim
    ]


def moved(kind: TypeProto, source: int, target: int) -> TypeProto:
    """The type with one axis in another place."""
    shape = dimensions(kind)
    if shape is None or len(shape) < 2:
        return kind
    axis = shape.pop(source)
    shape.insert(target % (len(shape) + 1), axis)
    return make_tensor_type_proto(kind.tensor_type.elem_type, shape)
