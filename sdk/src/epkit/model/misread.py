"""Where the C++ shape inference of onnx (1.23.2) finds wrong shapes, and what is told to it instead.

For a length that it does not know, Attention's inference writes 0, and no dimension at all where it does not
know the rank; every shape that follows from there would be wrong too.
"""

from __future__ import annotations

import onnx

from epkit.model.normalize import graphs

DOMAIN = "epkit.misread"


def forget_misread(inferred: onnx.ModelProto, model: onnx.ModelProto) -> bool:
    """Hide the nodes of ``model`` of which ``inferred``, the same model after inference, has wrong shapes.

    Their outputs keep what is right of their types.

    Returns:
        Whether there were any, and inference is to be run again.
    """
    found = False
    pairs = zip(graphs(inferred, functions=False), graphs(model, functions=False), strict=True)
    for after, before in pairs:
        types = {info.name: info.type for info in (*after.value_info, *after.output)}
        for node in before.node:
            if node.op_type != "Attention" or node.domain:
                continue
            outputs = [name for name in node.output if name in types]
            wrong = [name for name in outputs if _forget(types[name].tensor_type)]
            if wrong:
                tell(before, {name: types[name] for name in outputs})
                node.domain = DOMAIN
                found = True
    if found:
        model.opset_import.add(domain=DOMAIN, version=1)
    return found


def _forget(tensor: onnx.TypeProto.Tensor) -> bool:
    """Make unknown what is 0 or has no dimensions; whether there was any such."""
    wrong = [dim for dim in tensor.shape.dim if dim.HasField("dim_value") and not dim.dim_value]
    for dim in wrong:
        dim.Clear()
    if tensor.HasField("shape") and not tensor.shape.dim:
        tensor.ClearField("shape")
        return True
    return bool(wrong)


def tell(graph: onnx.GraphProto, types: dict[str, onnx.TypeProto]) -> None:
    """Give values these types, as if the file said so."""
    for info in graph.output:
        if info.name in types:
            info.type.CopyFrom(types.pop(info.name))
    kept = [info for info in graph.value_info if info.name not in types]
    del graph.value_info[:]
    graph.value_info.extend(kept)
    for name, kind in types.items():
        graph.value_info.add(name=name, type=kind)
