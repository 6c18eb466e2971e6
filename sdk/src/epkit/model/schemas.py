"""The standard's operator schemas (onnx.defs) in a form that is quick to check against."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Any

import onnx.defs
import onnx.onnx_cpp2py_export.defs as onnx_schemas
import onnx_ir as ir

from epkit.model.maptypes import MapType

Option = onnx.defs.OpSchema.FormalParameterOption


@dataclass(frozen=True, slots=True)
class Formal:
    """One formal input or output: type parameter, types allowed, and whether it may be left out or repeat."""

    name: str
    parameter: str  # "" if the type is spelt out or each repetition may differ
    allowed: frozenset[str]
    optional: bool
    variadic: bool


@dataclass(frozen=True, slots=True)
class Signature:
    """What a node of this operator must look like; `since` is the version of this meaning, or of its end."""

    since: int
    deprecated: bool
    inputs: tuple[Formal, ...]
    outputs: tuple[Formal, ...]
    min_inputs: int
    max_inputs: int
    min_outputs: int
    max_outputs: int
    attributes: dict[str, tuple[str, bool]]  # name -> type, required


def newest_versions() -> dict[str, int]:
    """Domain -> newest version that the installed onnx knows; "" is the default domain."""
    return {domain: newest for domain, (_, newest) in onnx_schemas.schema_version_map().items()}


def signature(domain: str, op_type: str, version: int) -> Signature | None:
    """The signature of an operator as of an opset version, or None if it does not exist there."""
    key = domain, op_type, version
    if key not in _signatures:
        try:
            schema = onnx.defs.get_schema(op_type, version, domain)
        except onnx.defs.SchemaError:
            return None  # not kept: a package may still register the schema
        _signatures[key] = _signature(schema)
    return _signatures[key]


_signatures: dict[tuple[str, str, int], Signature] = {}


def _signature(schema: Any) -> Signature:  # onnx ships no types for all of OpSchema
    constraints = {
        c.type_param_str: frozenset(name.replace(" ", "") for name in c.allowed_type_strs)
        for c in schema.type_constraints
    }
    return Signature(
        schema.since_version,
        # GroupNormalization-18 is deprecated for an odd definition, but has one, and models use it
        schema.deprecated and not (schema.has_function or schema.has_context_dependent_function),
        tuple(_formal(formal, constraints) for formal in schema.inputs),
        tuple(_formal(formal, constraints) for formal in schema.outputs),
        schema.min_input,
        schema.max_input,
        schema.min_output,
        schema.max_output,
        {
            name: (str(attribute.type).rpartition(".")[2], attribute.required)
            for name, attribute in schema.attributes.items()
        },
    )


def _formal(formal: onnx.defs.OpSchema.FormalParameter, constraints: dict[str, frozenset[str]]) -> Formal:
    spelt_out = formal.type_str not in constraints
    return Formal(
        formal.name,
        "" if spelt_out or not formal.is_homogeneous else formal.type_str,
        frozenset({formal.type_str.replace(" ", "")}) if spelt_out else constraints[formal.type_str],
        formal.option == Option.Optional,
        formal.option == Option.Variadic,
    )


def type_name(kind: object) -> str:
    """The type as schemas spell it, without spaces: tensor(float), seq(tensor(int64)), map(int64,float)."""
    if isinstance(kind, ir.TensorType):
        return f"tensor({kind.dtype.name.lower()})"
    if isinstance(kind, ir.SequenceType):
        return f"seq({type_name(kind.elem_type)})"
    if isinstance(kind, ir.OptionalType):
        return f"optional({type_name(kind.elem_type)})"
    if isinstance(kind, MapType):
        inner = type_name(kind.elem_type).removeprefix("tensor(").removesuffix(")")
        return f"map({kind.key.name.lower()},{inner})"
    if isinstance(kind, ir.SparseTensorType):
        return f"sparse_tensor({kind.dtype.name.lower()})"
    return str(kind)


def history() -> dict[tuple[str, str], tuple[int, ...]]:
    """(domain, operator) -> the versions at which it was brought or changed."""
    found: dict[tuple[str, str], list[int]] = {}
    for schema in onnx.defs.get_all_schemas_with_history():
        found.setdefault((schema.domain, schema.name), []).append(schema.since_version)
    return {key: tuple(sorted(versions)) for key, versions in found.items()}


def hint(domain: str, op_type: str, version: int) -> str:
    """Why an operator of a standard domain is unknown: too new for the import, elsewhere, or misspelt."""
    known = history()
    versions = known.get((domain, op_type))
    if versions:
        return f"It exists since version {versions[0]}; the model imports version {version}."
    elsewhere = [other for other, name in known if name == op_type]
    if elsewhere:
        return f"It exists in the domain {elsewhere[0] or 'ai.onnx'!r}."
    names = [name for other, name in known if other == domain]
    close = difflib.get_close_matches(op_type, names, n=3)
    return f"Close names: {', '.join(close)}." if close else ""
