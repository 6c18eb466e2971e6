"""ONNX attributes as plain Python values, the form in which kernels receive them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import onnx_ir as ir


def attribute_value(attribute: ir.Attr) -> Any:
    """One attribute: int, float, str, NumPy array (tensor), tuple of those, or the onnx_ir object itself.

    Graphs, types and sparse tensors stay onnx_ir objects.
    """
    value = attribute.value
    if attribute.type.name == "TENSOR":
        return value.numpy()
    if attribute.type.name == "TENSORS":
        return tuple(tensor.numpy() for tensor in value)
    if isinstance(value, list | tuple):
        return tuple(value)
    return value


def attribute_values(node: ir.Node) -> dict[str, Any]:
    """All attributes of a node by name, as :func:`attribute_value` gives them."""
    return {name: attribute_value(attribute) for name, attribute in node.attributes.items()}
