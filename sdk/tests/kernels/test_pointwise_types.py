"""Every version of every element-by-element operator, in every element type that its schema allows."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest

from epkit.kernels import table

# fmt: off
UNARY = [
    "Abs", "Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "BitwiseNot", "Ceil", "Celu", "Cos",
    "Cosh", "Elu", "Erf", "Exp", "Floor", "Gelu", "HardSigmoid", "HardSwish", "IsInf", "IsNaN",
    "LeakyRelu", "Log", "Mish", "Neg", "Not", "Reciprocal", "Relu", "Round", "Selu", "Shrink",
    "Sigmoid", "Sign", "Sin", "Sinh", "Softplus", "Softsign", "Sqrt", "Swish", "Tan", "Tanh",
    "ThresholdedRelu", "Softmax", "LogSoftmax", "Hardmax", "Identity",
]
BINARY = [
    "Add", "And", "BitShift", "BitwiseAnd", "BitwiseOr", "BitwiseXor", "Div", "Equal", "Greater",
    "GreaterOrEqual", "Less", "LessOrEqual", "Max", "Mean", "Min", "Mod", "Mul", "Or", "PRelu",
    "Pow", "Sub", "Sum", "SwiGLU", "Xor",
]
# fmt: on
NUMPY_NAMES = {
    "float": "float32",
    "double": "float64",
    "string": "object",
    "float8e4m3fn": "float8_e4m3fn",
    "float8e4m3fnuz": "float8_e4m3fnuz",
    "float8e5m2": "float8_e5m2",
    "float8e5m2fnuz": "float8_e5m2fnuz",
    "float8e8m0": "float8_e8m0fnu",
    "float4e2m1": "float4_e2m1fn",
    "float6e2m3": "float6_e2m3fn",
    "float6e3m2": "float6_e3m2fn",
}


def dtype_of(type_string: str) -> np.dtype[Any]:
    name = type_string.removeprefix("tensor(").removesuffix(")")
    name = NUMPY_NAMES.get(name, name)
    return np.dtype(getattr(ml_dtypes, name, None) or name)


def cases() -> list[Any]:
    found = []
    for schema in onnx.defs.get_all_schemas_with_history():
        if schema.domain == "" and schema.name in UNARY + BINARY:
            constraints = {c.type_param_str: c.allowed_type_strs for c in schema.type_constraints}
            for allowed in constraints[schema.inputs[0].type_str]:
                if allowed.startswith("tensor("):
                    name = f"{schema.name}-{schema.since_version}-{allowed[7:-1]}"
                    found.append(pytest.param(schema, dtype_of(allowed), id=name))
    return found


@pytest.mark.parametrize("schema, dtype", cases())
@pytest.mark.parametrize("shape", [(), (2, 3), (2, 0)], ids=str)
def test_result_is_an_array_of_the_schema_type(schema: Any, dtype: Any, shape: tuple[int, ...]) -> None:
    if shape == () and schema.name in ("Softmax", "LogSoftmax", "Hardmax"):
        return  # these need an axis
    operator = table().find("", schema.name, schema.since_version)
    assert operator is not None
    x = np.full(shape, 1).astype(dtype)
    before = x.copy()
    attributes = {"BitShift": {"direction": "LEFT"}, "Mod": {"fmod": 1}}.get(schema.name, {})
    second = (
        np.full((), 1).astype(dtype) if schema.name == "PRelu" else x
    )  # PRelu does not broadcast at first
    inputs = [x] if schema.name in UNARY else [x, second]
    (y,) = operator(np, inputs, attributes, n_outputs=1, opset=schema.since_version)
    boolean = schema.outputs[0].type_str != schema.inputs[0].type_str
    assert isinstance(y, np.ndarray)
    assert (y.dtype, y.shape) == (np.dtype(bool) if boolean else dtype, shape)
    np.testing.assert_array_equal(x, before)
