"""Where the C++ shape inference of onnx (1.23.2) is silent although the standard tells types and shapes."""

from __future__ import annotations

import onnx
from onnx import helper

from epkit.model.misread import tell
from epkit.model.normalize import graphs


def stand_in(model: onnx.ModelProto) -> None:
    """Put another operator of the same type and shape in the place of GroupNormalization, which has no inference."""
    for graph in graphs(model, functions=False):
        for node in graph.node:
            if node.op_type == "GroupNormalization" and not node.domain and len(node.output) == 1:
                node.op_type = "Identity"
                node.ClearField("attribute")
                del node.input[1:]


def tell_vectors(inferred: onnx.ModelProto, model: onnx.ModelProto) -> bool:
    """OneHot and Compress of a scalar are vectors. Whether there were any, and inference is to be run again."""
    found = False
    pairs = zip(graphs(inferred, functions=False), graphs(model, functions=False), strict=True)
    for after, before in pairs:
        types = {info.name: info.type for info in (*after.input, *after.value_info, *after.output)}
        for tensor in after.initializer:
            types.setdefault(tensor.name, helper.make_tensor_type_proto(tensor.data_type, tensor.dims))
        for node in before.node:
            if node.op_type not in ("OneHot", "Compress") or node.domain:
                continue
            source = types.get(node.input[0])
            kind = types.get(node.input[2] if node.op_type == "OneHot" else node.input[0])
            if source is None or kind is None or not source.tensor_type.HasField("shape"):
                continue
            known = types.get(node.output[0])
            if source.tensor_type.shape.dim or (known and known.tensor_type.HasField("shape")):
                continue
            made = helper.make_tensor_type_proto(kind.tensor_type.elem_type, [None])
            tell(before, {node.output[0]: made})
            found = True
    return found


def tell_presents(inferred: onnx.ModelProto, model: onnx.ModelProto) -> bool:
    """Give Attention's present keys and values their shapes, where there is no past: those of K and V, in heads.

    ``inferred`` is the model after inference. Whether there were any, and inference is to be run again.
    """
    found = False
    pairs = zip(graphs(inferred, functions=False), graphs(model, functions=False), strict=True)
    for after, before in pairs:
        infos = (*after.input, *after.value_info, *after.output)
        types = {info.name: info.type for info in infos}
        for node in before.node:
            if node.op_type != "Attention" or node.domain or any(node.input[4:6]):
                continue
            heads = next((a.i for a in node.attribute if a.name == "kv_num_heads"), 0)
            for source, present in zip(node.input[1:3], node.output[1:3], strict=False):
                known = types.get(present)
                if not present or source not in types or (known and known.tensor_type.HasField("shape")):
                    continue
                made = _in_heads(types[source], heads)
                if made is not None:
                    tell(before, {present: made})
                    found = True
    return found


def _in_heads(given: onnx.TypeProto, heads: int) -> onnx.TypeProto | None:
    """[batch, heads, length, size], from that itself or from [batch, length, heads · size]."""
    dims = given.tensor_type.shape.dim
    if len(dims) not in (3, 4) or not given.tensor_type.elem_type or (len(dims) == 3 and not heads):
        return None
    made = onnx.TypeProto()
    made.CopyFrom(given)
    if len(dims) == 4:
        return made
    made.tensor_type.ClearField("shape")
    batch, length, width = dims
    made.tensor_type.shape.dim.add().CopyFrom(batch)
    made.tensor_type.shape.dim.add().dim_value = heads
    made.tensor_type.shape.dim.add().CopyFrom(length)
    size = made.tensor_type.shape.dim.add()
    if width.HasField("dim_value") and width.dim_value % heads == 0:
        size.dim_value = width.dim_value // heads
    return made
