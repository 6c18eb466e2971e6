"""Checks every node against the standard, infers types and shapes, and says precisely what is wrong where."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

from epkit.errors import EpkitError, InvalidModelError, UnknownOperatorError, UnsupportedOpsetError, Where
from epkit.model import infer
from epkit.model.functions import check_functions
from epkit.model.node_rules import check_call, check_shape_of_node, check_types, refuse_hazards
from epkit.model.order import sort_graphs
from epkit.model.read import ReadModel, describe
from epkit.model.schemas import hint, newest_versions, signature
from epkit.model.walk import all_nodes

Operators = Callable[[str, str, int], bool]


@dataclass(frozen=True)
class CheckedModel:
    """A model that keeps the rules: sorted, each operator known, types and shapes inferred.

    Attributes:
        model: the graph.
        name: file name, or what the source was.
        path: the file, if it was one.
        warnings: what was settled, repaired or contradictory, one sentence each.
        overridable: initializers that were also graph inputs, now constants.
    """

    model: ir.Model
    name: str
    path: Path | None = None
    warnings: tuple[str, ...] = ()
    overridable: tuple[str, ...] = ()

    def __str__(self) -> str:
        warnings = (f"warning: {warning}" for warning in self.warnings)
        return "\n".join([f"checked {self.name}", *describe(self.model), *warnings])


def check(read: ReadModel, *, operators: Operators | None = None) -> CheckedModel:
    """Check a model, sort its nodes where needed, and infer types and shapes, all in place.

    Args:
        read: the model, which afterwards belongs to the result.
        operators: says whether a provider or operator package knows (domain, op_type, version), for operators
            that neither the standard nor the model defines.

    Raises:
        InvalidModelError: a rule of the standard is broken.
        UnknownOperatorError: nobody defines an operator.
        UnsupportedOpsetError: an operator set is newer than known.
        UnsafeModelError: functions call one another without end, in effect.
    """
    try:
        warnings = [*read.warnings, *_Checker(read, operators or (lambda *_: False)).run()]
    except EpkitError as error:
        raise error.at(stage="check", model=read.name) from error.__cause__
    return CheckedModel(read.model, read.name, read.path, tuple(warnings), read.overridable)


class _Checker:
    def __init__(self, read: ReadModel, operators: Operators) -> None:
        self.read = read
        self.model = read.model
        self.operators = operators
        self.warnings: list[str] = []

    def run(self) -> list[str]:
        self._inputs_have_types()
        check_functions(self.model, self.read.limits)
        owners: list[ir.Graph | ir.Function] = [self.model.graph, *self.model.functions.values()]
        unsorted = [owner for owner in owners if sort_graphs(owner)]
        if unsorted:
            self.warnings.append("nodes were not in topological order: sorted")
        nodes = {owner: all_nodes(owner) for owner in owners}
        for owner, own in nodes.items():
            self._opsets(owner, own)
            self._nodes(own, owner.opset_imports)
        skeleton = None if unsorted else self.read.skeleton
        self.warnings += infer.infer(self.model) if skeleton is None else infer.merge(self.model, skeleton)
        self._types(nodes[self.model.graph])
        return self.warnings

    def _inputs_have_types(self) -> None:
        for value in self.model.graph.inputs:
            if value.type is None:
                raise InvalidModelError(
                    f"The graph input {value.name!r} has no type.",
                    where=Where(value=value.name or ""),
                    remedy="export the model anew, or set the type of the input",
                )

    def _opsets(self, owner: ir.Graph | ir.Function, nodes: list[ir.Node]) -> None:
        used = {node.domain for node in nodes}
        for domain, version in owner.opset_imports.items():
            newest = newest_versions().get(domain)
            if newest is None or 0 < version <= newest:
                continue
            said = f"The model imports version {version} of the operator set {domain or 'ai.onnx'!r}"
            if version < 1:
                raise InvalidModelError(f"{said}; versions begin at 1.", remedy="export the model anew")
            if domain in used or domain == "":
                raise UnsupportedOpsetError(
                    f"{said}; the newest known here is {newest}.",
                    remedy="pip install -U onnx, or export for an older version",
                )
            self.warnings.append(f"{said[0].lower()}{said[1:]}, newer than known, but no node uses it")

    def _nodes(self, nodes: list[ir.Node], imports: dict[str, int]) -> None:
        """Check each node by itself: its operator, counts and attributes."""
        functions = self.model.functions
        sound: set[tuple[object, ...]] = (
            set()
        )  # looks of which the rules are kept: most nodes look like others
        for node in nodes:
            function = functions.get(node.op_identifier()) if functions else None
            if function is not None:
                check_call(node, function)
            elif (look := _look(node)) not in sound:
                self._node(node, imports)
                if node.op_type != "Constant":
                    sound.add(look)
            elif node.attributes.data and node.domain == "":
                refuse_hazards(node)

    def _node(self, node: ir.Node, imports: dict[str, int]) -> None:
        version = self._version(node, imports)
        rules = signature(node.domain, node.op_type, version)
        if rules is not None:
            check_shape_of_node(node, rules, version)
        elif not self.operators(node.domain, node.op_type, version):
            raise _unknown(node, version)

    def _version(self, node: ir.Node, imports: dict[str, int]) -> int:
        """The opset version that the node is written against; 1 for a domain of unknown versions."""
        if node.version is not None:
            return node.version
        if node.domain in imports:
            return imports[node.domain]
        if node.domain in newest_versions():
            raise InvalidModelError(
                f"Node {node.name!r} ({node.op_type}) is of the operator set {node.domain or 'ai.onnx'!r}, "
                "which is not imported.",
                where=Where(node=node.name or ""),
                remedy="add it to opset_import with the version that the model was written against",
            )
        return 1

    def _types(self, nodes: list[ir.Node]) -> None:
        """Check the types of the main graph's values, those in bodies too, against each node."""
        functions = self.model.functions
        sound: set[tuple[object, ...]] = set()
        for node in nodes:
            if functions and node.op_identifier() in functions:
                continue
            kinds = (*map(_kind, node.inputs), None, *map(_kind, node.outputs))
            look = node.domain, node.op_type, node.version, kinds
            if look in sound:
                continue
            rules = signature(node.domain, node.op_type, self._version(node, self.model.graph.opset_imports))
            if rules is not None:
                check_types(node, rules)
            sound.add(look)


def _look(node: ir.Node) -> tuple[object, ...]:
    """What the rules for one node look at, but for types and the values of attributes."""
    inputs, attributes = node.inputs, node.attributes.data
    given = len(inputs) if None not in inputs else tuple([value is None for value in inputs])
    made = tuple([not value.name for value in node.outputs])
    kinds = tuple([(name, attribute.type) for name, attribute in attributes.items()]) if attributes else ()
    return node.domain, node.op_type, node.version, given, made, kinds


def _kind(value: ir.Value | None) -> object:
    """The type of a value, short and quickly told from others; None where there is no value or no type."""
    kind = None if value is None or not value.name else value.type
    return kind.dtype if type(kind) is ir.TensorType else kind


def _unknown(node: ir.Node, version: int) -> UnknownOperatorError:
    standard = node.domain in newest_versions()
    domain = node.domain or "ai.onnx"
    said = f"Node {node.name!r} needs the operator {domain}::{node.op_type}, "
    if standard:
        said += f"which version {version} of {domain} does not have. "
        said += hint(node.domain, node.op_type, version)
    else:
        said += "which neither the standard nor a function of the model defines."
    source = (
        f"correct its name, or import the version of {domain} that has it"
        if standard
        else f"install the package that brings it (a provider plugin or operator package for {domain!r})"
    )
    return UnknownOperatorError(
        said.strip(),
        where=Where(node=node.name or ""),
        remedy=f"{source}, or say with operators= that you have it",
    )
