"""The same case in other element types."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from onnx import helper
from onnx.defs import OpSchema

from epkit.dtypes import BY_SPELLING, CODE, name_of, numpy_dtype

from .case import Case, cases_of

CODE_ATTRIBUTES = ("to", "dtype", "output_datatype", "output_dtype")
"""Attributes that name the element type of a result."""

LIMITS = {"uint2": (0, 3), "int2": (-2, 1), "uint4": (0, 15), "int4": (-8, 7)}


@dataclass(frozen=True)
class Typed:
    """A case with one type variable of its schema bound to an element type.

    Attributes:
        wide: the same numbers as float32, where the element type is a narrower float.
    """

    variable: str
    element: str
    case: Case
    wide: Case | None = None


def typed_cases(schema: OpSchema) -> Iterator[Typed]:
    """For each type variable and each of its tensor types, the schema's first case that can be bound to it."""
    cases = [case for case in cases_of(schema) if case.retype]
    for constraint in schema.type_constraints:
        variable = constraint.type_param_str
        for element in tensor_types(constraint.allowed_type_strs):
            made = next(filter(None, (_bind(case, schema, variable, element) for case in cases)), None)
            if made is not None:
                yield made


def tensor_types(spellings: list[str]) -> list[str]:
    """The element types among a constraint's types, such as ``"float32"``; sequences and the like left out."""
    names = [text.removeprefix("tensor(").removesuffix(")") for text in spellings]
    return [BY_SPELLING[name] for name in names if name in BY_SPELLING]


def _bind(case: Case, schema: OpSchema, variable: str, element: str) -> Typed | None:
    places = [i for i, x in enumerate(case.inputs) if _variable(schema, i) == variable and isinstance(x, np.ndarray)]
    if places:
        inputs = [as_element(x, element) if i in places else x for i, x in enumerate(case.inputs)]
        wide = None
        if is_narrow(element):
            floats = [x.astype(np.float32) if i in places else x for i, x in enumerate(inputs)]
            wide = replace(case, inputs=floats)
        return Typed(variable, element, replace(case, inputs=inputs), wide)
    if any(formal.type_str == variable for formal in schema.inputs):
        return None
    name = next((name for name in CODE_ATTRIBUTES if name in schema.attributes), "")
    if name and str(schema.attributes[name].type).endswith("INT"):
        return Typed(variable, element, replace(case, attributes={**case.attributes, name: CODE[element]}))
    if "value" in schema.attributes:
        value = helper.make_tensor("v", CODE[element], (1,), as_element(np.ones(1), element))
        return Typed(variable, element, replace(case, attributes={"value": value}))
    return None


def _variable(schema: OpSchema, index: int) -> str:
    """The type variable of an input; the last formal may repeat."""
    if not schema.inputs:
        return ""
    formal = schema.inputs[min(index, len(schema.inputs) - 1)]
    return str(formal.type_str)


def is_narrow(element: str) -> bool:
    """A float of fewer than 32 bits."""
    return element.startswith(("bfloat", "float16", "float8", "float4"))


def as_element(x: Any, element: str) -> Any:
    """The numbers in another element type: fractions are scaled up for integers, signs dropped where there are none."""
    dtype = numpy_dtype(element)
    if name_of(x.dtype) == element:
        return x
    if element == "string":
        return np.array([f"{item:.4g}" for item in x.flat], object).reshape(x.shape)
    if element == "bool":
        return x > 0 if x.dtype.kind != "O" else x != ""
    if x.dtype.kind == "O":
        x = np.arange(1, x.size + 1, dtype=np.float32).reshape(x.shape)
    if element.startswith(("int", "uint")):
        whole = x if x.dtype.kind in "iu" else np.rint(x * 2)
        low, high = LIMITS.get(element, (np.iinfo(dtype).min, np.iinfo(dtype).max) if dtype.kind in "iu" else (0, 0))
        whole = np.abs(whole) if low == 0 else whole
        return np.clip(whole.astype(np.float64), low, min(high, 1000)).astype(dtype)
    if element.startswith("complex"):
        return (x + 0.5j * x[..., ::-1] if x.ndim else x + 0.25j).astype(dtype)
    if element == "float8_e8m0fnu":
        x = np.abs(x) + 0.25
    return x.astype(dtype)
