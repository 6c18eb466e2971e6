"""Random instances of a rule's own formula: a model, and inputs for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnx.defs
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from epkit.optimize.formula import Assigned, Call, Choice, Literal, Name, Remembered, Result, Term, parse
from epkit.optimize.fuse import Fusion

Draw = Callable[[st.SearchStrategy[Any]], Any]
MICROSOFT = "com.microsoft"


@dataclass
class Given:
    """What the names of a formula stand for.

    Attributes:
        inputs: arrays that come from outside.
        constants: arrays that are known; also what scalar() and array() stand for.
        attributes: what named attributes are.
        dims: names of the dimensions of inputs, where they shall be symbolic.
        opset: of the default domain.
        never_alone: names that are not to be chosen where something around them can be.
        without: operators that are not to be chosen.
        pattern: which of the rule's patterns; by default any.
    """

    inputs: Mapping[str, Any]
    constants: Mapping[str, Any] = field(default_factory=dict)
    attributes: Mapping[str, Any] = field(default_factory=dict)
    dims: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    opset: int = 24
    pattern: int | None = None
    never_alone: tuple[str, ...] = ()
    without: tuple[str, ...] = ()


@dataclass
class Instance:
    model: onnx.ModelProto
    feeds: dict[str, np.ndarray[Any, Any]]


def instance(rule: Fusion, draw: Draw, given: Given) -> Instance:
    """The formula of one of the rule's patterns, one of its choices at each place."""
    pattern = draw(st.sampled_from(rule.patterns)) if given.pattern is None else rule.patterns[given.pattern]
    writer = _Writer(draw, given)
    terms = parse(pattern.formula)
    made = [name for name in pattern.outputs if name in terms]
    results = [writer.value(terms[name]) for name in made[:1]]
    results += [writer.named[name] for name in made[1:] if name in writer.named and draw(st.booleans())]
    return writer.finish(results)


class _Writer:
    def __init__(self, draw: Draw, given: Given) -> None:
        self.draw, self.given = draw, given
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, onnx.TensorProto] = {}
        self.feeds: dict[str, np.ndarray[Any, Any]] = {}
        self.named: dict[str, str] = {}
        self.calls: dict[Call, list[str]] = {}

    def value(self, term: Term) -> str:
        """The name of the value that a term stands for."""
        if term is None:
            return ""
        if isinstance(term, Assigned):
            if term.name not in self.named:
                self.named[term.name] = self.value(term.term)
            return self.named[term.name]
        if isinstance(term, Choice):
            alone = [t for t in term.terms if isinstance(t, Name) and t.name in self.given.never_alone]
            return self.value(
                self.draw(st.sampled_from([t for t in term.terms if t not in alone and self.fits(t)]))
            )
        if isinstance(term, Result):
            return self.call(term.call, term.index)
        if isinstance(term, Literal):
            dtype = np.int64 if term.value.dtype.kind == "i" and term.value.ndim else np.float32
            return self.constant(f"c{len(self.constants)}", term.value.astype(dtype))
        if isinstance(term, Remembered):
            return self.constant(term.name, np.asarray(self.given.constants[term.name]))
        return self.leaf(term.name)

    def leaf(self, name: str) -> str:
        if name in self.given.constants:
            return self.constant(name, np.asarray(self.given.constants[name]))
        self.feeds[name] = np.asarray(self.given.inputs[name])
        return name

    def constant(self, name: str, array: np.ndarray[Any, Any]) -> str:
        self.constants[name] = numpy_helper.from_array(array, name)
        return name

    def call(self, call: Call, index: int) -> str:
        if call not in self.calls:
            inputs = [self.value(each) for each in call.inputs]
            names = [f"v{len(self.nodes)}_{i}" for i in range(self.outputs_of(call))]
            attributes = {key: self.attribute(value) for key, value in call.attributes.items()}
            kept = {key: value for key, value in attributes.items() if value is not None}
            node = helper.make_node(
                call.op_type, inputs, names, f"n{len(self.nodes)}", domain=call.domain, **kept
            )
            self.nodes.append(node)
            self.calls[call] = names
        return self.calls[call][index]

    def outputs_of(self, call: Call) -> int:
        return {"Split": 2, "DynamicQuantizeLinear": 3}.get(
            call.op_type, 3 if len(call.inputs) > 4 and call.op_type == "Attention" else 1
        )

    def attribute(self, value: Any) -> Any:
        return self.given.attributes.get(value.name) if isinstance(value, Name) else value

    def fits(self, term: Term) -> bool:
        """Whether the calls of a term are valid under the opset, and all their names given."""
        if isinstance(term, Assigned):
            return self.fits(term.term)
        if isinstance(term, Choice):
            return any(map(self.fits, term.terms))
        if isinstance(term, Name):
            return term.name in self.given.inputs or term.name in self.given.constants
        if isinstance(term, Remembered):
            return term.name in self.given.constants
        if not isinstance(term, Result):
            return True
        call = term.call
        if call.op_type in self.given.without:
            return False
        if call.domain == "" and onnx.defs.has(call.op_type, self.given.opset, ""):
            schema = onnx.defs.get_schema(call.op_type, self.given.opset, "")
            if not set(call.attributes) <= set(schema.attributes) or len(call.inputs) > schema.max_input:
                return False
        missing = any(
            isinstance(v, Name) and v.name not in self.given.attributes
            for v in call.attributes.values()
            if v is not None
        )
        needed = call.op_type in ("Clip",)
        return not (missing and needed) and all(map(self.fits, call.inputs))

    def finish(self, results: list[str]) -> Instance:
        inputs = [
            helper.make_tensor_value_info(
                name, helper.np_dtype_to_tensor_dtype(array.dtype), self.given.dims.get(name, array.shape)
            )
            for name, array in self.feeds.items()
        ]
        outputs = [helper.make_empty_tensor_value_info(name) for name in dict.fromkeys(results)]
        graph = helper.make_graph(self.nodes, "g", inputs, outputs, list(self.constants.values()))
        opsets = [helper.make_opsetid("", self.given.opset), helper.make_opsetid(MICROSOFT, 1)]
        return Instance(helper.make_model(graph, opset_imports=opsets, ir_version=10), self.feeds)
