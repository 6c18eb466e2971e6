"""Operators that make tensors from nothing, and that change element types."""

from __future__ import annotations

from collections.abc import Iterator

import ml_dtypes
import numpy as np
from onnx import TensorProto, helper, numpy_helper

from epkit.dtypes import CODE, name_of, numpy_dtype

from ..case import Case, cases_for, in_type_for
from ..data import Array, floats, ints, text


@cases_for("Constant")
def constant(op: str, version: int) -> Iterator[Case]:
    def whole(value: Array) -> Case:
        return Case(attributes={"value": numpy_helper.from_array(value, "v")}, expect=lambda: [value])

    yield whole(floats(2, 3))
    if version >= 9:
        yield whole(np.array(3))
        yield whole(text("a", "ö"))
    if version >= 11:
        values = helper.make_tensor("v", TensorProto.FLOAT, (2,), [1.5, 2.5])
        places = helper.make_tensor("i", TensorProto.INT64, (2, 2), [0, 1, 2, 0])
        dense = np.array([[0, 1.5], [0, 0], [2.5, 0]], np.float32)
        sparse = helper.make_sparse_tensor(values, places, (3, 2))
        yield Case(attributes={"sparse_value": sparse}, expect=lambda: [dense])
    if version >= 12:
        given = {
            "value_float": (1.5, np.array(1.5, np.float32)),
            "value_floats": ([1.5, 2.0], np.array([1.5, 2.0], np.float32)),
            "value_int": (7, np.array(7)),
            "value_ints": ([7, -8], ints(7, -8)),
            "value_string": ("ö", np.array("ö", object)),
            "value_strings": (["a", "b"], text("a", "b")),
        }
        for name, (value, result) in given.items():
            yield Case(attributes={name: value}, expect=lambda result=result: [result])
    if version >= 19:
        yield whole(np.array([1, 2], ml_dtypes.float8_e4m3fn))
    if version >= 21:
        yield whole(np.array([1, -2, 7], ml_dtypes.int4))
    if version >= 23:
        yield whole(np.array([1, -2, 6], ml_dtypes.float4_e2m1fn))
    if version >= 25:
        yield whole(np.array([1, 2, 0], ml_dtypes.uint2))


@cases_for("ConstantOfShape")
def constant_of_shape(op: str, version: int) -> Iterator[Case]:
    yield Case([ints(2, 3)])
    yield Case([ints()], {"value": helper.make_tensor("v", TensorProto.INT32, (1,), [7])})
    yield Case([ints(0, 2)], {"value": helper.make_tensor("v", TensorProto.BOOL, (1,), [True])})


@cases_for("Cast")
def cast(op: str, version: int) -> Iterator[Case]:
    names = ["DOUBLE", "FLOAT16", "INT32", "INT64", "UINT8", "BOOL"]
    for name in names:
        low = 0 if name.startswith("U") else -4
        x = floats(3, 4, low=low, high=4)
        target = name if version < 6 else getattr(TensorProto, name)
        code = getattr(TensorProto, name)
        dtype = helper.tensor_dtype_to_np_dtype(code)
        if version < 9:
            yield Case([x], {"to": target}, expect=lambda x, dtype=dtype: [x.astype(dtype)])
        else:
            yield Case([x], {"to": target})
    if version >= 9:
        yield Case([text("1.5", "-2", "INF")], {"to": TensorProto.FLOAT}, retype=False)
        yield Case([ints(1, -20)], {"to": TensorProto.STRING}, retype=False)
    if version >= 13:
        yield Case(
            [floats(3, 4)], {"to": TensorProto.BFLOAT16}, expect=lambda x: [x.astype(ml_dtypes.bfloat16)]
        )
    if version >= 19:
        wide = floats(3, 4, low=-600, high=600)
        yield Case([wide], {"to": TensorProto.FLOAT8E4M3FN}, retype=False)
        overflowing = {"to": TensorProto.FLOAT8E4M3FN, "saturate": 0}
        yield Case([wide], overflowing, expect=lambda x: [x.astype(ml_dtypes.float8_e4m3fn)], retype=False)
    if version >= 21:
        yield Case([floats(3, 4, low=-7, high=7)], {"to": TensorProto.INT4}, retype=False)
    if version >= 24:
        scales = floats(3, 4, low=0.1, high=9)
        for mode in ("up", "down", "nearest"):
            yield Case([scales], {"to": TensorProto.FLOAT8E8M0, "round_mode": mode}, retype=False)


@in_type_for("Cast")
def cast_in_type(op: str, version: int, variable: str, element: str) -> Case | None:
    """The first version names the result's type by text."""
    if version > 1 or variable != "T2":
        return None
    name, dtype = TensorProto.DataType.Name(CODE[element]), numpy_dtype(element)
    return Case([floats(3, 4, low=0, high=4)], {"to": name}, expect=lambda x: [x.astype(dtype)])


@cases_for("CastLike")
def cast_like(op: str, version: int) -> Iterator[Case]:
    for name in ("float64", "float16", "int32", "bool"):
        yield Case([floats(3, 4), np.zeros(1, name)])
    if version >= 19:
        wide, narrow = floats(3, 4, low=-600, high=600), np.zeros(1, ml_dtypes.float8_e5m2)
        yield Case(
            [wide, narrow], {"saturate": 0}, expect=lambda x, like: [x.astype(like.dtype)], retype=False
        )


@cases_for("BitCast")
def bit_cast(op: str, version: int) -> Iterator[Case]:
    yield Case([floats(3, 4)], {"to": TensorProto.UINT32}, expect=lambda x: [x.view(np.uint32)], retype=False)
    yield Case([ints(-1, 5)], {"to": TensorProto.DOUBLE}, expect=lambda x: [x.view(np.float64)], retype=False)


@in_type_for("BitCast")
def bit_cast_in_type(op: str, version: int, variable: str, element: str) -> Case:
    """From the type to whole numbers without sign of the same width, or from those to the type."""
    bits = BITS.get(element, numpy_dtype(element).itemsize * 8)
    plain = f"uint{bits}" if bits <= 64 else element
    values = [1, 0, 1] if element == "bool" else [1, 2, 3]
    numbers = np.array(values, numpy_dtype(plain))
    same = numbers if plain == element else _viewed(numbers, element)
    source, target = (same, numbers) if variable == "T1" else (numbers, same)
    return Case([source], {"to": CODE[name_of(target.dtype)]}, expect=lambda _: [target])


BITS = {"uint2": 2, "int2": 2, "uint4": 4, "int4": 4, "float4_e2m1fn": 4}


def _viewed(numbers: Array, element: str) -> Array:
    """The bits in another type; the sign of a narrow integer is its first bit."""
    if element in ("int2", "int4"):
        modulus = 1 << BITS[element]
        signed = [int(n) - modulus if int(n) >= modulus // 2 else int(n) for n in numbers]
        return np.array(signed, numpy_dtype(element))
    return numbers.view(numpy_dtype(element))
