"""However a model tells a node's inputs, by constants or with unknown shapes, the results and their shapes are the same."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from onnx.defs import OpSchema

import epkit

from . import families as families
from .case import Case, Outputs, all_schemas, cases_of, is_removed, label
from .compare import assert_like
from .model import build, feeds

SCHEMAS = {label(schema): schema for schema in all_schemas() if not is_removed(schema)}
NEWEST = {(schema.domain, schema.name): name for name, schema in SCHEMAS.items()}
Feeds = Mapping[str, Any]


def run(model: onnx.ModelProto, given: Feeds, optimise: str) -> Outputs:
    """The outputs, each of the shape that the session promises."""
    with epkit.load(model, ["cpu"], optimise=optimise) as session:
        results = session.run(None, given)
        for info in session.outputs:
            found = results[info.name]
            if isinstance(found, np.ndarray) and info.shape is not None:
                assert len(info.shape) == found.ndim, f"{info.name} is {found.shape}, inferred {info.shape}"
                for size, dim in zip(found.shape, info.shape, strict=True):
                    assert not isinstance(dim, int) or dim == size, f"{found.shape}, inferred {info.shape}"
        return [results[info.name] for info in session.outputs]


def tensors(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """The inputs that are tensors."""
    return [info for info in model.graph.input if info.type.HasField("tensor_type")]


def symbolic(model: onnx.ModelProto) -> None:
    """Give every dimension of an input a name instead of a length."""
    for info in tensors(model):
        for axis, dim in enumerate(info.type.tensor_type.shape.dim):
            dim.dim_param = f"{info.name}_{axis}"


def constant(model: onnx.ModelProto, given: dict[str, Any], first: int) -> None:
    """Make initializers of the inputs from the given place on."""
    for info in list(model.graph.input)[first:]:
        if info.type.HasField("tensor_type") and isinstance(given[info.name], np.ndarray):
            model.graph.initializer.append(numpy_helper.from_array(given.pop(info.name), info.name))
            model.graph.input.remove(info)


def forms(case: Case, schema: OpSchema) -> Iterator[tuple[str, onnx.ModelProto, Feeds]]:
    """The ways to tell the inputs."""
    model = build(case, schema)
    symbolic(model)
    yield "symbolic", model, feeds(case)
    model, given = build(case, schema), dict(feeds(case))
    constant(model, given, 1)
    symbolic(model)
    yield "constants beside a symbolic input", model, given
    model = build(case, schema)
    for info in tensors(model):
        info.type.tensor_type.ClearField("shape")
    yield "unknown ranks", model, feeds(case)
    model, given = build(case, schema), dict(feeds(case))
    constant(model, given, 0)
    yield "constants", model, given


def check(name: str, every: bool) -> None:
    """Compare forms of cases, all or the first by turns, with the plain one, which has an oracle elsewhere."""
    schema = SCHEMAS[name]
    for number, case in enumerate(cases_of(schema)[: None if every else 2]):
        plain = run(build(case, schema), feeds(case), "none")
        ways = list(forms(case, schema))
        for form, model, given in ways if every else [ways[(number + 1) % len(ways)]]:
            try:
                found = run(model, given, "all")
                if case.judge is not None:
                    case.judge(found)
                else:
                    assert_like(found, plain, case.rtol)
            except Exception as error:
                raise AssertionError(f"{name}, case {number}, {form}: {error}") from error


@pytest.mark.parametrize("name", NEWEST.values())
def test_the_newest_version(name: str) -> None:
    check(name, every=False)


@pytest.mark.slow
@pytest.mark.parametrize("name", SCHEMAS)
def test_every_version(name: str) -> None:
    check(name, every=True)
