"""The model of a case: one node under exactly one opset."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper
from onnx.defs import OpSchema

from epkit.dtypes import CODE, name_of

from .case import Case

BESIDE = {"ai.onnx.ml": {1: 10, 2: 11, 3: 16, 4: 19, 5: 21}}
"""The opset of the default domain that files with this version of another domain import."""


def build(case: Case, schema: OpSchema) -> onnx.ModelProto:
    """A model of the case that imports the opset with which the schema came."""
    node = helper.make_node(
        schema.name,
        [f"x{i}" if x is not None or i in case.types else "" for i, x in enumerate(case.inputs)],
        case.output_names,
        name="node",
        domain=schema.domain,
        **case.attributes,
    )
    inputs = [
        helper.make_value_info(f"x{i}", case.types[i] if i in case.types else type_of(x))
        for i, x in enumerate(case.inputs)
        if x is not None or i in case.types
    ]
    inputs += [helper.make_value_info(name, type_of(x)) for name, x in case.captured.items()]
    outputs = [onnx.ValueInfoProto(name=name) for name in case.output_names if name]
    graph = helper.make_graph([*case.before, node], "one", inputs, outputs)
    versions = {schema.domain: schema.since_version}
    if schema.domain:
        versions[""] = BESIDE.get(schema.domain, {}).get(schema.since_version, 26)
    opsets = [helper.make_opsetid(*item) for item in versions.items()]
    model = helper.make_model(graph, opset_imports=opsets)
    model.ir_version = ir_version(versions[""])
    return model


def build_twin(case: Case, schema: OpSchema) -> onnx.ModelProto | None:
    """The same computation as another version of the operator has it, if the case says how."""
    if case.twin is None:
        return None
    version, attributes = case.twin
    other = onnx.defs.get_schema(schema.name, version, schema.domain)
    return build(replace(case, attributes=attributes), other)


def ir_version(opset: int) -> int:
    """The IR version that ONNX had when the opset was new."""
    if opset < 5:  # before onnx's table of versions begins
        return 3
    return int(helper.find_min_ir_version_for([helper.make_opsetid("", opset)]))


def feeds(case: Case) -> Mapping[str, Any]:
    """The inputs by name."""
    named = {f"x{i}": x for i, x in enumerate(case.inputs) if x is not None or i in case.types}
    return {**named, **case.captured}


def type_of(value: Any) -> onnx.TypeProto:
    """The ONNX type of an input's value."""
    if isinstance(value, list):
        assert value, "an empty sequence does not tell its type"
        item = type_of(value[0])
        if len({np.shape(one) for one in value}) > 1:
            item.tensor_type.ClearField("shape")
        return helper.make_sequence_type_proto(item)
    if isinstance(value, dict):
        key, item = next(iter(value.items()))
        return helper.make_map_type_proto(_code(key), tensor_type(_code(item)))
    array = np.asarray(value)
    return tensor_type(CODE[name_of(array.dtype)], array.shape)


def tensor_type(code: int, shape: Any = ()) -> onnx.TypeProto:
    """A tensor's type."""
    return helper.make_tensor_type_proto(code, shape)


def _code(value: Any) -> int:
    if isinstance(value, str):
        return TensorProto.STRING
    return TensorProto.INT64 if isinstance(value, int) else TensorProto.FLOAT
