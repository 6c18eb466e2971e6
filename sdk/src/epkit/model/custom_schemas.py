"""Schemas of custom operators, made known to ONNX's own checker and shape inference."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import onnx.defs

from epkit.late import import_within

_seen: set[tuple[str, str, int]] = set()
"""The schemas that were looked for in this process: each load brings those of all packages."""

_registered: list[onnx.defs.OpSchema] = []


def register_schemas(schemas: Iterable[onnx.defs.OpSchema]) -> None:
    """Register schemas with onnx for this process; one that is known already (same version) stays as it is."""
    for schema in schemas:
        key = schema.domain, schema.name, schema.since_version
        if key not in _seen and not _known(schema):
            if not _registered:
                import_within("onnx.reference.op_run", _put_away)
            onnx.defs.register_schema(schema)
            _registered.append(schema)
        _seen.add(key)


@contextmanager
def _put_away() -> Iterator[None]:
    """onnx.reference refuses to be imported while two domains have an operator of one name; it is 4 MB to import."""
    for schema in _registered:
        onnx.defs.deregister_schema(schema.name, schema.since_version, schema.domain)
    try:
        yield
    finally:
        for schema in _registered:
            onnx.defs.register_schema(schema)


def _known(schema: onnx.defs.OpSchema) -> bool:
    known: onnx.defs.OpSchema
    try:
        known = onnx.defs.get_schema(schema.name, schema.since_version, schema.domain)
    except onnx.defs.SchemaError:  # unknown, or of later versions only
        return False
    return known.since_version == schema.since_version
