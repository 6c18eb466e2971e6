"""The derivative of each operator, against central finite differences."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest

import epkit

Array = np.ndarray[Any, Any]
OPSET = 21


@dataclass(frozen=True)
class Case:
    """``y = text`` of the inputs; ``xs`` are differentiated, ``fixed`` are not."""

    text: str
    shapes: dict[str, tuple[int, ...]]
    fixed: dict[str, Array] = field(default_factory=dict)
    positive: bool = False
    opset: int = OPSET

    def __str__(self) -> str:
        return self.text.replace(" ", "")


def c(
    text: str, fixed: dict[str, Any] | None = None, positive: bool = False, opset: int = OPSET, **shapes: Any
) -> Case:
    arrays = {name: np.asarray(value) for name, value in (fixed or {}).items()}
    return Case(text, shapes, arrays, positive, opset)


def unary(*names: str, positive: bool = False) -> list[Case]:
    return [c(f"{name}(x)", x=(3, 4), positive=positive) for name in names]


def ints(*values: int) -> Array:
    return np.array(values, np.int64)


CASES = [
    *unary(
        "Identity", "Neg", "Abs", "Exp", "Reciprocal", "Sin", "Cos", "Tan", "Atan", "Sinh", "Cosh", "Asinh"
    ),
    *unary("Tanh", "Sigmoid", "Softplus", "Softsign", "Relu", "Erf", "Elu", "Selu", "LeakyRelu"),
    *unary("HardSwish", "Mish", "HardSigmoid", "ThresholdedRelu", "Sign", "Floor", "Gelu"),
    *unary("Log", "Sqrt", positive=True),
    c("t = Mul(x, k); y = Asin(t)", {"k": 0.2}, x=(3, 4)),
    c("t = Mul(x, k); y = Acos(t)", {"k": 0.2}, x=(3, 4)),
    c("t = Mul(x, k); y = Atanh(t)", {"k": 0.2}, x=(3, 4)),
    c("t = Add(x, k); y = Acosh(t)", {"k": 1.0}, x=(3, 4), positive=True),
    c("Elu<alpha=0.7>(x)", x=(5,)),
    c("LeakyRelu<alpha=0.3>(x)", x=(5,)),
    c("PRelu(x, a)", x=(2, 3, 4), a=(3, 1)),
    c("Add(a, b)", a=(2, 3), b=(3,)),
    c("Sub(a, b)", a=(3,), b=(2, 1)),
    c("Mul(a, b)", a=(2, 1, 3), b=(4, 1)),
    c("Div(a, b)", a=(2, 3), b=(1, 3)),
    c("Pow(a, b)", a=(2, 3), b=(2, 1), positive=True),
    c("Pow(a, p)", {"p": [0.0, 1.0, 3.0]}, a=(2, 3)),
    c("Pow(a, p)", {"p": ints(2)}, a=(2, 3)),
    c("Sum(a, b, d)", a=(2, 3), b=(3,), d=(1,)),
    c("Mean(a, b, d)", a=(2, 3), b=(3,), d=(1,)),
    c("Max(a, b, d)", a=(2, 3), b=(3,), d=(1,)),
    c("Min(a, b)", a=(2, 3), b=(2, 1)),
    c("Where(k, a, b)", {"k": [[True], [False]]}, a=(2, 3), b=(3,)),
    c("Clip(x, lo, hi)", x=(7, 5), lo=(), hi=()),
    c("Clip(x, , hi)", x=(7, 5), hi=()),
    c("MatMul(a, b)", a=(2, 3), b=(3, 4)),
    c("MatMul(a, b)", a=(2, 1, 2, 3), b=(4, 3, 5)),
    c("MatMul(a, b)", a=(3,), b=(2, 3, 4)),
    c("MatMul(a, b)", a=(2, 2, 3), b=(3,)),
    c("MatMul(a, b)", a=(3,), b=(3,)),
    c("Gemm(a, b)", a=(2, 3), b=(3, 4)),
    c("Gemm<transA=1, transB=1, alpha=0.5, beta=2.0>(a, b, d)", a=(3, 2), b=(4, 3), d=(4,)),
    c('Einsum<equation="bij,bjk->bik">(a, b)', a=(2, 3, 4), b=(2, 4, 2)),
    c('Einsum<equation="ij,kl->k">(a, b)', a=(2, 3), b=(4, 2)),
    c('Einsum<equation="ij,jk">(a, b)', a=(2, 3), b=(3, 2)),
    c("Reshape(x, to)", {"to": ints(0, -1, 2)}, x=(2, 3, 4)),
    c("Flatten<axis=2>(x)", x=(2, 3, 4)),
    c("Squeeze(x, at)", {"at": ints(1)}, x=(2, 1, 3)),
    c("Unsqueeze(x, at)", {"at": ints(0, -1)}, x=(2, 3)),
    c("Transpose(x)", x=(2, 3, 4)),
    c("Transpose<perm=[1, 2, 0]>(x)", x=(2, 3, 4)),
    c("Expand(x, to)", {"to": ints(4, 2, 3)}, x=(2, 1)),
    c("Concat<axis=-1>(a, b)", a=(2, 3), b=(2, 1)),
    c("a, b = Split<axis=1>(x, at); y = Concat<axis=1>(b, x, a)", {"at": ints(1, 2)}, x=(2, 3)),
    c("a, b = Split<axis=1, num_outputs=2>(x); y = Exp(b)", x=(2, 3)),
    c("a, b = TopK<axis=0>(x, k); y = Exp(a)", {"k": ints(2)}, x=(3, 2)),
    c(
        "Slice(x, from, to, at, by)",
        {"from": ints(-1, 0), "to": ints(-9, 3), "at": ints(1, 0), "by": ints(-2, 1)},
        x=(4, 5),
    ),
    c("Tile(x, by)", {"by": ints(2, 3)}, x=(2, 3)),
    c('DepthToSpace<blocksize=2, mode="CRD">(x)', x=(1, 8, 2, 3)),
    c("SpaceToDepth<blocksize=2>(x)", x=(1, 2, 4, 2)),
    c("Gather(x, at)", {"at": [[0, -1], [0, 1]]}, x=(3, 4)),
    c("Gather<axis=1>(x, at)", {"at": np.array([0, -1, 0], np.int32)}, x=(3, 4)),
    c("GatherElements<axis=1>(x, at)", {"at": [[0, -1], [0, 0]]}, x=(2, 4)),
    c("GatherND(x, at)", {"at": [[0, 1], [0, 1], [-1, 0]]}, x=(3, 4, 2)),
    c("GatherND<batch_dims=1>(x, at)", {"at": [[1], [0]]}, x=(2, 4)),
    c("ScatterElements<axis=1>(x, at, u)", {"at": [[0, 3]]}, x=(2, 4), u=(1, 2)),
    c('ScatterElements<axis=0, reduction="add">(x, at, u)', {"at": [[0, 1], [0, 1]]}, x=(2, 4), u=(2, 2)),
    c("ScatterND(x, at, u)", {"at": [[0], [2]]}, x=(3, 4), u=(2, 4)),
    c("Pad(x, by)", {"by": ints(1, -1, 2, 0)}, x=(3, 4)),
    c("Pad(x, by, v, at)", {"by": ints(1, 2), "at": ints(1)}, x=(3, 4), v=()),
    c('Pad<mode="reflect">(x, by)', {"by": ints(1, 0, 1, 2)}, x=(3, 4)),
    c("Trilu<upper=0>(x, k)", {"k": np.array(-1)}, x=(4, 4)),
    c("CumSum<exclusive=1, reverse=1>(x, at)", {"at": np.array(1)}, x=(2, 4)),
    c("ReduceSum(x)", x=(2, 3)),
    c("ReduceSum<keepdims=0>(x, at)", {"at": ints(-1, 0)}, x=(2, 3, 4)),
    c("ReduceSum<noop_with_empty_axes=1>(x)", x=(2, 3)),
    c("ReduceMean<keepdims=0>(x, at)", {"at": ints(1)}, x=(2, 3, 4)),
    c("ReduceMean<keepdims=0>(x)", x=(2, 3, 4)),
    c("ReduceMax<keepdims=0>(x, at)", {"at": ints(1)}, x=(2, 3, 4)),
    c("ReduceMin(x)", x=(2, 3)),
    c("ReduceL1(x, at)", {"at": ints(0)}, x=(2, 3)),
    c("ReduceL2<keepdims=0>(x, at)", {"at": ints(0)}, x=(2, 3)),
    c("ReduceSumSquare(x, at)", {"at": ints(0)}, x=(2, 3)),
    c("ReduceLogSum(x, at)", {"at": ints(0)}, x=(2, 3), positive=True),
    c("ReduceLogSumExp(x, at)", {"at": ints(0)}, x=(2, 3)),
    c("Softmax(x)", x=(2, 3, 4)),
    c("Softmax<axis=1>(x)", x=(2, 3, 4)),
    c("LogSoftmax<axis=0>(x)", x=(2, 3)),
    c("Conv(x, w)", x=(2, 3, 7), w=(4, 3, 3)),
    c(
        "Conv<pads=[1, 0, 2, 1], strides=[2, 3], dilations=[1, 2]>(x, w, b)",
        x=(2, 2, 7, 9),
        w=(3, 2, 3, 2),
        b=(3,),
    ),
    c("Conv<group=2, pads=[1, 1, 1, 1], strides=[2, 2]>(x, w)", x=(2, 4, 6, 5), w=(6, 2, 3, 3)),
    c(
        "ConvTranspose<strides=[2, 2], pads=[1, 0, 0, 1], output_padding=[1, 0]>(x, w, b)",
        x=(2, 3, 3, 4),
        w=(3, 2, 3, 3),
        b=(2,),
    ),
    c("ConvTranspose<group=2>(x, w)", x=(1, 4, 3), w=(4, 3, 2)),
    c("MaxPool<kernel_shape=[2, 3], strides=[2, 1], pads=[1, 1, 0, 1]>(x)", x=(2, 2, 5, 5)),
    c("AveragePool<kernel_shape=[2, 3], strides=[2, 1], pads=[1, 1, 0, 1]>(x)", x=(2, 2, 5, 5)),
    c("AveragePool<kernel_shape=[3], pads=[1, 1], count_include_pad=1>(x)", x=(1, 2, 5)),
    c("GlobalAveragePool(x)", x=(2, 3, 4)),
    c("GlobalMaxPool(x)", x=(2, 3, 4)),
    c("BatchNormalization(x, s, b, m, v)", x=(2, 3, 4), s=(3,), b=(3,), m=(3,), v=(3,), positive=True),
    c("InstanceNormalization(x, s, b)", x=(2, 3, 4), s=(3,), b=(3,)),
    c("LayerNormalization(x, s, b)", x=(2, 3, 4), s=(4,), b=(4,)),
    c("LpNormalization(x)", x=(2, 3)),
    c("MeanVarianceNormalization(x)", x=(2, 3, 2, 2)),
    c("SoftmaxCrossEntropyLoss(x, t)", {"t": ints(0, 2)}, x=(2, 3)),
    c('NegativeLogLikelihoodLoss<reduction="sum">(x, t, w)', {"t": ints(0, 2)}, x=(2, 3), w=(3,)),
    # Older forms.
    c("Softmax(x)", x=(2, 3, 4), opset=12),
    c("LogSoftmax<axis=2>(x)", x=(2, 3, 4), opset=11),
    c("ReduceSum<axes=[0, 2], keepdims=0>(x)", x=(2, 3, 4), opset=11),
    c("ReduceMean<axes=[1]>(x)", x=(2, 3, 4), opset=12),
    c("Squeeze<axes=[1]>(x)", x=(2, 1, 3), opset=11),
    c("Clip<min=-0.5, max=0.5>(x)", x=(7, 5), opset=7),
    c("Slice<starts=[1], ends=[3], axes=[1]>(x)", x=(2, 4), opset=9),
    c("Pad<pads=[1, 0, 0, 2]>(x)", x=(2, 4), opset=10),
    c("Dropout(x)", x=(2, 4), opset=10),
]


def model_of(case: Case, dynamic: bool) -> onnx.ModelProto:
    """``z = w * y``, and the gradient of z with respect to each x: each element of y counts by its own weight."""
    xs, commas = [f'"{name}"' for name in case.shapes], ", ".join
    outputs = [f"d{name}" for name in case.shapes]
    return finished(
        f"""g ({declared(case, dynamic)}, double[] weight) => (double z, {commas(f"double {o}" for o in outputs)}) {{
            {body(case)}
            z = Mul(y, weight)
            {commas(outputs)} = ai.onnx.preview.training.Gradient<xs=[{commas(xs)}], zs=["weight"], y="z">
                ({commas(case.shapes)}, weight)
        }}""",
        case,
    )


def forward_of(case: Case) -> onnx.ModelProto:
    return finished(f"g ({declared(case, False)}) => (double y) {{ {body(case)} }}", case)


def body(case: Case) -> str:
    return case.text.replace(";", "\n") if "y = " in case.text else f"y = {case.text}"


def declared(case: Case, dynamic: bool) -> str:
    return ", ".join(
        f"double[{', '.join(f'{name}{i}' if dynamic else str(n) for i, n in enumerate(shape))}] {name}"
        for name, shape in case.shapes.items()
    )


def finished(graph: str, case: Case) -> onnx.ModelProto:
    opsets = f'"": {case.opset}, "ai.onnx.preview.training": 1'
    model = onnx.parser.parse_model(f"<ir_version: 8, opset_import: [{opsets}]>{graph}")
    for name, array in case.fixed.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    for value in (*model.graph.output, *model.graph.input):
        if value.name == "weight" or value in model.graph.output:
            value.type.tensor_type.ClearField("shape")
    return model


def values(case: Case, seed: int) -> dict[str, Array]:
    random = np.random.default_rng(seed)
    made = {}
    for name, shape in case.shapes.items():
        # Numbers apart from one another and from 0, where slopes have steps.
        grid = (random.permutation(int(np.prod(shape))) + 0.3) / max(4.0, np.prod(shape) / 3) + 0.05
        signs = 1 if case.positive else random.choice((-1, 1), grid.shape)
        made[name] = np.asarray((grid * signs).reshape(shape))
    if "lo" in made:
        made["lo"] = np.array(-0.7)
    if "hi" in made:
        made["hi"] = np.array(0.8)
    return made


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_gradient_is_the_slope(case: Case, dynamic: bool) -> None:
    at = values(case, 1)
    random = np.random.default_rng(2)
    with epkit.load(forward_of(case)) as forward, epkit.load(model_of(case, dynamic)) as session:
        weight = random.standard_normal(forward(**at)["y"].shape)
        found = session(**at, weight=weight)
        np.testing.assert_allclose(found["z"], weight * forward(**at)["y"], rtol=1e-6, atol=1e-9)
        for name in case.shapes:
            grad = found[f"d{name}"]
            assert grad.shape == at[name].shape and grad.dtype == np.float64
            for _ in range(2):
                step = 1e-6 * random.standard_normal(at[name].shape)
                ahead, behind = (forward(**{**at, name: at[name] + move})["y"] for move in (step, -step))
                slope = (weight * (ahead - behind)).sum() / 2
                np.testing.assert_allclose(
                    1e6 * (grad * step).sum(), 1e6 * slope, rtol=1e-5, atol=1e-6, err_msg=name
                )
