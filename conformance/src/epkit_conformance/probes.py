"""Small models of which most providers can run some: what the cases on the contract are tried with.

A stranger's plugin may know one operator or two hundred, one element type, fixed sizes alone. So each such case
runs on every probe that the provider claims whole, and is refused if there is none. Probes are in float32; a
provider that takes none of them so is asked again in other types, and one that wants fixed sizes gets them.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from typing import Any

import numpy as np
import onnx
import onnx.checker
import onnx.numpy_helper
import onnx.parser
import onnx.reference
import onnx.shape_inference
from onnx.helper import tensor_dtype_to_np_dtype

import epkit
from epkit.backend import Provider
from epkit.backend.registry import default
from epkit.dtypes import CODE, numpy_dtype

from .compare import difference
from .evidence import recorded_run
from .result import Result, State

ROWS = 3

WEIGHTS = """<
    float[4, 4] w = {1., 2., -1., 0.5, 0., 1., -2., 1., 0.25, -1., 1., 0., 2., 0.5, 1., -1.},
    float[4] b = {0.5, -1., 2., 0.25},
    int64[2] axes_01 = {0, 1}, int64[1] axis_1 = {1}, int64[2] picked = {2, 0}, int64[2] parts = {1, 3},
    int64[2] rows_of_2 = {-1, 2}, int64[2] two = {1, 3}
>"""

TEXTS = {
    "relu": "y = Relu(x)",
    "neg": "y = Neg(x)",
    "abs": "y = Abs(x)",
    "sigmoid": "y = Sigmoid(x)",
    "tanh": "y = Tanh(x)",
    "identity": "y = Identity(x)",
    "softmax": "y = Softmax(x)",
    "add": "y = Add(x, x)",
    "add_constant": "y = Add(x, b)",
    "mul_constant": "y = Mul(x, b)",
    "matmul_constant": "y = MatMul(x, w)",
    "gemm_constant": "y = Gemm(x, w, b)",
    "concat": "y = Concat <axis = 1> (x, x)",
    "transpose": "y = Transpose(x)",
    "reduce_sum": "y = ReduceSum <keepdims = 0> (x, axis_1)",
    "gather": "y = Gather <axis = 1> (x, picked)",
    "reshape": "y = Reshape(x, rows_of_2)",
    "layer_norm": "y = LayerNormalization(x, b, b)",
    "chain": "p = Relu(x)  q = Neg(p)  y = Relu(q)",
    "diamond": "p = Relu(x)  q = Neg(p)  y = Add(p, q)",
    "network": "p = MatMul(x, w)  q = Add(p, b)  r = Relu(q)  y = MatMul(r, w)",
}

OTHERS = {
    "two_inputs": "agraph (float[N, 4] x, float[N, 4] z) => (float[N, 4] y) { y = Sub(x, z) }",
    "two_outputs": f"""agraph (float[N, 4] x) => (float[N, A] y, float[N, B] z)
        {WEIGHTS} {{ y, z = Split <axis = 1> (x, parts) }}""",
    "relu_float16": "agraph (float16[N, 4] x) => (float16[N, 4] y) { y = Relu(x) }",
    "add_int32": "agraph (int32[N, 4] x) => (int32[N, 4] y) { y = Add(x, x) }",
    "relu_int8": "agraph (int8[N, 4] x) => (int8[N, 4] y) { y = Relu(x) }",
    "conv": """agraph (float[N, 1, 4, 4] x) => (float[N, 1, A, B] y)
        <float[1, 1, 2, 2] k = {1., -1., 0.5, 2.}> { y = Conv(x, k) }""",
    "max_pool": """agraph (float[N, 1, 4, 4] x) => (float[N, 1, A, B] y)
        { y = MaxPool <kernel_shape = [2, 2]> (x) }""",
    "qlinear_matmul": """agraph (uint8[N, 4] x) => (uint8[N, 2] y)
        <float s = {0.05}, float t = {0.5}, uint8 z = {3}, uint8[4, 2] w = {1, 2, 3, 4, 5, 6, 7, 8}>
        { y = QLinearMatMul(x, s, z, w, s, z, t, z) }""",
    "qlinear_conv": """agraph (int8[N, 1, 4, 4] x) => (int8[N, 1, A, B] y)
        <float s = {0.5}, int8 z = {0}, int8[1, 1, 2, 2] k = {1, -2, 3, -1}>
        { y = QLinearConv(x, s, z, k, s, z, s, z) }""",
    "matmul_integer": """agraph (int8[N, 4] x) => (int32[N, 2] y)
        <int8[4, 2] w = {1, -2, 3, 4, -5, 6, 7, 8}> { y = MatMulInteger(x, w) }""",
    "quantised_matmul": """agraph (int8[N, 4] x) => (int8[N, 2] y)
        <float s = {0.5}, int8 z = {0}, int8[4, 2] w = {1, -2, 3, 4, -5, 6, 7, 8}> {
        a = DequantizeLinear(x, s, z)  b = DequantizeLinear(w, s, z)  c = MatMul(a, b)  y = QuantizeLinear(c, s, z)
    }""",
}

TYPES = ("float32", "float16", "bfloat16", "float64", "int32", "int8", "uint8", "int64")
"""The element types in which probes are tried, in this order, until the provider takes some."""


@dataclass(frozen=True)
class Probe:
    """A model whose leading dimension is free.

    Attributes:
        name, text: without and with the model.
        dtype: takes the place of float32.
        altered: the weights have other values.
    """

    name: str
    text: str = field(repr=False)
    dtype: str = "float32"
    altered: bool = False

    @cached_property
    def model(self) -> onnx.ModelProto:
        """The model, under opset 17; where it has quantised floats, 21, the first that the reference knows."""
        opset, version = (21, 10) if "DequantizeLinear" in self.text else (17, 8)
        model = onnx.parser.parse_model(f'<ir_version: {version}, opset_import: ["" : {opset}]> {self.text}')
        used = {name for node in model.graph.node for name in node.input}
        kept = [tensor for tensor in model.graph.initializer if tensor.name in used]
        del model.graph.initializer[:]
        model.graph.initializer.extend(
            _other_values(t) if self.altered and _is_weight(t) else t for t in kept
        )
        return retyped(model, self.dtype)

    @property
    def label(self) -> str:
        """The name, with the element type if it is not the usual one."""
        return self.name if self.dtype == "float32" else f"{self.name} in {self.dtype}"

    @property
    def has_weights(self) -> bool:
        """True if there is something to alter."""
        return any(map(_is_weight, self.model.graph.initializer))

    def feeds(self, rows: int = ROWS, seed: int = 0) -> dict[str, Any]:
        """Inputs; another seed gives other values."""
        return feeds_for(self.model, {"N": rows}, seed)

    def expected(self, feeds: Mapping[str, Any]) -> list[Any]:
        """What the outputs must be, by ``onnx.reference``."""
        return reference(self.model, feeds)


def retyped(model: onnx.ModelProto, dtype: str) -> onnx.ModelProto:
    """The model with another element type in the place of float32, bodies included; as it is for float32."""
    if dtype == "float32":
        return model
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    _retype_graph(changed.graph, CODE[dtype], numpy_dtype(dtype))
    return changed


def _retype_graph(graph: onnx.GraphProto, code: int, dtype: np.dtype[Any]) -> None:
    for info in (*graph.input, *graph.output, *graph.value_info):
        if info.type.tensor_type.elem_type == onnx.TensorProto.FLOAT:
            info.type.tensor_type.elem_type = code
    for tensor in graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT:
            values = onnx.numpy_helper.to_array(tensor)
            values = np.abs(values) if dtype.kind == "u" else values
            tensor.CopyFrom(onnx.numpy_helper.from_array(values.astype(dtype), tensor.name))
    for node in graph.node:
        for attribute in node.attribute:
            if (node.op_type, attribute.name, attribute.i) == ("Cast", "to", onnx.TensorProto.FLOAT):
                attribute.i = code
            if attribute.HasField("g"):
                _retype_graph(attribute.g, code, dtype)


def is_valid(model: onnx.ModelProto) -> bool:
    """True if every operator is defined for the types that it gets."""
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError):
        return False
    return True


def _is_weight(tensor: onnx.TensorProto) -> bool:
    return len(tensor.dims) > 0 and tensor.data_type != onnx.TensorProto.INT64


def _other_values(tensor: onnx.TensorProto) -> onnx.TensorProto:
    values = onnx.numpy_helper.to_array(tensor)
    return onnx.numpy_helper.from_array(
        np.ascontiguousarray(values.ravel()[::-1].reshape(values.shape)), tensor.name
    )


PROBES = (
    *(
        Probe(name, f"agraph (float[N, 4] x) => (float[{dims}] y) {WEIGHTS} {{ {text} }}")
        for name, text in TEXTS.items()
        for dims in ["N" if name == "reduce_sum" else "A, B"]
    ),
    *(Probe(name, text) for name, text in OTHERS.items()),
)


@dataclass(frozen=True)
class Subject:
    """A probe that the provider claims whole.

    Attributes:
        fix: not empty if it does so for fixed sizes only.
        options: of the provider; its defaults for those that are not named.
    """

    probe: Probe
    provider: str
    fix: Mapping[str, int]
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def dynamic(self) -> bool:
        """True if the sizes may change from run to run."""
        return not self.fix

    def load(self, **options: Any) -> epkit.Session:
        """A session; nothing may fall back."""
        chosen: dict[str, Any] = {"optimise": "none", "fix": self.fix, "fallback": "error", **options}
        return epkit.load(self.probe.model, [(self.provider, self.options)], **chosen)

    def check(self, outputs: Mapping[str, Any], feeds: Mapping[str, Any], when: str = "") -> None:
        """Raise AssertionError unless the outputs are right for the inputs."""
        for (name, got), want in zip(outputs.items(), self.probe.expected(feeds), strict=True):
            problem = difference(got, want, *tolerance_for(want))
            assert not problem, f"{self.probe.label}: output {name} {problem}{when and f', {when}'}"

    def run_checked(self, session: epkit.Session, rows: int = ROWS, seed: int = 0, when: str = "") -> None:
        """One run, compared."""
        feeds = self.probe.feeds(rows, seed)
        given = {
            name: array.copy() for name, array in feeds.items()
        }  # who writes its inputs is told elsewhere
        self.check(session.run(None, given), feeds, when)


def tolerance_for(want: Any) -> tuple[float, float]:
    """Relative and absolute: these cases are not about accuracy."""
    name = getattr(getattr(want, "dtype", None), "name", "")
    return (2e-2, 1e-2) if name in ("float16", "bfloat16") else (1e-3, 1e-4)


def reference(model: onnx.ModelProto, feeds: Mapping[str, Any]) -> list[Any]:
    """The model's outputs by ``onnx.reference``."""
    with np.errstate(all="ignore"):
        return list(onnx.reference.ReferenceEvaluator(model).run(None, dict(feeds)))


def feeds_for(model: onnx.ModelProto, sizes: Mapping[str, int], seed: int = 0) -> dict[str, Any]:
    """Inputs for a model of tensors, by its types; the same in every process."""
    rng = np.random.default_rng([seed, zlib.crc32(model.graph.name.encode())])
    feeds = {}
    for item in model.graph.input:
        kind = item.type.tensor_type
        shape = [sizes.get(d.dim_param, d.dim_value) for d in kind.shape.dim]
        dtype = np.dtype(tensor_dtype_to_np_dtype(kind.elem_type))
        wide = rng.integers(0, 20, shape) if dtype.kind in "iu" else rng.standard_normal(shape)
        feeds[item.name] = wide > 0 if dtype.kind == "b" else wide.astype(dtype)
    return feeds


Check = Callable[[Subject], None]


def subjects(provider: str) -> tuple[list[Subject], str]:
    """The probes that the provider claims whole, and why it refuses the first that it does not."""
    found, refusal = _subjects(provider, default.provider_type(provider))
    return list(found), refusal


def native_type(provider: str) -> str:
    """The element type in which the provider's graphs are written: float32 if it takes any probe so."""
    found, _ = subjects(provider)
    spelt_out = {probe.name for probe in PROBES if is_plain(probe)}
    return next((subject.probe.dtype for subject in found if subject.probe.name in spelt_out), "float32")


def is_plain(probe: Probe) -> bool:
    """True for probes whose inputs are float32 as they are written."""
    return probe.text.startswith("agraph (float[")


@cache
def _subjects(provider: str, provider_type: type[Provider]) -> tuple[tuple[Subject, ...], str]:
    """Asked once in a process; the class is a key too, because a name may be registered anew."""
    found: list[Subject] = []
    refusal = ""
    for probe in PROBES:
        subject, reason = _subject(provider, probe)
        if subject is not None:
            found.append(subject)
        refusal = refusal or reason
    for dtype in TYPES[1:]:
        if any(is_plain(subject.probe) for subject in found):
            break
        others = [replace(probe, dtype=dtype) for probe in PROBES if is_plain(probe)]
        made = [_subject(provider, probe)[0] for probe in others if is_valid(probe.model)]
        found += [subject for subject in made if subject is not None and _is_known(subject)]
    return tuple(found), refusal


def _subject(provider: str, probe: Probe) -> tuple[Subject | None, str]:
    reason = ""
    for fix in ({}, {"N": ROWS}):
        subject = Subject(probe, provider, fix)
        try:
            subject.load().close()
            return subject, ""
        except epkit.EpkitError as error:  # a claim that fails is for other cases to report
            reason = reason or " ".join(error.what.split())
    return None, reason


def see_who_works(provider: str) -> None:
    """Raise HiddenWork if another session does the provider's work; for cases that run without a record."""
    _see_who_works(provider, default.provider_type(provider))


@cache
def _see_who_works(provider: str, provider_type: type[Provider]) -> None:
    for subject in subjects(provider)[0][:1]:
        with subject.load() as session:
            recorded_run(session, subject.probe.feeds())


def _is_known(subject: Subject) -> bool:
    """True if the reference has an answer in this type."""
    try:
        subject.probe.expected(subject.probe.feeds())
    except Exception:  # it raises whatever comes
        return False
    return True


def on_each(
    provider: str, check: Check, *, at_most: int = 0, only: Callable[[Subject], bool] = lambda subject: True
) -> Result:
    """Run a check on the probes that the provider claims.

    Args:
        provider: the provider under test.
        check: raises AssertionError for a fault.
        at_most: try only the first few; 0 for all.
        only: which of them the check is about.
    """
    found, refusal = subjects(provider)
    chosen = list(filter(only, found))[: at_most or None]
    if not chosen:
        left = f"; claimed: {', '.join(subject.probe.label for subject in found)}" if found else ""
        return Result(State.REFUSED, f"no probe that this is about was claimed whole: {refusal}{left}")
    for subject in chosen:
        check(subject)
    see_who_works(provider)
    return Result(State.PASSED, f"on {', '.join(subject.probe.label for subject in chosen)}")
