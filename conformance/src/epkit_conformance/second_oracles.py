"""Asking second oracles what a generated case must give.

A recipe computes its results by a formula of its own. Others are asked too, when the list of them is made anew::

    python -m epkit_conformance.second_oracles > conformance/src/epkit_conformance/witnesses.json

In this order: ``onnx.reference`` in float64; onnxruntime, if it is installed, on the model as it is; either of them
on the model that ``onnx.version_converter`` makes of it for a later version; onnxruntime on the same node as an
earlier version has it. The first that agrees is written down.
"""

from __future__ import annotations

import json
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
import onnx
import onnx.reference
import onnx.version_converter
from onnx import numpy_helper

from epkit.dtypes import BY_SPELLING, CODE, FLOATS, numpy_dtype

from .case import Case
from .corpus.generated import cases, feeds_of, model_of, trial_of
from .recipes import Trial
from .witnesses import Table

Answer = Callable[[], list[Any]]

REFERENCE = "onnx.reference"
RUNTIME = "onnxruntime"
CONVERTED = "onnx.version_converter and "
LATER = (7, 8, 9, 11, 13, 18, 21, 24)
"""Versions that a model is converted to, until one is understood."""


def witness(
    case: Case, trial: Trial, model: onnx.ModelProto, feeds: Mapping[str, Any]
) -> tuple[str, list[str]]:
    """Who agrees with the recipe ("" for nobody), and who has been asked before and said something else."""
    others: list[str] = []
    for name, ask in _ways(model, feeds):
        try:
            with np.errstate(all="ignore"), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found = ask()
        except Exception:  # whatever it is that this one cannot do, the next may
            continue
        if agrees(found, trial, _slack(case.dtype, name)):
            return name, others
        others += [] if name in others else [name]
    return "", others


def _slack(dtype: str, name: str) -> float:
    if name.endswith(REFERENCE):
        return 1e-5
    return {"float16": 1e-2, "bfloat16": 5e-2, "float64": 1e-6}.get(dtype, 1e-4)


def _ways(model: onnx.ModelProto, feeds: Mapping[str, Any]) -> Iterator[tuple[str, Answer]]:
    yield REFERENCE, partial(by_reference, model, feeds)
    yield RUNTIME, partial(by_onnxruntime, model, feeds)
    for later in _converted(model):
        yield CONVERTED + REFERENCE, partial(by_reference, later, feeds)
        yield CONVERTED + RUNTIME, partial(by_onnxruntime, later, feeds)
    yield f"{RUNTIME}, an earlier version", partial(by_onnxruntime, _earlier(model), feeds)


def _earlier(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same node as opset 21 has it, the last before all types were extended."""
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    changed.opset_import[0].version = 21
    return changed


def _converted(model: onnx.ModelProto) -> Iterator[onnx.ModelProto]:
    for version in LATER:
        if version > model.opset_import[0].version:
            try:
                yield onnx.version_converter.convert_version(model, version)
            except Exception:  # it has its own of every kind
                continue


def by_reference(model: onnx.ModelProto, feeds: Mapping[str, Any]) -> list[Any]:
    """The outputs by ``onnx.reference``, floats as float64."""
    given = {name: _wide(value) for name, value in feeds.items()}
    return list(onnx.reference.ReferenceEvaluator(widened(model)).run(None, given))


def by_onnxruntime(model: onnx.ModelProto, feeds: Mapping[str, Any]) -> list[Any]:
    """The outputs by onnxruntime's CPU provider, without optimisation.

    Raises:
        ImportError: if it is not installed.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
    outputs = zip(session.run(None, dict(feeds)), session.get_outputs(), strict=True)
    return [_typed(value, info.type) for value, info in outputs]


def _typed(value: Any, kind: str) -> Any:
    """onnxruntime returns the bits of element types that NumPy has not."""
    name = BY_SPELLING.get(kind.removeprefix("tensor(").removesuffix(")"), "")
    if not isinstance(value, np.ndarray) or name in ("", "string") or value.dtype == numpy_dtype(name):
        return value
    return value.view(numpy_dtype(name))


def _wide(value: Any) -> Any:
    if isinstance(value, list):
        return [_wide(item) for item in value]
    return value.astype(np.float64) if value.dtype.name in FLOATS else value


def widened(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with float64 in the place of every float type that is computed with, sequences and bodies included."""
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    _widen(changed.graph)
    return changed


WIDENED = {CODE[name] for name in FLOATS}


def _widen(graph: onnx.GraphProto) -> None:
    for info in (*graph.input, *graph.output):
        kind = info.type
        for field in ("optional_type", "sequence_type"):
            kind = getattr(kind, field).elem_type if kind.HasField(field) else kind
        if kind.tensor_type.elem_type in WIDENED:
            kind.tensor_type.elem_type = onnx.TensorProto.DOUBLE
    for tensor in graph.initializer:
        _widen_tensor(tensor)
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.name in ("to", "output_datatype") and attribute.i in WIDENED:
                attribute.i = onnx.TensorProto.DOUBLE
            if attribute.HasField("t"):
                _widen_tensor(attribute.t)
            if attribute.HasField("g"):
                _widen(attribute.g)


def _widen_tensor(tensor: onnx.TensorProto) -> None:
    if tensor.data_type in WIDENED:
        values = numpy_helper.to_array(tensor).astype(np.float64)
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


# ---- comparing ----


def agrees(found: Iterable[Any], trial: Trial, slack: float) -> bool:
    """True if all outputs are the recipe's, or the first is another one that is as right."""
    answers = list(found)
    if len(answers) != len(trial.want):
        return False
    first = any(_alike(answers[0], right, slack) for right in (trial.want[0], *trial.also))
    return first and all(_alike(*pair, slack) for pair in zip(answers[1:], trial.want[1:], strict=True))


def _alike(got: Any, want: Any, slack: float) -> bool:
    if isinstance(want, list):
        return (
            isinstance(got, list)
            and len(got) == len(want)
            and all(_alike(*pair, slack) for pair in zip(got, want, strict=True))
        )
    if want is None or got is None:
        return got is want
    got, want = np.asarray(got), np.asarray(want)
    if got.shape != want.shape:
        return False
    if want.dtype.kind in "OSUT":
        return bool(np.array_equal(got.astype(object), want.astype(object)))
    wide = np.complex128 if "c" in (got.dtype.kind, want.dtype.kind) else np.float64
    exact = want.dtype.kind in "biu"
    limits = (0.0, 0.0) if exact else (slack, slack)
    return bool(np.allclose(got.astype(wide), want.astype(wide), *limits, equal_nan=True))


# ---- writing it down ----


def make_table() -> tuple[Table, list[str]]:
    """The table, and the cases with which others disagree while nobody agrees."""
    found: dict[str, dict[str, dict[str, list[str]]]] = defaultdict(
        lambda: defaultdict(lambda: defaultdict(list))
    )
    disputed = []
    for case in cases():
        trial = trial_of(case.operator, case.version, case.dtype)
        model = model_of(case.operator, case.version, trial)
        name, others = witness(case, trial, model, feeds_of(model, trial))
        if name:
            found[case.operator][str(case.version)][name].append(case.dtype)
        elif others:
            disputed.append(f"{case.name}: {', '.join(others)}")
    return {
        op: {version: {n: " ".join(types) for n, types in who.items()} for version, who in versions.items()}
        for op, versions in found.items()
    }, disputed


def text_of(made: Table) -> str:
    """JSON with a line for each version of an operator."""
    lines = []
    for operator, versions in made.items():
        inner = ",\n  ".join(f"{json.dumps(v)}: {json.dumps(who)}" for v, who in versions.items())
        lines.append(f" {json.dumps(operator)}: {{\n  {inner}}}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


if __name__ == "__main__":
    import sys

    made, disputed = make_table()
    print(text_of(made), end="")
    print(*disputed, sep="\n", file=sys.stderr)
