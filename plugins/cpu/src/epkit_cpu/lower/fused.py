"""Fused operators of com.microsoft, in the terms of their parts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .conv import lower_conv
from .epilogue import Epilogue
from .matmul import FORM_MATMUL, gemm_attributes, lower_gemm
from .step import Lowering, Step, View

if TYPE_CHECKING:
    import onnx_ir as ir

MS = "com.microsoft"
SIMPLE = {"Relu": "relu", "Sigmoid": "sigmoid", "Tanh": "tanh"}


def named_activation(name: str, parameters: list[float]) -> tuple[str, float, float] | None:
    """An activation by its operator's name and its parameters in order."""
    if not name:
        return "none", 0.0, 0.0
    if name in SIMPLE:
        return SIMPLE[name], 0.0, 0.0
    if name == "LeakyRelu":
        return "leaky_relu", (parameters or [0.01])[0], 0.0
    if name == "HardSigmoid":
        alpha, beta = [*parameters, *(0.2, 0.5)[len(parameters) :]]
        return "hard_sigmoid", alpha, beta
    if name == "Clip" and len(parameters) == 2 and parameters[0] <= parameters[1]:
        return "clip", parameters[0], parameters[1]
    return None


def _epilogue(view: View, activation: tuple[str, float, float], residual: ir.Value | None = None) -> Epilogue:
    name, x, y = activation
    return Epilogue(view.node.outputs[0], name, float(x), float(y), residual=residual)


def fused_conv(view: View) -> Step | None:
    """activation(Conv(X, W, B) + Z)."""
    given = [float(n) for n in view.attributes.get("activation_params", ())]
    activation = named_activation(str(view.attributes.get("activation", "")), given)
    if activation is None:
        return None
    return lower_conv(view, _epilogue(view, activation, view.input(3)))


def fused_gemm(view: View) -> Step | None:
    """activation(alpha A' B' + beta C)."""
    names = ("activation_alpha", "activation_beta")
    given = [float(view.attributes[name]) for name in names if name in view.attributes]
    activation = named_activation(str(view.attributes.get("activation", "")), given)
    return None if activation is None else lower_gemm(view, _epilogue(view, activation))


def fused_matmul(view: View) -> Step | None:
    """alpha A' B' over the last two axes."""
    attributes = view.attributes
    if set(view.types()) != {"float32"} or attributes.get("transBatchA") or attributes.get("transBatchB"):
        return None
    ranks = (view.rank(0), view.rank(1))
    if any(rank is None or rank < 2 for rank in ranks):
        return None
    packed = gemm_attributes(
        FORM_MATMUL,
        Epilogue(view.node.outputs[0]),
        transpose_a=int(attributes.get("transA", 0)),
        transpose_b=int(attributes.get("transB", 0)),
        alpha=float(attributes.get("alpha", 1.0)),
    )
    return view.step("gemm", packed)


FUSED: dict[tuple[str, str], Lowering] = {
    (MS, "FusedConv"): fused_conv,
    (MS, "FusedGemm"): fused_gemm,
    (MS, "FusedMatMul"): fused_matmul,
}
