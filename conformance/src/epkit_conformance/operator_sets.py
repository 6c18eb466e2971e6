"""Named sets of operators that a provider can be certified for, each by element type.

A set is complete for an element type if every member that the suite tries with that type has passed in at least one
version, and no case of a member with that type has failed. Members that do not exist for the type do not count.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from .record import Entry
from .result import State

FLOATS = ("float32", "float16", "bfloat16", "float64")
INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
ANY = ""
"""As an element type of a set: whatever types the members have."""


@dataclass(frozen=True)
class OperatorSet:
    """A set: what it is for, its members, and the element types that it is asked about."""

    name: str
    title: str
    operators: tuple[str, ...]
    dtypes: tuple[str, ...] = FLOATS


def _set(name: str, title: str, operators: str, dtypes: tuple[str, ...] = FLOATS) -> OperatorSet:
    return OperatorSet(name, title, tuple(sorted(operators.split())), dtypes)


SETS = (
    _set("dense", "multilayer perceptrons", "Add Gemm MatMul Relu Softmax"),
    _set(
        "convolution",
        "convolutional networks",
        """Add AveragePool BatchNormalization Clip Concat Conv Flatten Gemm GlobalAveragePool MaxPool Mul Relu
        Reshape Sigmoid""",
    ),
    _set(
        "transformer",
        "transformer networks",
        """Add Concat Div Erf Gather Gelu LayerNormalization MatMul Mul Pow ReduceMean Reshape Slice Softmax Split
        Sqrt Sub Tanh Transpose Unsqueeze Where""",
    ),
    _set(
        "arithmetic",
        "elementwise arithmetic",
        "Abs Add Div Exp Log Max Min Mul Neg Pow Reciprocal Sqrt Sub",
    ),
    _set("integer-arithmetic", "elementwise arithmetic of integers", "Abs Add Div Max Min Mul Sub", INTEGERS),
    _set(
        "activations",
        "activation functions",
        """Celu Clip Elu Gelu HardSigmoid HardSwish LeakyRelu LogSoftmax Mish PRelu Relu Selu Sigmoid Softmax
        Softplus Softsign Swish Tanh ThresholdedRelu""",
    ),
    _set(
        "reductions",
        "reductions",
        "ArgMax ArgMin CumSum ReduceL1 ReduceL2 ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum",
    ),
    _set(
        "movement",
        "moving data",
        """Concat Expand Flatten Gather Identity Pad Reshape Slice Split Squeeze Tile Transpose Unsqueeze Where""",
        (*FLOATS, *INTEGERS, "bool"),
    ),
    _set("logic", "comparison and logic", "And Equal Greater Less Not Or Where Xor", (ANY,)),
    _set(
        "quantised",
        "quantised networks",
        """ConvInteger DequantizeLinear DynamicQuantizeLinear MatMulInteger QLinearConv QLinearMatMul
        QuantizeLinear""",
        (ANY,),
    ),
    _set("recurrent", "recurrent networks", "GRU LSTM RNN", (ANY,)),
)


@dataclass(frozen=True)
class Standing:
    """How far a provider is with a set and an element type."""

    set: OperatorSet
    dtype: str
    passed: tuple[str, ...]
    missing: tuple[str, ...]
    failing: tuple[str, ...]

    @property
    def complete(self) -> bool:
        """True if it is certified for it."""
        return bool(self.passed) and not self.missing and not self.failing

    @property
    def label(self) -> str:
        """``"dense float32"``; ``"quantised"`` where types do not tell sets apart."""
        return f"{self.set.name} {self.dtype}".strip()


Cells = Mapping[tuple[str, str], set[State]]


def standings(entries: Iterable[Entry]) -> tuple[Standing, ...]:
    """Every set with every element type that some case tries, in the order of ``SETS``."""
    cells = by_cell(entries)
    found = (_standing(one, dtype, cells) for one in SETS for dtype in one.dtypes)
    return tuple(item for item in found if item.passed or item.missing or item.failing)


def by_cell(entries: Iterable[Entry]) -> Cells:
    """The states seen of each (operator, element type), and of each operator with any."""
    cells: dict[tuple[str, str], set[State]] = defaultdict(set)
    for entry in entries:
        if entry.operator:
            cells[entry.operator, entry.dtype].add(entry.state)
            cells[entry.operator, ANY].add(entry.state)
    return cells


def _standing(one: OperatorSet, dtype: str, cells: Cells) -> Standing:
    passed, missing, failing = [], [], []
    for name in one.operators:
        states = cells.get((name, dtype), set())
        if any(state.is_error or state is State.EXPECTED_FAILURE for state in states):
            failing.append(name)
        elif State.PASSED in states:
            passed.append(name)
        elif states:
            missing.append(name)
    return Standing(one, dtype, tuple(passed), tuple(missing), tuple(failing))


def passed_operators(entries: Iterable[Entry]) -> dict[str, dict[str, list[str]]]:
    """Operator -> since_version -> element types, where some case passed and none was wrong."""
    cells: dict[tuple[str, int, str], set[State]] = defaultdict(set)
    for entry in entries:
        if entry.operator:
            cells[entry.operator, entry.version, entry.dtype].add(entry.state)
    found: dict[str, dict[str, list[str]]] = {}
    for (name, version, dtype), states in sorted(cells.items()):
        wrong = any(state.is_error or state is State.EXPECTED_FAILURE for state in states)
        if State.PASSED in states and not wrong:
            found.setdefault(name, {}).setdefault(str(version), []).append(dtype)
    return found
