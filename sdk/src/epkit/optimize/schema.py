"""Defaults of attributes, from the schemas of onnx and of operator packages."""

from __future__ import annotations

from typing import Any

import onnx
import onnx.defs
import onnx_ir as ir


def default_of(node: ir.Node, name: str) -> Any:
    """The default of an attribute in the version under which the node is read; None if it has none."""
    imports = {} if node.graph is None else node.graph.opset_imports
    version = node.version if node.version is not None else imports.get(node.domain)
    key = (node.domain, node.op_type, version)
    if key not in _defaults:
        try:
            _defaults[key] = _read(*key)
        except onnx.defs.SchemaError:  # not kept: a package may still register the schema
            return None
    return _defaults[key].get(name)


_defaults: dict[tuple[str, str, int | None], dict[str, Any]] = {}


def _read(domain: str, op_type: str, version: int | None) -> dict[str, Any]:
    place = (domain,) if version is None else (version, domain)
    schema: Any = onnx.defs.get_schema(op_type, *place)  # onnx ships no types for its attributes
    found = {}
    for name, attribute in schema.attributes.items():
        if attribute.default_value.name:
            value = onnx.helper.get_attribute_value(attribute.default_value)
            found[name] = value.decode() if isinstance(value, bytes) else value
    return found
