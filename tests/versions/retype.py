"""The same case in other element types."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
from onnx import helper
from onnx.defs import OpSchema

from epkit.dtypes import BY_SPELLING, CODE, SPELLING, name_of, numpy_dtype

from .case import IN_TYPE, Case, cases_of

CODE_ATTRIBUTES = ("to", "dtype", "output_datatype", "output_dtype")
"""Attributes that name the element type of a result."""

LIMITS = {"uint2": (0, 3), "int2": (-2, 1), "uint4": (0, 15), "int4": (-8, 7)}


@dataclass(frozen=True)
class Typed:
    """A case with one type variable of its schema bound to an element type.

    Attributes:
        fit: 2 if the case was written in this element type, 1 if in one of its kind, else 0.
        wider: the same numbers in types that more oracles know, by element type.
    """

    variable: str
    element: str
    case: Case
    fit: int = 2
    wider: tuple[Case, ...] = ()


def typed_cases(schema: OpSchema) -> Iterator[Typed]:
    """For each type variable and each of its tensor types, one case of the schema, bound to it."""
    cases = [case for case in cases_of(schema) if case.retype]
    special = IN_TYPE.get((schema.domain, schema.name))
    for constraint in schema.type_constraints:
        for element in tensor_types(constraint.allowed_type_strs):
            if special and (
                case := special(schema.name, schema.since_version, constraint.type_param_str, element)
            ):
                yield Typed(constraint.type_param_str, element, case)
                continue
            made = [found for case in cases if (found := _bind(case, schema, constraint, element))]
            if made:
                yield max(made, key=lambda typed: typed.fit)


def tensor_types(spellings: Sequence[str]) -> list[str]:
    """The element types of tensors, and of sequences of them, such as ``"float32"``."""
    names = [text.removeprefix("seq(").removeprefix("tensor(").rstrip(")") for text in spellings]
    return list(dict.fromkeys(BY_SPELLING[name] for name in names if name in BY_SPELLING))


def _bind(case: Case, schema: OpSchema, constraint: Any, element: str) -> Typed | None:
    variable = constraint.type_param_str
    places = [
        i for i, x in enumerate(case.inputs) if _variable(schema, i) == variable and isinstance(x, np.ndarray)
    ]
    if not places:
        given = any(formal.type_str == variable for formal in schema.inputs)
        return None if given else _name(case, schema, variable, element)
    found = [
        name_of(np.asarray(case.inputs[i][0] if isinstance(case.inputs[i], list) else case.inputs[i]).dtype)
        for i in places
    ]
    fit = min((name == element) + (kind(name) == kind(element)) for name in found)
    made = _as(case, places, element)
    allowed = tensor_types(constraint.allowed_type_strs)
    wider = [_as(made, places, name) for name in wider_types(element) if name in allowed]
    return Typed(variable, element, made, fit, tuple(wider))


def _is_sequence(x: Any) -> bool:
    return isinstance(x, list) and len(x) > 0


def _as(case: Case, places: Sequence[int], element: str) -> Case:
    """The case with some of its inputs in another element type."""
    inputs = [
        _converted(x, element) if i in places or isinstance(x, list) else x for i, x in enumerate(case.inputs)
    ]
    code, types = CODE[element], dict(case.types)
    for i in types:
        if i in places:
            types[i] = helper.make_optional_type_proto(helper.make_tensor_type_proto(code, None))
    return replace(case, inputs=inputs, types=types)


def _converted(x: Any, element: str) -> Any:
    return [_converted(item, element) for item in x] if isinstance(x, list) else as_element(x, element)


def _name(case: Case, schema: OpSchema, variable: str, element: str) -> Typed | None:
    """Bind a type variable of results alone, by the attribute that names it or that has it."""
    name = next((name for name in CODE_ATTRIBUTES if name in schema.attributes), "")
    if name and str(schema.attributes[name].type).endswith("INT"):
        attributes = {**case.attributes, name: CODE[element]}
    elif "value" in schema.attributes:
        ones = as_element(np.ones(1, np.float32), element)
        attributes = {"value": onnx.numpy_helper.from_array(ones, "v")}
    else:
        return None
    fit = int(all(x is None or x.dtype.kind in "fi" for x in case.inputs))
    return Typed(variable, element, replace(case, attributes=attributes, expect=None), fit)


def _variable(schema: OpSchema, index: int) -> str:
    """The type variable of an input; the last formal may repeat."""
    if not schema.inputs:
        return ""
    formal = schema.inputs[min(index, len(schema.inputs) - 1)]
    return str(formal.type_str)


def kind(element: str) -> str:
    """``"float"``, ``"int"``, ``"complex"``, ``"string"`` or ``"bool"``."""
    if element.startswith(("int", "uint")):
        return "int"
    return "float" if "float" in element else element.rstrip("0123456789")


def is_narrow(element: str) -> bool:
    """A float of fewer than 32 bits."""
    return kind(element) == "float" and element not in ("float32", "float64")


def wider_types(element: str) -> tuple[str, ...]:
    """Types that hold the same numbers, and that an oracle is likelier to know."""
    names = {"float": ("float32",), "int": ("int32", "int64", "float32"), "bool": ("int32", "float32")}
    return tuple(name for name in names.get(kind(element), ()) if name != element)


def outputs_in(element: str, schema: OpSchema, outputs: Sequence[Any], found: Sequence[Any]) -> list[Any]:
    """A wider case's results, brought back to the element type where ours have it and the schema allows it."""
    formals = list(schema.outputs) + list(schema.outputs[-1:]) * len(outputs)
    allowed = {c.type_param_str: c.allowed_type_strs for c in schema.type_constraints}
    spelled = f"tensor({SPELLING[element]})"
    return [
        _narrowed(x, element, ours)
        if any(spelled in kind for kind in allowed.get(formal.type_str, ()))
        else x
        for x, formal, ours in zip(outputs, formals, found, strict=False)
    ]


def _narrowed(x: Any, element: str, ours: Any) -> Any:
    if isinstance(x, list) and isinstance(ours, list):
        return [_narrowed(item, element, own) for item, own in zip(x, ours, strict=False)]
    same = isinstance(x, np.ndarray) and isinstance(ours, np.ndarray) and name_of(ours.dtype) == element
    return x.astype(numpy_dtype(element)) if same else x


def in_parts(typed: Typed) -> tuple[Case, ...]:
    """Complex numbers as their real and imaginary parts, text as numbers from 1 on; all as float32."""
    at = next(
        i for i, x in enumerate(typed.case.inputs) if x is not None and name_of(x.dtype) == typed.element
    )
    x = typed.case.inputs[at]
    numbers = np.arange(1, x.size + 1).reshape(x.shape)
    parts = [numbers] if typed.element == "string" else [x.real, x.imag]
    return tuple(
        replace(
            typed.case,
            inputs=[p.astype(np.float32) if i == at else o for i, o in enumerate(typed.case.inputs)],
        )
        for p in parts
    )


def from_parts(typed: Typed, results: Sequence[Sequence[Any]]) -> list[Any]:
    """The result of a case from those of its parts; 0 is the empty text."""
    first = [np.asarray(part[0]) for part in results]
    if typed.element != "string":
        return [(first[0] + 1j * first[1]).astype(numpy_dtype(typed.element))]
    words = np.array(["", *typed.case.inputs[0].flat], object)
    return [words[first[0].astype(np.int64)]]


def as_element(x: Any, element: str) -> Any:
    """The numbers in another element type: fractions are scaled up for integers, signs dropped where there are none."""
    dtype = numpy_dtype(element)
    if name_of(x.dtype) == element:
        return x
    if element == "string":
        return np.array([f"{item:.4g}" for item in x.flat], object).reshape(x.shape)
    if name_of(x.dtype) == "string":
        x = np.arange(1, x.size + 1, dtype=np.float32).reshape(x.shape)
    if element == "bool":
        return np.asarray(x > 0)
    if kind(element) == "int":
        return _whole(x, element, dtype)
    if kind(element) == "complex":
        return (x + 0.5j * x[..., ::-1] if x.ndim else x + 0.25j).astype(dtype)
    return (
        x.astype(np.float32).astype(dtype)
        if element != "float8_e8m0fnu"
        else np.exp2(np.rint(x)).astype(dtype)
    )


def _whole(x: Any, element: str, dtype: Any) -> Any:
    if dtype.kind in "iu":
        low, high = int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)
    else:
        low, high = LIMITS[element]
    whole = x if kind(name_of(x.dtype)) in ("int", "bool") else np.rint(x.astype(np.float64) * 2)
    whole = np.nan_to_num(whole.astype(np.float64)).astype(np.int64)
    whole = np.abs(whole) if low == 0 else whole
    return np.clip(whole, low, min(high, 1 << 40)).astype(dtype)
