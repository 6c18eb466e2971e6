"""How wrong a result may be: error budgets by operator and element type, in units of the last place (ULP).

One ULP is the gap between neighbouring numbers of the element type at the exact result (for sums and products of
many terms: at the sum of the absolute terms, because cancellation is the data's fault and not the device's).
``page()`` gives the whole for the documentation: ``python -m epkit_conformance.budgets``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np

EXACT = "chooses or moves values, so nothing is rounded"
WHOLE = "the case's numbers are such that every step is exact"
ROUNDED = "IEEE 754-2019: correctly rounded"
OPENCL = "OpenCL numerical compliance, relative error as ULPs, full profile"
STEPS = "the sum over the steps of the operator's definition by the rules above, doubled"
TERMS = (
    "n roundings of a sum of n terms (Higham, Accuracy and Stability of Numerical Algorithms, section 3.1)"
)
NARROW = "evaluated in float32 and rounded once: 0.5; four times that, for devices that evaluate in the narrow type"


@dataclass(frozen=True)
class Budget:
    """The allowed error: so many ULP, and ``per_term * n`` more for results of n terms.

    Attributes:
        ulp: for float32, and for float64 unless ``double`` says otherwise.
        source: where the figure comes from.
        per_term: for each term of a sum.
        double: for float64, where the source tells them apart.
        narrow: for float16 and bfloat16, where the budget is more than half an ULP.
    """

    ulp: float
    source: str
    per_term: float = 0.0
    double: float | None = None
    narrow: float = 2.0

    def allowed(self, terms: int = 1) -> float:
        """ULP for a result of so many terms."""
        return self.ulp + self.per_term * terms


def _all(names: str, budget: Budget) -> dict[str, Budget]:
    return dict.fromkeys(names.split(), budget)


BUDGETS: dict[str, Budget] = {
    **_all(
        """Abs And ArgMax ArgMin BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor Ceil Clip Concat Equal Expand
        Flatten Floor Gather GatherElements GlobalMaxPool Greater GreaterOrEqual Hardmax Identity IsInf IsNaN Less
        LessOrEqual Max MaxPool Min Mod Neg Not Or Pad ReduceMax ReduceMin Relu Reshape Round ScatterElements Sign
        Slice Split Squeeze ThresholdedRelu Tile Transpose Trilu Unsqueeze Where Xor DepthToSpace SpaceToDepth
        Compress ConstantOfShape Dropout EyeLike GatherND NonZero OneHot ReverseSequence ScatterND Shape Size TopK
        BitCast CenterCropPad ConcatFromSequence If ImageDecoder MaxRoiPool MaxUnpool NonMaxSuppression Optional
        OptionalGetElement OptionalHasElement RegexFullMatch Scan Scatter SequenceAt SequenceConstruct SequenceEmpty
        SequenceErase SequenceInsert SequenceLength SequenceMap SplitToSequence StringConcat StringNormalizer
        StringSplit TensorScatter Unique Upsample""",
        Budget(0, EXACT),
    ),
    **_all(
        "ConvInteger DynamicQuantizeLinear Loop MatMulInteger QLinearConv QLinearMatMul QuantizeLinear Range",
        Budget(0, WHOLE),
    ),
    **_all("Add Cast CastLike Mul Sub LeakyRelu PRelu", Budget(0.5, ROUNDED)),
    **_all("Div Reciprocal", Budget(2.5, OPENCL, double=0.5)),
    **_all("Sqrt", Budget(3, OPENCL, double=0.5)),
    **_all("Exp Log", Budget(3, OPENCL)),
    **_all("Acos Acosh Asin Asinh Cos Cosh Sin Sinh", Budget(4, OPENCL)),
    **_all("Atan Atanh Tan Tanh", Budget(5, OPENCL)),
    **_all("Erf Pow", Budget(16, OPENCL, narrow=4)),
    **_all("DequantizeLinear MelWeightMatrix TfIdfVectorizer", Budget(1, STEPS)),
    **_all("Shrink", Budget(2, STEPS)),
    **_all("HardSigmoid HardSwish Softsign", Budget(8, STEPS)),
    **_all("BlackmanWindow HammingWindow HannWindow", Budget(8, STEPS)),
    **_all("Celu Elu Selu Sigmoid Softplus Swish SwiGLU", Budget(16, STEPS)),
    **_all("Gelu", Budget(40, STEPS)),
    **_all("Mish", Budget(32, STEPS)),
    **_all(
        """ReduceSum ReduceL1 ReduceMean Sum Mean CumSum MatMul Gemm Conv ConvTranspose Einsum AveragePool
        GlobalAveragePool AffineGrid Col2Im NegativeLogLikelihoodLoss RotaryEmbedding""",
        Budget(1, TERMS, 0.5),
    ),
    **_all("ReduceSumSquare ReduceProd CumProd Det", Budget(1, TERMS, 1)),
    **_all("DeformConv GridSample Resize RoiAlign", Budget(2, f"{TERMS}; each with a weight, exact here", 1)),
    **_all("DFT STFT", Budget(4, f"{TERMS}; sines and cosines: {OPENCL}", 1)),
    **_all("CausalConvWithState", Budget(16, f"{TERMS}; sigmoid: {STEPS}", 1)),
    **_all("Attention", Budget(16, f"{TERMS} of scores and values; exponentials: {OPENCL}", 1)),
    **_all(
        "ReduceL2 ReduceLogSum GlobalLpPool LpNormalization LpPool",
        Budget(6, f"{TERMS}; then a root or a logarithm", 0.5),
    ),
    **_all(
        "ReduceLogSumExp Softmax LogSoftmax SoftmaxCrossEntropyLoss",
        Budget(16, f"{TERMS}; exponentials: {OPENCL}", 0.5),
    ),
    **_all(
        """LayerNormalization InstanceNormalization BatchNormalization RMSNormalization GroupNormalization
        MeanVarianceNormalization LRN""",
        Budget(16, f"{TERMS} for mean and variance; then {STEPS}", 1),
    ),
    **_all("RNN GRU LSTM LinearAttention", Budget(32, f"{TERMS} at each step; sigmoid and tanh: {STEPS}", 1)),
}


def budget_for(operator: str, dtype: str) -> Budget:
    """The budget of an operator for an element type."""
    found = BUDGETS[operator]
    if "float" not in dtype:
        return Budget(0, EXACT)
    if dtype == "float64" and found.double is not None:
        return Budget(found.double, found.source, found.per_term)
    if dtype not in ("float32", "float64") and found.ulp > 0.5:
        return Budget(found.narrow, OPENCL if found.source == OPENCL else NARROW, found.per_term)
    return found


def ulp_error(got: Any, want: Any, scale: Any = None) -> np.ndarray[Any, Any]:
    """The error of each element in ULP of ``got``'s type; infinite where one of the two is no number.

    Args:
        got: the result.
        want: the exact result, in a wider type.
        scale: where the ULP is taken, if not at ``want``.
    """
    info = ml_dtypes.finfo(got.dtype)  # type: ignore[no-untyped-call]
    wide = np.asarray(want)
    found = got.astype(wide.dtype)
    with np.errstate(all="ignore"):
        beyond = np.abs(wide) >= np.longdouble(info.max) * (1 + np.longdouble(info.eps) / 4)
        wide = np.where(beyond, np.copysign(np.inf, wide), wide)
        at = np.maximum(np.abs(wide if scale is None else scale), float(info.smallest_normal))
        gap = np.exp2(np.floor(np.log2(np.where(np.isfinite(at), at, 1)))) * float(info.eps)
        error = np.abs(found - wide) / gap
    same = (found == wide) | (np.isnan(found) & np.isnan(wide))
    return np.where(same, 0, np.where(np.isfinite(error), error, np.inf))


def table() -> list[tuple[str, str, str, str, str]]:
    """(operators, float64, float32, float16 and bfloat16, source), by source and name."""
    rows: dict[tuple[str, str, str, str], list[str]] = {}
    for name, budget in sorted(BUDGETS.items()):
        double, narrow = budget_for(name, "float64"), budget_for(name, "float16")
        source = (
            budget.source if narrow.source == budget.source else f"{budget.source}; narrow types: {NARROW}"
        )
        rows.setdefault((_text(double), _text(budget), _text(narrow), source), []).append(name)
    return [(", ".join(names), *figures) for figures, names in rows.items()]


PAGE = """# Error budgets

How wrong the results of one operator may be before `epkit conformance` calls them wrong. This page is written by
`python -m epkit_conformance.budgets`; a test keeps it true.

Figures are in units in the last place (ULP): the gap between neighbouring numbers of the output's element type at
the exact result, which is computed in float64 (for float64, in long double). For sums and products of many terms
the ULP is taken at the sum of the absolute terms, because cancellation is the data's fault and not the device's;
*n* is the number of terms. Results that overflow may be infinite. Subnormal results may be zero, as many devices
flush them. Integers and booleans must be exact. Published ONNX cases keep the tolerance that they were published
with.

| operators | float64 | float32 | float16, bfloat16 | source |
|---|---|---|---|---|
{rows}
"""


def page() -> str:
    """The documentation's page, in Markdown."""
    return PAGE.format(rows="\n".join(f"| {' | '.join(row)} |" for row in table()))


def _text(budget: Budget) -> str:
    return f"{budget.ulp:g} + {budget.per_term:g} n" if budget.per_term else f"{budget.ulp:g}"


if __name__ == "__main__":
    print(page(), end="")
