"""A case: the inputs and attributes of one node, and what is known of its results."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import onnx
from onnx.defs import OpSchema

Outputs = Sequence[Any]


@dataclass(frozen=True)
class Case:
    """One node.

    Attributes:
        inputs: arrays; lists (sequences), dicts (maps); None where an optional one is absent.
        attributes: as ``onnx.helper.make_node`` takes them.
        outputs: how many outputs the node has; or their names, "" for one left out.
        expect: (inputs) -> results in closed form, where no other oracle serves or is right; absent inputs are
            left out.
        judge: raises AssertionError unless the outputs are right; for random operators.
        twin: the same computation as another version has it: version and attributes. For what no oracle knows in
            this version.
        types: ONNX types of inputs that a value alone does not tell.
        captured: further graph inputs, which bodies or nodes in front may read by these names.
        before: nodes in front of this one, which may read its inputs ``x0``, ``x1``, ...
        retype: whether the case keeps its meaning when its inputs are given other element types.
        rtol: the relative tolerance for float32 and wider.
    """

    inputs: Sequence[Any] = ()
    attributes: Mapping[str, Any] = field(default_factory=dict)
    outputs: int | Sequence[str] = 1
    expect: Callable[..., Outputs] | None = None
    judge: Callable[[Outputs], None] | None = None
    twin: tuple[int, Mapping[str, Any]] | None = None
    types: Mapping[int, onnx.TypeProto] = field(default_factory=dict)
    captured: Mapping[str, Any] = field(default_factory=dict)
    before: Sequence[onnx.NodeProto] = ()
    retype: bool = True
    rtol: float = 1e-4

    @property
    def output_names(self) -> list[str]:
        """The node's outputs, "" for those left out."""
        if isinstance(self.outputs, int):
            return [f"y{i}" for i in range(self.outputs)]
        return list(self.outputs)


Generator = Callable[[str, int], Iterator[Case]]
"""(operator, version) -> cases that follow the schema of that version."""

GENERATORS: dict[tuple[str, str], Generator] = {}


def cases_for(*names: str, domain: str = "") -> Callable[[Generator], Generator]:
    """Declare the generator of some operators."""

    def declare(generator: Generator) -> Generator:
        for name in names:
            assert (domain, name) not in GENERATORS, f"{name} has two generators"
            GENERATORS[domain, name] = generator
        return generator

    return declare


InType = Callable[[str, int, str, str], Case | None]
"""(operator, version, type variable, element type) -> a case that binds the one to the other."""

IN_TYPE: dict[tuple[str, str], InType] = {}


def in_type_for(*names: str, domain: str = "") -> Callable[[InType], InType]:
    """Declare how to bind types for operators of which converting the inputs of a case does not do."""

    def declare(make: InType) -> InType:
        IN_TYPE.update({(domain, name): make for name in names})
        return make

    return declare


def all_schemas() -> list[OpSchema]:
    """Every (operator, since_version) of the standard, in order; those that packages registered have no source file."""
    found = [schema for schema in onnx.defs.get_all_schemas_with_history() if schema.file != "unknown"]
    return sorted(found, key=lambda s: (s.domain, s.name, s.since_version))


def is_removed(schema: OpSchema) -> bool:
    """Whether a model may not use the operator any more; a deprecated one with a function body still has meaning."""
    return schema.deprecated and not (schema.has_function or schema.has_context_dependent_function)


def cases_of(schema: OpSchema) -> list[Case]:
    """The cases of one schema; none if it was removed, or has no generator."""
    generator = GENERATORS.get((schema.domain, schema.name))
    if generator is None or is_removed(schema):
        return []
    return [_legacy(case, schema) for case in generator(schema.name, schema.since_version)]


def _legacy(case: Case, schema: OpSchema) -> Case:
    """Files of the first opsets carry ``consumed_inputs``, an optimisation of old, on every node that has it."""
    if "consumed_inputs" not in schema.attributes:
        return case
    zeros = [0] * len(case.inputs)
    return replace(case, attributes={**case.attributes, "consumed_inputs": zeros})


def label(schema: OpSchema) -> str:
    """``Add-7``, ``ai.onnx.ml.Scaler-1``."""
    return f"{schema.domain}.{schema.name}-{schema.since_version}".lstrip(".")
