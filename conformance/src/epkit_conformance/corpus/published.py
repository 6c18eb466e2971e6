"""The cases that ONNX publishes for its operators (onnx.backend.test, kind "node"), as they are."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import onnx

from epkit.dtypes import NAME

from ..case import PUBLISHED, Case
from ..evidence import Expectation, run_model
from ..result import Result

RANDOM = ("bernoulli", "multinomial", "random")
"""Words in the names of cases whose outputs the standard leaves to chance."""


@cache
def published() -> tuple[Any, ...]:
    """ONNX's own TestCase objects, those with a model and data."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the cases overflow on purpose while they are generated
        from onnx.backend.test.case.node import collect_testcases

        cases = collect_testcases(None)
    return tuple(case for case in cases if case.model is not None and case.data_sets is not None)


def cases() -> Iterator[Case]:
    """One case for each published one."""
    for item in published():
        name = item.name.removeprefix("test_")
        place = matrix_place(item.model)
        yield Case(f"published/{name}", 2, "published", _runner(item), *place, oracle=PUBLISHED)


def matrix_place(model: onnx.ModelProto) -> tuple[str, int, str]:
    """(operator, since_version, element type) of a model of one node; empty for larger ones."""
    if len(model.graph.node) != 1:
        return "", 0, ""
    node = model.graph.node[0]
    opset = next((o.version for o in model.opset_import if o.domain == node.domain), 1)
    try:
        version = onnx.defs.get_schema(node.op_type, opset, node.domain).since_version
    except onnx.defs.SchemaError:
        version = opset
    types = [NAME.get(i.type.tensor_type.elem_type, "") for i in model.graph.input]
    operator = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
    return operator, version, next(filter(None, types), "")


def tolerance(item: Any) -> Expectation:
    """The tolerance that the case was published with."""
    return Expectation(item.rtol, item.atol, any(word in item.name for word in RANDOM))


def _runner(item: Any) -> Callable[[str], Result]:
    return lambda provider: run_model(item.model, item.data_sets, provider, tolerance(item))
