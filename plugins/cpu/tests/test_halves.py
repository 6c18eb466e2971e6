"""float16 models run natively: each step is computed in float32 and rounded once, on every instruction set."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

import epkit
from epkit_cpu.compile import NativeProgram
from epkit_cpu.native import isas

Array = np.ndarray[Any, Any]
RANDOM = np.random.default_rng(3)
pytestmark = pytest.mark.skipif(not isas(), reason="the package was built without a compiler")


@pytest.fixture(params=isas() or ("none",))
def isa(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("EPKIT_CPU_ISA", request.param)
    return str(request.param)


def half(*shape: int) -> Array:
    return RANDOM.standard_normal(shape).astype(np.float16)


@dataclass
class Case:
    """Operators from x to y, the rest constant. Where ``kind`` is given, it is y's, not float16."""

    x: Array
    nodes: list[tuple[Any, ...]]
    weights: dict[str, Array] = field(default_factory=dict)
    steps: int = 1
    kind: int = 0

    def model(self, element: type) -> bytes:
        """The case in float16 or float32; the numbers are the same."""
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(element))
        nodes = [
            helper.make_node(op, i.split(","), o.split(","), **(a[0] if a else {}))
            for op, i, o, *a in self.nodes
        ]
        weights = {k: v.astype(element) if v.dtype == np.float16 else v for k, v in self.weights.items()}
        x = helper.make_tensor_value_info("x", kind, self.x.shape)
        y = helper.make_tensor_value_info("y", self.kind or kind, None)
        graph = helper.make_graph(
            nodes, "half", [x], [y], [numpy_helper.from_array(w, k) for k, w in weights.items()]
        )
        made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
        return bytes(made.SerializeToString())


IMAGE = half(2, 19, 9, 8)
CASES = {
    "a product": Case(half(3, 5, 70), [("MatMul", "x,w", "y")], {"w": half(70, 50)}),
    "a product with what follows": Case(
        half(3, 5, 70),
        [("MatMul", "x,w", "p"), ("Add", "p,b", "s"), ("Gelu", "s", "y", {"approximate": "none"})],
        {"w": half(70, 50), "b": half(50)},
    ),
    "a residual": Case(half(6, 64), [("MatMul", "x,w", "p"), ("Add", "p,x", "y")], {"w": half(64, 64)}),
    "many rows": Case(half(40, 800), [("MatMul", "x,w", "y")], {"w": half(800, 70)}),
    "a product of two inputs": Case(half(2, 5, 5), [("MatMul", "x,x", "y")]),
    "Gemm": Case(
        half(7, 33),
        [("Gemm", "x,w,c", "y", {"transB": 1, "alpha": 0.5, "beta": 2.0})],
        {"w": half(20, 33), "c": half(7, 1)},
    ),
    "a convolution": Case(
        IMAGE, [("Conv", "x,w,b", "y", {"pads": [1] * 4})], {"w": half(21, 19, 3, 3), "b": half(21)}
    ),
    "a grouped convolution": Case(
        half(1, 8, 6, 6), [("Conv", "x,w", "y", {"group": 8})], {"w": half(8, 1, 3, 3)}
    ),
    "a transposed convolution": Case(
        IMAGE, [("ConvTranspose", "x,w", "y", {"strides": [2, 2]})], {"w": half(19, 6, 2, 2)}
    ),
    "convolutions in a row": Case(
        half(1, 32, 9, 9),
        [
            ("Conv", "x,v", "c", {"pads": [1] * 4}),
            ("Relu", "c", "r"),
            ("MaxPool", "r", "m", {"kernel_shape": [2, 2]}),
            ("GlobalAveragePool", "m", "y"),
        ],
        {"v": half(32, 32, 3, 3) / np.float16(16)},
        steps=3,
    ),
    "MaxPool": Case(IMAGE, [("MaxPool", "x", "y", {"kernel_shape": [3, 2], "strides": [2, 2]})]),
    "AveragePool": Case(IMAGE, [("AveragePool", "x", "y", {"kernel_shape": [3, 3]})]),
    "LayerNormalization": Case(
        half(4, 50), [("LayerNormalization", "x,s,b", "y")], {"s": half(50), "b": half(50)}
    ),
    "InstanceNormalization": Case(
        IMAGE, [("InstanceNormalization", "x,s,b", "y")], {"s": half(19), "b": half(19)}
    ),
    "BatchNormalization": Case(
        IMAGE,
        [("BatchNormalization", "x,s,b,m,v", "y")],
        {"s": half(19), "b": half(19), "m": half(19), "v": abs(half(19))},
    ),
    "ReduceMean": Case(half(9, 40), [("ReduceMean", "x,axes", "y")], {"axes": np.array([1])}),
    "ArgMax": Case(half(9, 40), [("ArgMax", "x", "y", {"axis": 1})], kind=TensorProto.INT64),
    "Resize": Case(
        half(1, 3, 5, 5),
        [("Resize", "x,,s", "y", {"mode": "linear"})],
        {"s": np.array([1, 1, 2, 2], np.float32)},
    ),
}


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("name", CASES)
def test_steps_are_rounded_once(isa: str, name: str, threads: int) -> None:
    case = CASES[name]
    peer = onnxruntime.InferenceSession(case.model(np.float32), providers=["CPUExecutionProvider"])
    (wanted,) = peer.run(None, {"x": case.x.astype(np.float32)})
    with epkit.load(case.model(np.float16), [("cpu", {"threads": threads})], optimise="basic") as session:
        (program,) = session._engine.compiled.programs.values()
        assert isinstance(program, NativeProgram)
        kernels = [step.kernel for step in program.steps]
        assert kernels.count("halves") >= case.steps and "" not in kernels, str(program)
        for _ in range(2):
            found = session.run(None, {"x": case.x})["y"]
            assert found.dtype == (np.int64 if case.kind else np.float16) and found.shape == wanted.shape
            # half a unit in the last place, and what float32 sums in another order differ by
            unit = np.spacing(np.abs(wanted).astype(np.float16)).astype(np.float64)
            scale = float(np.abs(wanted).max())
            assert (
                np.abs(found.astype(np.float64) - wanted)
                <= case.steps * 0.51 * unit + case.steps * 2e-6 * scale
            ).all()


@pytest.mark.parametrize("n", [1, 7, 50, 333])
def test_softmax_is_rounded_in_each_step(isa: str, n: int) -> None:
    """As ONNX's function body says: difference, exponential, sum, quotient."""
    x = half(9, n) * np.float16(4)
    x[3, 0], x[4, n // 2] = np.inf, np.nan
    if n > 7:
        x[5, 2:] = -np.inf
    case = Case(x, [("Softmax", "x", "y")])
    with np.errstate(invalid="ignore"):
        e = np.exp((x - x.max(axis=1, keepdims=True)).astype(np.float64)).astype(np.float16)
        wanted = (e / e.sum(axis=1, keepdims=True, dtype=np.float64).astype(np.float16)).astype(np.float64)
    with epkit.load(case.model(np.float16)) as session:
        (program,) = session._engine.compiled.programs.values()
        assert "softmax_halves" in str(program)
        found = session.run(None, {"x": x})["y"].astype(np.float64)
    np.testing.assert_array_equal(np.isnan(found), np.isnan(wanted))
    good = np.nan_to_num(
        wanted
    )  # an exponential at a tie may fall to the other side: 1.5 units of the quotient
    assert (
        np.abs(np.nan_to_num(found) - good) <= 1.5 * np.spacing(good.astype(np.float16)).astype(np.float64)
    ).all()


def test_what_overflows_is_infinite(isa: str) -> None:
    case = Case(
        np.full((2, 64), 100, np.float16), [("MatMul", "x,w", "y")], {"w": np.full((64, 3), 100, np.float16)}
    )
    with epkit.load(case.model(np.float16)) as session:
        assert np.isposinf(session.run(None, {"x": case.x})["y"]).all()


def test_weights_of_products_stay_in_16_bits(isa: str) -> None:
    """The packed matrix is half as large as float32's."""
    case = Case(half(4, 512), [("MatMul", "x,w", "y")], {"w": half(512, 512)})
    sizes = []
    for element in (np.float16, np.float32):
        with epkit.load(case.model(element)) as session:
            (program,) = session._engine.compiled.programs.values()
            assert isinstance(program, NativeProgram)
            sizes.append(sum(len(piece) for piece in program.prepared.pieces()))
    assert sizes[0] < 0.6 * sizes[1]
