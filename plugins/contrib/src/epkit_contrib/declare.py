"""Declaring an operator: schema, shape rule and meaning in one place."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from onnx.defs import OpSchema

from epkit.backend import CustomOperator

MICROSOFT = "com.microsoft"
DECLARED: list[CustomOperator] = []

FLOATS = ("tensor(float)", "tensor(float16)", "tensor(bfloat16)", "tensor(double)")

Parameter = tuple[str, ...]
"""(name, type variable or type) with, third, "optional" or "variadic"."""

_OPTIONS = {
    "": OpSchema.FormalParameterOption.Single,
    "optional": OpSchema.FormalParameterOption.Optional,
    "variadic": OpSchema.FormalParameterOption.Variadic,
}


def contrib(
    name: str,
    *,
    inputs: Sequence[Parameter],
    outputs: Sequence[Parameter],
    types: Mapping[str, Sequence[str]],
    attributes: Mapping[str, Any] | None = None,
    infer: Callable[[Any], None] | None = None,
    domain: str = MICROSOFT,
    since: int = 1,
    expand: Callable[[Any, Mapping[str, int]], Any] | None = None,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Declare ``f(xp, *inputs, *, attributes)`` as the meaning of an operator.

    Args:
        name: the operator.
        inputs, outputs: formal parameters.
        types: allowed types of each type variable.
        attributes: name -> default value; an ``OpSchema.AttrType`` stands for a required attribute (or, as the pair
            ``(AttrType, None)``, for an optional one without default).
        infer: sets output types and shapes on ONNX's ``InferenceContext``.
        domain, since: where it belongs.
        expand: gives the function that stands for a node, see ``CustomOperator``.
    """

    def declare(function: Callable[..., Any]) -> Callable[..., Any]:
        schema = OpSchema(
            name,
            domain,
            since,
            doc=function.__doc__ or "",
            inputs=[_parameter(item) for item in inputs],
            outputs=[_parameter(item) for item in outputs],
            type_constraints=[(variable, list(allowed), "") for variable, allowed in types.items()],
            attributes=[_attribute(key, value) for key, value in (attributes or {}).items()],
        )
        if infer is not None:
            schema.set_type_and_shape_inference_function(infer)
        DECLARED.append(CustomOperator(domain, name, function, since, schema, expand))
        return function

    return declare


def _parameter(item: Parameter) -> OpSchema.FormalParameter:
    name, kind, option = (*item, "")[:3]
    return OpSchema.FormalParameter(name, kind, param_option=_OPTIONS[option])


def _attribute(name: str, value: Any) -> OpSchema.Attribute:
    if isinstance(value, OpSchema.AttrType):
        return OpSchema.Attribute(name, value, required=True)
    if isinstance(value, tuple) and value and isinstance(value[0], OpSchema.AttrType):
        return OpSchema.Attribute(name, value[0], required=False)
    from onnx.helper import make_attribute

    return OpSchema.Attribute(name, make_attribute(name, value))
