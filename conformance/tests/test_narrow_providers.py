"""Devices that do little get useful, honest results: float16 alone, fixed sizes alone, int8 alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import epkit
from epkit.backend import Device, Devices, KernelProvider, Refusal, element_type, portable_kernels
from epkit_conformance.catalogue import all_cases
from epkit_conformance.probes import native_type, subjects
from epkit_conformance.result import Result, State
from epkit_conformance.runner import run_here

CASES = (
    *("first/one_kernel_runs", "published/relu", "graphs/diamond/3_rows", "models/perceptron/one"),
    *("quantised/qlinear_chain/3_rows", "quantised/quantised_dense/1_rows", "dynamic/relu/symbolic"),
    *("contract/follows_its_inputs", "contract/explains_every_refusal", "contract/follows_changing_shapes"),
    *("threads/one_session_many_threads", "partitions/random/0", "generated/Relu/14/float16"),
)


class Narrow(KernelProvider):
    """Takes a node only if :meth:`problem` has nothing against it."""

    version = "1.0"
    kernels = tuple(portable_kernels(np))

    def devices(self) -> Devices:
        return Devices((Device(f"{self.name}:0", "npu"),))

    def claim(self, graph: Any) -> Iterator[Any]:
        for answer in super().claim(graph):
            node = answer.node if isinstance(answer, Refusal) else answer.nodes[0]
            problem = self.problem(node)
            yield answer if isinstance(answer, Refusal) or not problem else Refusal(node, "dtype", problem)

    def problem(self, node: Any) -> str:
        raise NotImplementedError


class OnlyFloat16(Narrow):
    name = "only_float16"

    def problem(self, node: Any) -> str:
        types = {element_type(value) for value in (*node.inputs, *node.outputs) if value is not None}
        return "" if "float16" in types <= {"float16", "int64", "bool"} else f"float16 alone, found {types}"


class OnlyFixed(Narrow):
    name = "only_fixed"

    def problem(self, node: Any) -> str:
        shapes = [value.shape for value in (*node.inputs, *node.outputs) if value is not None]
        fixed = all(shape is not None and all(isinstance(d, int) for d in shape) for shape in shapes)
        return "" if fixed else f"sizes must be known, found {shapes}"


class OnlyInt8(Narrow):
    name = "only_int8"
    kernels = tuple(
        portable_kernels(np, only={"QLinearMatMul", "QLinearConv", "MatMulInteger", "Relu", "Add"})
    )

    def problem(self, node: Any) -> str:
        found = element_type(node.inputs[0])
        return "" if found in ("int8", "uint8") else f"int8 alone, found {found}"


def results(provider: type[Narrow]) -> dict[str, Result]:
    epkit.register(provider)
    found = {case.name: run_here(case, provider.name) for case in all_cases() if case.name in CASES}
    assert not {name: result.detail for name, result in found.items() if result.state.is_error}
    return found


def passed(found: dict[str, Result]) -> set[str]:
    return {name for name, result in found.items() if result.state is State.PASSED}


def test_float16_alone() -> None:
    found = results(OnlyFloat16)
    assert native_type("only_float16") == "float16"
    refused = {"published/relu", "dynamic/relu/symbolic"}
    assert passed(found) >= set(CASES) - refused - {n for n in CASES if n.startswith("quantised/")}
    assert found["published/relu"].state is State.REFUSED
    assert "float16 alone" in found["published/relu"].detail


def test_fixed_sizes_alone() -> None:
    found = results(OnlyFixed)
    assert not any(subject.dynamic for subject in subjects("only_fixed")[0])
    dynamic = {"dynamic/relu/symbolic", "contract/follows_changing_shapes"}
    assert {found[name].state for name in dynamic} == {State.REFUSED}
    assert passed(found) >= set(CASES) - dynamic - {"partitions/random/0"}
    assert "with fixed sizes" in found["graphs/diamond/3_rows"].detail


def test_int8_alone() -> None:
    found = results(OnlyInt8)
    assert native_type("only_int8") == "int8"
    expected = {"first/one_kernel_runs", "quantised/qlinear_chain/3_rows", "contract/follows_its_inputs"}
    assert passed(found) >= expected | {
        "threads/one_session_many_threads",
        "contract/follows_changing_shapes",
    }
    assert found["models/perceptron/one"].state is State.UNSUPPORTED
    assert "no meaning in int8" in found["models/perceptron/one"].detail


@pytest.mark.parametrize("provider", [OnlyFloat16, OnlyFixed, OnlyInt8], ids=lambda provider: provider.name)
def test_every_case_says_something(provider: type[Narrow]) -> None:
    assert all(result.detail for result in results(provider).values() if result.state is not State.PASSED)
