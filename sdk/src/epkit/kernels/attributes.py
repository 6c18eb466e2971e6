"""ONNX attributes as plain Python values, the form in which kernels receive them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir


TENSOR, TENSORS, STRING = 4, 9, 8
"""AttributeProto.TENSOR and TENSORS, TensorProto.STRING."""


def tensor_array(tensor: ir.TensorProtocol) -> np.ndarray[Any, Any]:
    """A tensor as an array; strings as an object array of ``str``."""
    if tensor.dtype != STRING:
        return tensor.numpy()
    import numpy as np  # late: this module is read before any model is

    items = tensor.string_data() if hasattr(tensor, "string_data") else tensor.numpy().ravel()
    result = np.empty(tensor.size, dtype=object)
    result[:] = [item.decode("utf-8") if isinstance(item, bytes) else str(item) for item in items]
    return result.reshape(tensor.shape.numpy())


def attribute_value(attribute: ir.Attr) -> Any:
    """One attribute: int, float, str, NumPy array (tensor), tuple of those, or the onnx_ir object itself.

    Graphs, types and sparse tensors stay onnx_ir objects.
    """
    value = attribute.value
    kind = attribute.type
    if kind == TENSOR:
        return tensor_array(value)
    if kind == TENSORS:
        return tuple(tensor_array(tensor) for tensor in value)
    if isinstance(value, list):
        return tuple(value)
    return value


def attribute_values(node: ir.Node) -> dict[str, Any]:
    """All attributes of a node by name, as :func:`attribute_value` gives them."""
    return {name: attribute_value(attribute) for name, attribute in node.attributes.data.items()}
