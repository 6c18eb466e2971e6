"""A provider from declared kernels: what they take, why not, and how they are called."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import pytest

import epkit
from epkit.backend import (
    FLOATS,
    REFUSAL_CODES,
    Device,
    Devices,
    Kernel,
    KernelProvider,
    Refusal,
    kernel,
    portable_kernels,
)
from epkit.errors import BrokenProviderError, RunError
from epkit.partition.placement import Reason
from epkit.testing.models import model
from epkit.testing.oracle import assert_same
from epkit.testing.plugins import registry_of

X = np.array([-1, 2, 3], np.float32)
NEG = model("g (float[N] x) => (float[N] y) { [n] y = Neg(x) }")


def provider_of(*kernels: Kernel) -> type[KernelProvider]:
    class Toy(KernelProvider):
        name = "toy"
        version = "1.0"

        def devices(self) -> Devices:
            return Devices((Device("toy:0", "toy"),))

    Toy.kernels = kernels
    return Toy


def load(graph: onnx.ModelProto, *kernels: Kernel) -> epkit.Session:
    return epkit.load(graph, ["toy"], registry=registry_of(provider_of(*kernels)), optimise="none")


def refusal(graph: onnx.ModelProto, *kernels: Kernel) -> Reason:
    """Why the toy does not take the first node."""
    with load(graph, *kernels) as session:
        (reason,) = (reason for reason in session.placement.nodes[0].refused if reason.provider == "toy")
        return reason


def negate(x: Any) -> Any:
    return -x


# ---- what they take ----


@pytest.mark.parametrize(
    ("since", "until", "kind", "code"),
    [(13, None, "float", ""), (1, 12, "float", "dtype"), (1, 12, "double", ""), (19, None, "float", "dtype")],
)
def test_a_narrow_kernel_beside_one_that_takes_every_type(
    since: int, until: int | None, kind: str, code: str
) -> None:
    graph = model(f"g ({kind}[N] x) => ({kind}[N] y) {{ [n] y = Neg(x) }}")
    both = kernel("Neg", types={"T": {"float64"}})(negate), kernel("Neg", since=since, until=until)(negate)
    for kernels in (both, both[::-1]):
        if code:
            assert refusal(graph, *kernels).code == code
        else:
            with load(graph, *kernels) as session:
                assert session.placement.counts() == {"toy": 1}


@pytest.mark.parametrize(
    ("since", "until", "taken"),
    [(1, None, True), (18, None, True), (19, None, False), (1, 18, True), (1, 17, False), (13, 20, True)],
)
def test_opset_ranges(since: int, until: int | None, taken: bool) -> None:
    declared = kernel("Neg", since=since, until=until)(negate)
    if taken:
        with load(NEG, declared) as session:
            assert session.placement.counts() == {"toy": 1}
    else:
        reason = refusal(NEG, declared)
        assert reason.code == "opset"
        assert f"{since}.." in reason.constraint
        assert reason.actual == "18"


def test_types() -> None:
    declared = kernel("Neg", types={"T": {"float16", "float64"}})(negate)
    reason = refusal(NEG, declared)
    assert (reason.code, reason.constraint, reason.actual) == ("dtype", "T in float16, float64", "float32")
    assert reason.reason == "the kernel for Neg needs T in float16, float64; found float32"
    with load(NEG, kernel("Neg", types={"T": FLOATS})(negate)) as session:
        assert session.placement.counts() == {"toy": 1}


def test_types_of_variadic_inputs_and_of_outputs() -> None:
    graph = model(
        "g (float[N] x, int64[M] k) => (float[N] a, int64[N] i) <int64 d = {0}> { a, i = TopK(x, k) }"
    )
    assert refusal(graph, kernel("TopK", types={"I": {"int32"}})(negate)).actual == "int64"
    graph = model("g (float[N] x, float[N] z) => (float[N] y) { y = Max(x, z, z, x) }")
    assert refusal(graph, kernel("Max", types={"T": {"int32"}})(negate)).code == "dtype"


def test_a_type_that_nobody_knows_is_not_taken() -> None:
    graph = model(
        "g (float[N] x) => (float[N] y) { [u] a = toys.Other(x)  [n] y = Neg(a) }", domains={"toys": 1}
    )
    other = kernel("Other", domain="toys")(negate)
    with load(graph, other, kernel("Neg", types={"T": FLOATS})(negate)) as session:
        (reason,) = session.placement.nodes[1].refused
    assert (reason.code, reason.actual) == ("dtype", "")
    assert "an unknown type" in reason.reason


@pytest.mark.parametrize(
    ("verdict", "reason"),
    [("axis must be the last", "axis must be the last"), (False, "predicate refused this Neg")],
)
def test_predicates(verdict: bool | str, reason: str) -> None:
    declared = kernel("Neg", when=lambda node: verdict)(negate)
    found = refusal(NEG, declared)
    assert found.code == "attribute"
    assert reason in found.reason


def test_a_predicate_that_raises_is_the_providers_fault() -> None:
    def when(node: Any) -> bool:
        raise KeyError("axis")

    with pytest.raises(BrokenProviderError, match="'toy' failed in claim: KeyError: 'axis'"):
        load(NEG, kernel("Neg", when=when)(negate))


def test_no_kernel() -> None:
    reason = refusal(NEG, kernel("Abs")(np.abs))
    assert (reason.code, reason.reason) == ("no-kernel", "no kernel for Neg")


def test_the_first_that_fits_is_used() -> None:
    first = kernel("Neg", types={"T": {"float16"}})(lambda x: x)
    second, third = kernel("Neg")(negate), kernel("Neg")(lambda x: x)
    with load(NEG, first, second, third) as session:
        assert_same(session(x=X)["y"], -X)


def test_the_reason_is_that_of_the_kernel_that_came_closest() -> None:
    """For another type is closer than for another version, whatever the order."""
    old = kernel("Neg", until=5)(negate)
    typed = kernel("Neg", since=13, types={"T": {"float16"}})(negate)
    picky = kernel("Neg", when=lambda node: "not on Mondays")(negate)
    assert refusal(NEG, typed, old).code == refusal(NEG, old, typed).code == "dtype"
    assert refusal(NEG, picky, typed, old).code == refusal(NEG, old, typed, picky).code == "attribute"


# ---- how they are called ----


def test_absent_inputs_are_none_and_attributes_are_keywords() -> None:
    seen: list[Any] = []

    @kernel("Clip", since=13)
    def clip(x: Any, low: Any = None, high: Any = None) -> Any:
        seen.append((low, high))
        return np.minimum(x, high)

    @kernel("LeakyRelu")
    def leaky(x: Any, *, alpha: float = 0.01) -> Any:
        seen.append(alpha)
        return np.where(x < 0, x * np.float32(alpha), x)

    graph = model("""
        g (float[N] x) => (float[N] y) <float high = {2}> {
            a = Clip(x, "", high)  b = LeakyRelu(a)  y = LeakyRelu <alpha = 0.5> (b) }""")
    with load(graph, clip, leaky) as session:
        assert_same(session(x=X)["y"], np.array([-0.005, 2, 2], np.float32))
    assert seen == [(None, 2), 0.01, 0.5]


def test_what_the_caller_fills_in() -> None:
    seen: dict[str, Any] = {}

    @kernel("Split", since=18)
    def split(
        x: Any, *, axis: int = 0, num_outputs: int, node: Any, opset: int, n_outputs: int, context: Any
    ) -> Any:
        seen.update(node=node.name, opset=opset, n_outputs=n_outputs, device=context.device.name)
        return tuple(np.split(x, num_outputs, axis))

    graph = model("g (float[4] x) => (float[2] y, float[2] z) { [s] y, z = Split <num_outputs = 2> (x) }")
    with load(graph, split) as session:
        outputs = session(x=np.arange(4, dtype=np.float32))
    assert_same(outputs["z"], np.array([2, 3], np.float32))
    assert seen == {"node": "s", "opset": 18, "n_outputs": 2, "device": "toy:0"}


def test_kernels_that_write_into_given_memory() -> None:
    @kernel("Neg", shapes=lambda x: [(x.shape, x.dtype)])
    def into(x: Any, *, out: Sequence[Any]) -> None:
        np.negative(x, out=out[0])

    graph = model("g (float[N] x) => (float[N] y) { a = Neg(x)  b = Neg(a)  y = Neg(b) }")
    with load(graph, into) as session:
        for _ in range(2):
            assert_same(session(x=X)["y"], -X)


def test_a_kernel_is_still_a_function() -> None:
    assert_same(kernel("Neg")(negate)(X), -X)


def test_outputs_that_nobody_wants() -> None:
    @kernel("LayerNormalization", since=17)
    def normalize(x: Any, scale: Any) -> Any:
        return x * scale, np.float32([7]), np.float32([8])

    graph = model("""
        g (float[N] x, float[1] s) => (float[N] y, float[1] deviation) {
            y, "", deviation = LayerNormalization(x, s) }""")
    with load(graph, normalize) as session:
        assert_same(session(x=X, s=X[1:2]), {"y": 2 * X, "deviation": np.float32([8])})


def test_a_kernel_that_gives_too_few_outputs_is_told_so() -> None:
    @kernel("Split", since=18)
    def split(x: Any, *, num_outputs: int) -> Any:
        return x[:2]

    graph = model("g (float[4] x) => (float[2] y, float[2] z) { [s] y, z = Split <num_outputs = 2> (x) }")
    with load(graph, split) as session, pytest.raises(RunError, match="Split gave 1 of 2 outputs") as raised:
        session(x=np.zeros(4, np.float32))
    assert raised.value.where.node == "s"


# ---- ready-made ones ----


def test_portable_kernels_may_be_chosen() -> None:
    some = portable_kernels(np, only=["Relu", "ai.onnx.ml.Scaler"])
    assert {(item.domain, item.op_type) for item in some} == {("", "Relu"), ("ai.onnx.ml", "Scaler")}
    with load(NEG, *some) as session:
        assert session.placement.counts() == {"cpu": 1}


def test_the_smallest_provider() -> None:
    graph = model("""
        g (float[N] x, double[M] z) => (float[N] y, double[M] w) {
            [r] a = Relu(x)  [a] b = Abs(a)  [n] y = Neg(b)  [m] w = Neg(z) }""")
    with epkit.load(graph, ["null"], optimise="none") as session:
        nodes = {node.node: node for node in session.placement.nodes}
        assert {name: node.provider for name, node in nodes.items()} == {
            "r": "null", "a": "cpu", "n": "null", "m": "cpu",
        }  # fmt: skip
        assert {name: [reason.code for reason in node.refused] for name, node in nodes.items()} == {
            "r": [], "a": ["no-kernel"], "n": [], "m": ["dtype"],
        }  # fmt: skip
        feeds = {"x": X, "z": X.astype(np.float64)}
        assert_same(session.run(None, feeds), {"y": -np.maximum(X, 0), "w": -feeds["z"]})


def test_codes_are_a_closed_list_with_meanings() -> None:
    with pytest.raises(ValueError, match="'because' is not a refusal code; the codes are no-kernel"):
        Refusal(None, "because", "no")  # type: ignore[arg-type]
    assert all(REFUSAL_CODES.values())
