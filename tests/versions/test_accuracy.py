"""How exact the CPU provider's elementwise operators are, by each instruction set and without any."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import mutually_broadcastable_shapes
from onnx import defs, helper

from epkit import kernels
from epkit.dtypes import numpy_dtype
from epkit_cpu.lower.pointwise import POINTWISE

from .exactly import BINARY, UNARY, Array, Case, units
from .one import OPSET, compute_all
from .ways import way as way

FLOAT = "tensor(float)"
LIMITS = {"float32": 4, "float16": 0.51, "bfloat16": 0.51}
"""Units in the last place; half precision is computed in float32 and rounded once."""
MODERATE = settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def computes_floats(name: str) -> bool:
    """Whether the newest version of an operator gives float32 of float32."""
    if not defs.has(name) or defs.get_schema(name).deprecated:
        return False
    schema = defs.get_schema(name)
    kinds = {c.type_param_str: c.allowed_type_strs for c in schema.type_constraints}
    return FLOAT in kinds.get(schema.outputs[0].type_str, []) and FLOAT in kinds.get(
        schema.inputs[0].type_str, []
    )


def test_every_elementwise_operator_is_measured() -> None:
    files = ("elementwise", "arithmetic", "activation")
    portable = {o.name for o in kernels.table() if o.function.__module__.rpartition(".")[2] in files}
    measured = {case.op or name for name, case in (UNARY | BINARY).items()}
    moves = {"Cast", "CastLike", "Where"}  # and compute nothing
    assert {name for name in portable | set(POINTWISE) if computes_floats(name)} - moves == measured


@cache
def arguments(element: str) -> Array:
    """Every finite number of 16 bits; of float32 a sample of all magnitudes, densely where functions change."""
    dtype = numpy_dtype(element)
    if element != "float32":
        numbers = np.arange(1 << 16, dtype=np.uint16).view(dtype)
    else:
        rng = np.random.default_rng(0)
        everything = rng.integers(0, 1 << 32, 20_000, dtype=np.uint32).view(np.float32)
        dense = [rng.uniform(-bound, bound, 6_000) for bound in (1e-3, 1, 6, 20, 110, 1e4, 1e6)]
        numbers = np.concatenate([everything, *(x.astype(np.float32) for x in dense)])
    with np.errstate(invalid="ignore"):  # signalling NaNs
        return numbers[np.isfinite(numbers.astype(np.float64))]


def node(name: str, case: Case, inputs: list[str]) -> object:
    op = case.op or name
    return helper.make_node(op, ["a", "b", ""] if op == "Clip" else inputs, [name], **case.attributes)


@cache
def exactly(name: str, element: str) -> tuple[Array, Array, Array | None]:
    """Where the function is to be compared, its results there, and the size of its terms."""
    case, x = UNARY[name], arguments(element).astype(np.float64)
    with np.errstate(all="ignore"):
        exact = case.exact(x)
        finite = np.isfinite(exact) & np.isfinite(exact.astype(numpy_dtype(element)).astype(np.float64))
        inside = finite & (x >= case.low) & (x <= case.high)
        return inside, exact[inside], None if case.terms is None else case.terms(x[inside])


@pytest.mark.parametrize("element", LIMITS)
def test_functions_are_exact(way: str, element: str) -> None:
    x, limit = arguments(element), LIMITS[element]
    cases = {name: case for name, case in UNARY.items() if allows(case.op or name, element)}
    found = compute_all([node(name, case, ["x"]) for name, case in cases.items()], {"x": x})
    faults = []
    for name in cases:
        inside, exact, terms = exactly(name, element)
        off = units(found[name][inside], exact, terms)
        worst = int(np.argmax(off))
        if not off[worst] <= limit:
            faults.append(
                f"{name}({x[inside][worst]!r}): {found[name][inside][worst]!r} is {off[worst]:.3g} off"
            )
    assert not faults, "\n".join(faults)


def allows(op: str, element: str) -> bool:
    """Whether the operator knows the element type."""
    schema = defs.get_schema(op, OPSET)
    return any(f"tensor({element})" in c.allowed_type_strs for c in schema.type_constraints)


def operands(
    element: str, shape_a: tuple[int, ...], shape_b: tuple[int, ...], seed: int
) -> tuple[Array, Array]:
    """Of many magnitudes, and of a few."""
    rng = np.random.default_rng(seed)
    a = np.exp(rng.uniform(-9, 9, shape_a)) * rng.choice([-1, 1], shape_a)
    b = rng.uniform(0.05, 3, shape_b) * rng.choice([-1, 1], shape_b)
    return np.asarray(a).astype(numpy_dtype(element)), np.asarray(b).astype(numpy_dtype(element))


def faults_of_arithmetic(names: list[str], a: Array, b: Array, element: str) -> list[str]:
    cases = {name: BINARY[name] for name in names}
    found = compute_all([node(name, case, ["a", "b"]) for name, case in cases.items()], {"a": a, "b": b})
    faults = []
    for name, case in cases.items():
        with np.errstate(all="ignore"):
            exact = np.asarray(case.exact(a.astype(np.float64), b.astype(np.float64)))
            finite = np.isfinite(exact.astype(a.dtype).astype(np.float64))
        inside = finite & (np.broadcast_to(a, exact.shape).astype(np.float64) >= case.low)
        assert found[name].shape == exact.shape, name
        off = units(found[name][inside], exact[inside])
        if not off.max(initial=0) <= LIMITS[element]:
            faults.append(f"{name}: {off.max():.3g} units")
    return faults


@pytest.mark.parametrize("element", LIMITS)
def test_arithmetic_is_exact(way: str, element: str) -> None:
    a, b = operands(element, (20_000,), (20_000,), 5)
    names = [name for name in BINARY if name != "Clip" and allows(name, element)]
    assert not faults_of_arithmetic(names, a, b, element)
    assert not faults_of_arithmetic(["Clip"], a, b[:1].reshape(()), element)


@given(
    name=st.sampled_from(sorted(set(BINARY) - {"Clip", "PRelu", "SwiGLU"})),
    element=st.sampled_from(sorted(LIMITS)),
    shapes=mutually_broadcastable_shapes(num_shapes=2, min_side=0, max_side=20, max_dims=5),
    seed=st.integers(0, 1 << 30),
)
@MODERATE
def test_arithmetic_is_exact_in_every_shape(
    way: str, name: str, element: str, shapes: object, seed: int
) -> None:
    a, b = operands(element, *shapes.input_shapes, seed)
    assert not faults_of_arithmetic([name], a, b, element)
