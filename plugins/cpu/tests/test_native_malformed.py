"""Nodes that are wrong: a result, or an error of epkit's; never the end of the process.

Of every operator that the engine runs, from its schema with little regard to what it means; and ONNX's own tests with
something else in one place.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import ml_dtypes
import numpy as np
import onnx.defs
import pytest
from engine_session import Array, make
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper
from onnx.defs import OpSchema

import epkit
import epkit_contrib
from epkit.errors import CompileError, RunError
from epkit_cpu.lower import LOWERINGS
from epkit_cpu.lower.pointwise import CONTRIB, POINTWISE
from epkit_cpu.native import isas

pytestmark = pytest.mark.skipif(not isas(), reason="the package was built without a compiler")

OPSETS = {"": onnx.defs.onnx_opset_version(), "com.microsoft": 1, "ai.onnx.ml": 5}
OPERATORS = sorted({*LOWERINGS, *(("", op) for op in POINTWISE), *(("com.microsoft", op) for op in CONTRIB)})
OWN = {(item.domain, item.name): item.schema for item in epkit_contrib.epkit_operators()}

# A product of the large ones overflows, and no machine has so much memory; what lies between could be had, slowly.
WHOLE = st.one_of(
    *[st.integers(-3, 5)] * 4, st.sampled_from([-(2**63), -(2**31), 2**31, 2**47, 2**62, 2**63 - 1])
)
REAL = st.sampled_from([0.0, 1.0, -1.0, 0.5, 2.5, -3.0, 1e30, np.inf, -np.inf, np.nan])
WORDS = """NOTSET SAME_UPPER SAME_LOWER VALID constant edge reflect wrap linear cubic nearest bilinear bicubic zeros
border align_corners half_pixel asymmetric floor ceil round_prefer_ceil add mul max min none tanh Relu Sigmoid Tanh Affine
forward reverse bidirectional LEFT BRANCH_LEQ LEAF SUM ij,jk->ik i...->... ij->ji ii a,b c"""
WORD = st.sampled_from(WORDS.split())
SIDES = st.lists(st.integers(0, 4), max_size=4).map(tuple)
KINDS = {
    **{f"tensor({name})": np.dtype(name) for name in ("int8", "int16", "int32", "int64", "bool")},
    **{f"tensor(u{name})": np.dtype(f"u{name}") for name in ("int8", "int16", "int32", "int64")},
    "tensor(float16)": np.dtype("float16"),
    "tensor(float)": np.dtype("float32"),
    "tensor(double)": np.dtype("float64"),
    "tensor(bfloat16)": np.dtype(ml_dtypes.bfloat16),
}
Draw = Callable[[st.SearchStrategy[Any]], Any]


def schema_of(domain: str, op: str) -> OpSchema:
    try:
        return onnx.defs.get_schema(op, OPSETS[domain], domain)
    except onnx.defs.SchemaError:
        found = OWN[domain, op]
        assert found is not None
        return found


def array(draw: Draw, kind: np.dtype[Any], shape: tuple[int, ...]) -> Array:
    """A few different numbers."""
    size = int(np.prod(shape))
    some = draw(st.lists(WHOLE if kind.kind in "iub" else REAL, min_size=1, max_size=4))
    if kind.kind in "iu":
        limits = np.iinfo(kind)
        some = [min(max(number, limits.min), limits.max) for number in some]
    with np.errstate(all="ignore"):
        return np.resize(np.array(some).astype(kind), size).reshape(shape)


def attributes(draw: Draw, schema: OpSchema) -> list[onnx.AttributeProto]:
    """Those that must be there, and some of the others."""
    kinds, proto = OpSchema.AttrType, onnx.AttributeProto
    of: dict[OpSchema.AttrType, tuple[int, st.SearchStrategy[Any]]] = {
        kinds.INT: (proto.INT, WHOLE),
        kinds.INTS: (proto.INTS, st.lists(WHOLE, max_size=4)),
        kinds.FLOAT: (proto.FLOAT, REAL),
        kinds.FLOATS: (proto.FLOATS, st.lists(REAL, max_size=4)),
        kinds.STRING: (proto.STRING, WORD),
        kinds.STRINGS: (proto.STRINGS, st.lists(WORD, max_size=3)),
    }
    found = []
    for name, attribute in schema.attributes.items():
        if attribute.type in of and (attribute.required or draw(st.booleans())):
            number, values = of[attribute.type]
            found.append(helper.make_attribute(name, draw(values), attr_type=number))
    return found


@st.composite
def models(draw: Draw, domain: str, op: str) -> tuple[onnx.ModelProto, dict[str, Array]]:
    """One node. Inputs are alike more often than not, and weights or not."""
    schema = schema_of(domain, op)
    allowed = {c.type_param_str: sorted({*c.allowed_type_strs} & {*KINDS}) for c in schema.type_constraints}
    types = {name: KINDS[draw(st.sampled_from(found))] for name, found in allowed.items() if found}
    base = draw(SIDES)
    feeds: dict[str, Array] = {}
    weights: dict[str, Array] = {}
    names: list[str] = []
    for number, formal in enumerate(schema.inputs):
        if formal.option == OpSchema.FormalParameterOption.Optional and draw(st.booleans()):
            names.append("")
            continue
        shape = draw(st.sampled_from([base, base, base, base[::-1], base[1:], base[-1:], (1,)]) | SIDES)
        kind = types.get(formal.type_str) or KINDS.get(formal.type_str, np.dtype("float32"))
        names.append(f"x{number}")
        (weights if number and draw(st.booleans()) else feeds)[names[-1]] = array(draw, kind, shape)
    outputs = [f"y{number}" for number in range(max(1, min(schema.max_output, len(schema.outputs), 3)))]
    node = helper.make_node(op, names, outputs, domain=domain)
    node.attribute.extend(attributes(draw, schema))
    others = {name: version for name, version in OPSETS.items() if name}
    return make([node], feeds, outputs, weights, OPSETS[""], **others), feeds


def outcome(isa: str, model: onnx.ModelProto, feeds: Mapping[str, Array]) -> dict[str, Array] | None:
    """On that instruction set; None where there is an error, which must be one of epkit's, and no compiler's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EPKIT_CPU_ISA", isa)
        try:
            with epkit.load(model, optimise="none") as session:
                return session.run(None, dict(feeds))
        except epkit.EpkitError as error:
            assert not isinstance(error, CompileError), error.__cause__
            return None


def same_kinds(isa: str, model: onnx.ModelProto, feeds: Mapping[str, Array]) -> None:
    """Where engine and portable kernels both have a result, it is of the same shape and element type."""
    found = outcome(isa, model, feeds)
    wanted = outcome("none", model, feeds) if found else None
    for name, value in (wanted or {}).items():
        assert found is not None
        assert (found[name].shape, found[name].dtype) == (value.shape, value.dtype), name


@pytest.mark.parametrize(("domain", "op"), OPERATORS)
def test_nodes_of_a_schema(domain: str, op: str) -> None:

    @settings(max_examples=3, deadline=None)
    @given(models(domain, op), st.sampled_from(isas()))
    def ask(made: tuple[onnx.ModelProto, dict[str, Array]], isa: str) -> None:
        same_kinds(isa, *made)

    ask()


@pytest.mark.parametrize("op", ["Conv", "ConvTranspose", "ConvInteger"])
@pytest.mark.parametrize("shape", [(), (2,), (2, 2)])
def test_filters_without_spatial_axes(op: str, shape: tuple[int, ...]) -> None:
    kind = np.uint8 if op == "ConvInteger" else np.float32
    feeds = {"x": np.ones((1, 2, 3, 3), kind)}
    model = make([helper.make_node(op, ["x", "w"], ["y"])], feeds, ["y"], {"w": np.ones(shape, kind)})
    with epkit.load(model) as session, pytest.raises(RunError, match="same rank, 3 or more"):
        session.run(None, feeds)


def test_a_shift_in_no_direction() -> None:
    feeds = {"x": np.ones(3, np.uint8)}
    model = make([helper.make_node("BitShift", ["x", "x"], ["y"], direction="UP")], feeds, ["y"], {})
    with epkit.load(model) as session, pytest.raises(RunError, match="direction='UP'"):
        session.run(None, feeds)


@pytest.mark.parametrize("constant", [True, False])
def test_a_flag_is_set_by_any_number(constant: bool) -> None:
    x, w = np.arange(6, dtype=np.float32).reshape(3, 2), np.arange(12, dtype=np.float32).reshape(4, 3)
    feeds, weights = ({"x": x}, {"w": w}) if constant else ({"x": x, "w": w}, {})
    flags: dict[str, Any] = {"transA": 2**40, "transB": -1}
    node = helper.make_node("FusedMatMul", ["x", "w"], ["y"], domain="com.microsoft", **flags)
    with epkit.load(make([node], feeds, ["y"], weights, **{"com.microsoft": 1})) as session:
        assert np.array_equal(session.run(None, feeds)["y"], x.T @ w.T)


def test_any_number_but_0_allows_zeros(isa: str) -> None:
    feeds = {"x": np.ones((0, 3), np.float32), "n": np.array([3, 0])}
    model = make([helper.make_node("Reshape", ["x", "n"], ["y"], allowzero=2)], feeds, ["y"], {})
    with epkit.load(model, optimise="none") as session:
        assert session.run(None, feeds)["y"].shape == (3, 0)


def test_outputs_that_a_node_does_not_have_are_told(isa: str) -> None:
    """Moving averages, of a normalisation that is not in training."""
    feeds = {"x": np.ones((1, 2, 3, 3), np.float32)}
    weights = {name: np.ones(2, np.float32) for name in "sbmv"}
    node = helper.make_node("BatchNormalization", ["x", *"sbmv"], ["y", "mean", "var"])
    with epkit.load(make([node], feeds, ["y", "mean", "var"], weights)) as session:
        with pytest.raises(RunError, match="1 outputs, not 3"):
            session.run(None, feeds)
    with epkit.load(make([node], feeds, ["y"], weights)) as session:
        assert session.run(None, feeds)["y"].shape == (1, 2, 3, 3)


# ---- ONNX's own tests, with something else in one place ----

UNPUBLISHED = {"Scatter", "SimplifiedLayerNormalization"}
Case = tuple[onnx.ModelProto, dict[str, Array]]


@cache
def published() -> dict[str, list[Case]]:
    """Tests of one node, by operator; they take five seconds to make."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they themselves overflow
        from onnx.backend.test.loader import load_model_tests

        cases = load_model_tests(kind="node")
    found: dict[str, list[Case]] = {}
    for case in cases:
        model = case.model
        assert model is not None and case.data_sets is not None
        nodes, names = model.graph.node, [value.name for value in model.graph.input]
        inputs = case.data_sets[0][0]
        if len(nodes) == 1 and all(isinstance(x, np.ndarray | np.generic) for x in inputs):
            feeds = dict(zip(names, map(np.asarray, inputs), strict=True))
            found.setdefault(nodes[0].op_type, []).append((model, feeds))
    return found


def change_attribute(draw: Draw, attribute: onnx.AttributeProto) -> None:
    """Another value; or one of several is another, or is missing, or comes twice."""
    if attribute.type == onnx.AttributeProto.INT:
        attribute.i = draw(WHOLE)
    elif attribute.type == onnx.AttributeProto.FLOAT:
        attribute.f = draw(REAL)
    elif attribute.type == onnx.AttributeProto.STRING:
        attribute.s = draw(WORD).encode()
    elif attribute.ints:
        at = draw(st.integers(0, len(attribute.ints) - 1))
        numbers = list(attribute.ints)
        attribute.ints[:] = numbers[:at] + draw(st.lists(WHOLE, max_size=2)) + numbers[at + 1 :]


def changed_array(draw: Draw, x: Array) -> Array:
    """Another shape; or another number among whole ones."""
    if x.dtype.kind in "iu" and x.size and draw(st.booleans()):
        x, limits = x.copy(), np.iinfo(x.dtype)
        x.reshape(-1)[draw(st.integers(0, x.size - 1))] = min(max(draw(WHOLE), limits.min), limits.max)
        return x
    shape = list(x.shape)
    at = draw(st.integers(0, x.ndim))
    shape[at : at + 1] = draw(st.lists(st.integers(0, 9), max_size=2))
    return np.resize(x, shape) if x.size else np.zeros(shape, x.dtype)


@st.composite
def changed(draw: Draw, op: str) -> tuple[onnx.ModelProto, dict[str, Array]]:
    """One of the tests, with inputs of any size, of which some are weights, and one or two changes."""
    case, inputs = draw(st.sampled_from(published()[op]))
    model, feeds = onnx.ModelProto(), dict(inputs)
    model.CopyFrom(case)
    graph = model.graph
    for _ in range(draw(st.integers(1, 2))):
        place = draw(st.sampled_from([*graph.node[0].attribute, *feeds]))
        if isinstance(place, str):
            feeds[place] = changed_array(draw, feeds[place])
        else:
            change_attribute(draw, place)
    constant = {name for name in [*feeds][1:] if draw(st.booleans())}
    graph.initializer.extend(numpy_helper.from_array(feeds.pop(name), name) for name in constant)
    del graph.input[:], graph.value_info[:]
    graph.input.extend(
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(x.dtype), [None] * x.ndim)
        for name, x in feeds.items()
    )
    for value in graph.output:
        value.ClearField("type")
    return model, feeds


@pytest.mark.slow
@pytest.mark.parametrize(
    "op", sorted(op for domain, op in LOWERINGS if domain == "" and op not in UNPUBLISHED)
)
def test_published_nodes_with_something_else(op: str) -> None:

    @settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
    @given(changed(op), st.sampled_from(isas()))
    def ask(made: tuple[onnx.ModelProto, dict[str, Array]], isa: str) -> None:
        same_kinds(isa, *made)

    ask()
