"""One node on the native engine, beside its portable kernel and onnxruntime."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from unittest import mock

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper

import epkit
import epkit_cpu.compile as native_compile

Array = np.ndarray[Any, Any]


def one_node(
    op: str,
    inputs: Sequence[Array | None],
    n_outputs: int = 1,
    *,
    constants: Sequence[int] = (),
    domain: str = "",
    opset: int = 21,
    fixed: bool = False,
    absent: Sequence[int] = (),
    kind: int = 0,
    **attributes: Any,
) -> tuple[onnx.ModelProto, dict[str, Array]]:
    """A model of one node, and what to feed it.

    Args:
        constants: positions of inputs that are initializers.
        fixed: whether the inputs' shapes are declared.
        absent: positions of outputs that are not wanted.
        kind: the outputs' element type as the file declares it; 0: it does not.
    """
    names = [f"i{n}" if value is not None else "" for n, value in enumerate(inputs)]
    outputs = ["" if n in absent else f"o{n}" for n in range(n_outputs)]
    node = helper.make_node(op, names, outputs, domain=domain, **attributes)
    given, weights = {}, []
    infos = []
    for n, value in enumerate(inputs):
        if value is None:
            continue
        if n in constants:
            weights.append(numpy_helper.from_array(value, f"i{n}"))
            continue
        dims: list[Any] = list(value.shape) if fixed else [f"i{n}_{d}" for d in range(value.ndim)]
        infos.append(
            helper.make_tensor_value_info(f"i{n}", helper.np_dtype_to_tensor_dtype(value.dtype), dims)
        )
        given[f"i{n}"] = value
    results = [
        helper.make_tensor_value_info(name, kind, None) if kind else helper.make_empty_tensor_value_info(name)
        for name in outputs
        if name
    ]
    graph = helper.make_graph([node], "one", infos, results, weights)
    imports = [helper.make_opsetid("", opset)] + ([helper.make_opsetid(domain, 1)] if domain else [])
    return helper.make_model(graph, opset_imports=imports, ir_version=12), given


@contextmanager
def instruction_set(isa: str) -> Iterator[None]:
    """EPKIT_CPU_ISA for a while."""
    with mock.patch.dict(os.environ, {"EPKIT_CPU_ISA": isa}):
        yield


def native(model: onnx.ModelProto, feeds: Mapping[str, Array], isa: str) -> dict[str, Array]:
    """The results, which no step of Python's had a part in."""
    called: list[str] = []
    portable_step = native_compile.portable_step

    def recorded(node: Any, *rest: Any) -> Any:
        step = portable_step(node, *rest)

        def call(*given: Any) -> Any:
            called.append(str(node.op_type))
            return step(*given)

        return call

    with instruction_set(isa), mock.patch.object(native_compile, "portable_step", recorded):
        with epkit.load(model, optimise="none") as session:
            called.clear()
            first = session.run(None, dict(feeds))
            again = session.run(None, dict(feeds))
    assert not called, called
    for name, value in first.items():
        np.testing.assert_array_equal(value, again[name], err_msg=f"the second run gives another {name}")
    return first


def portable(model: onnx.ModelProto, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """The results of the portable kernel."""
    with instruction_set("none"), epkit.load(model, optimise="none") as session:
        return session.run(None, dict(feeds))


def peer(model: onnx.ModelProto, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """onnxruntime's results."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return dict(zip([o.name for o in session.get_outputs()], session.run(None, dict(feeds)), strict=True))


def agree(
    model: onnx.ModelProto,
    feeds: Mapping[str, Array],
    isa: str,
    *,
    rtol: float = 1e-5,
    atol: float = 1e-6,
    beside_onnxruntime: bool = False,
) -> None:
    """Native is what the portable kernel gives, and what onnxruntime gives."""
    found = native(model, feeds, isa)
    oracles = {"portable": portable(model, feeds)}
    if beside_onnxruntime:
        oracles["onnxruntime"] = peer(model, feeds)
    for oracle, wanted in oracles.items():
        for name, value in wanted.items():
            ours = found[name]
            assert ours.dtype == value.dtype, (oracle, name, ours.dtype, value.dtype)
            assert ours.shape == value.shape, (oracle, name, ours.shape, value.shape)
            np.testing.assert_allclose(ours, value, rtol, atol, err_msg=f"{oracle} {name}")
