"""What a case should give: the best independent witness that there is for it, and which one that was.

In this order: the closed form, where the case has one (given only where the others are silent or wrong);
onnxruntime on the very model; onnxruntime on the model that ``onnx.version_converter`` makes of it;
onnxruntime on the same computation as another version has it, where the case says how; ``onnx.reference``, on
the model or converted.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import version_converter
from onnx.defs import OpSchema
from onnx.reference import ReferenceEvaluator

from epkit.dtypes import BY_SPELLING, numpy_dtype

from .case import Case, Outputs
from .model import build, build_twin, feeds

onnxruntime.set_default_logger_severity(4)

NEWER = (7, 8, 9, 11, 13, 18, 21)
"""Opsets that a model of old is converted to, until one is understood."""


@dataclass(frozen=True)
class Verdict:
    """What is expected, and who says so."""

    oracle: str
    outputs: Outputs


def verdict(case: Case, schema: OpSchema) -> Verdict | None:
    """What the first oracle says that knows, or None."""
    return peers(case, schema) or reference(case, schema)


def peers(case: Case, schema: OpSchema) -> Verdict | None:
    """The closed form or onnxruntime; None if neither knows."""
    if case.expect is not None:
        present = [x for x in case.inputs if x is not None]
        with np.errstate(all="ignore"):
            return Verdict("closed form", case.expect(*present))
    return _first(_peers(case, schema))


def reference(case: Case, schema: OpSchema) -> Verdict | None:
    """``onnx.reference``, which has no old meanings of some operators, and few narrow types."""
    model = build(case, schema)
    ways = [("onnx.reference", lambda: by_reference(model, case))]
    for other in list(_converted(model))[-1:]:
        ways.append(("version_converter, onnx.reference", lambda other=other: by_reference(other, case)))
    return _first(ways)


Ways = Iterable[tuple[str, Callable[[], Outputs]]]


def _first(ways: Ways) -> Verdict | None:
    for oracle, ask in ways:
        try:
            with np.errstate(all="ignore"), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return Verdict(oracle, ask())
        except Exception:  # whatever it is that this one cannot do, the next may
            continue
    return None


def _peers(case: Case, schema: OpSchema) -> Ways:
    model = build(case, schema)
    yield "onnxruntime", lambda: by_onnxruntime(model, case)
    for other in _converted(model):
        yield "version_converter, onnxruntime", lambda other=other: by_onnxruntime(other, case)
    twin = build_twin(case, schema)
    if twin is not None:
        yield "onnxruntime, another version", lambda: by_onnxruntime(twin, case)


def by_onnxruntime(model: onnx.ModelProto, case: Case) -> Outputs:
    """The outputs by onnxruntime's CPU provider, without optimisation."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
    results = session.run(None, dict(feeds(case)))
    return [_typed(x, info.type) for x, info in zip(results, session.get_outputs(), strict=True)]


def _typed(value: Any, kind: str) -> Any:
    """onnxruntime returns the bits of element types that NumPy has not."""
    name = BY_SPELLING.get(kind.removeprefix("tensor(").removesuffix(")"), "")
    if not isinstance(value, np.ndarray) or name in ("", "string") or value.dtype == numpy_dtype(name):
        return value
    return value.view(numpy_dtype(name))


def by_reference(model: onnx.ModelProto, case: Case) -> Outputs:
    """The outputs by ``onnx.reference``, which also knows function bodies."""
    return ReferenceEvaluator(model).run(None, dict(feeds(case)))


def _converted(model: onnx.ModelProto) -> Iterator[onnx.ModelProto]:
    """The model as later opsets have it."""
    opsets = {item.domain: item.version for item in model.opset_import}
    if set(opsets) != {""}:
        return
    for version in NEWER:
        if version > opsets[""]:
            try:
                yield version_converter.convert_version(model, version)
            except Exception:
                continue
