"""Kernels as declarations, and the provider that is nothing but a list of them.

    @kernel("Relu", since=6, types={"T": FLOATS})
    def relu(x):
        return np.maximum(x, 0)

A kernel function takes the ONNX inputs by position (None where an optional one is absent) and the ONNX
attributes as keyword-only parameters. Keyword-only parameters of these names are filled by the caller:
``node`` (onnx_ir), ``opset`` (int), ``n_outputs`` (int), ``context`` (RunContext), ``out`` (tuple of
output tensors, for kernels with ``shapes``).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from .claim import Refusal
from .subgraph import Subgraph, element_type, operator_name

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir

Predicate = Callable[["ir.Node"], bool | str]
"""Says whether a kernel takes a node: True, or False, or (better) the reason why not."""

Shapes = Callable[..., Sequence[tuple[Sequence[int], "np.dtype[Any]"]]]
"""Called like the kernel (without ``out``); gives shape and dtype of each output."""

CLOSENESS = ("no-kernel", "opset", "dtype", "attribute")
"""What a kernel may lack to take a node, the most first."""

BODIES = (5, 10)
"""AttributeProto.GRAPH and GRAPHS."""

FILLED = frozenset({"node", "opset", "n_outputs", "context", "out"})


@dataclass(frozen=True)
class Kernel:
    """One kernel: which nodes it takes, and the function that runs them.

    Attributes:
        op_type, domain: the operator.
        since, until: first and last opset version (of the domain) that it is right for; ``until`` None is
            open.
        types: allowed element types by the schema's type variable, such as ``{"T": {"float32"}}``.
        when: a predicate on the node beyond types and versions.
        shapes: if given, the kernel writes into ``out`` tensors of these shapes, which the core provides.
        attributes, wants: the function's keyword parameters, told apart. None: all attributes are passed.
        joins: for a Concat with ``shapes``: its inputs may lie in ``out`` already, in their places; it copies the rest.
    """

    op_type: str
    function: Callable[..., Any]
    domain: str = ""
    since: int = 1
    until: int | None = None
    types: Mapping[str, frozenset[str]] | None = None
    when: Predicate | None = None
    shapes: Shapes | None = None
    attributes: frozenset[str] | None = frozenset()
    wants: frozenset[str] = frozenset()
    joins: bool = False

    def __call__(self, *inputs: Any, **attributes: Any) -> Any:
        """Call the function directly, as tests of a plugin do."""
        return self.function(*inputs, **attributes)


def kernel(
    op_type: str,
    *,
    since: int = 1,
    until: int | None = None,
    domain: str = "",
    types: Mapping[str, Iterable[str]] | None = None,
    when: Predicate | None = None,
    shapes: Shapes | None = None,
    joins: bool = False,
) -> Callable[[Callable[..., Any]], Kernel]:
    """Declare a function as a kernel; see :class:`Kernel` for the parameters."""

    def declare(function: Callable[..., Any]) -> Kernel:
        keywords = keyword_parameters(function)
        return Kernel(
            op_type,
            function,
            domain,
            since,
            until,
            {name: frozenset(allowed) for name, allowed in types.items()} if types else None,
            when,
            shapes,
            keywords - FILLED,
            keywords & FILLED,
            joins,
        )

    return declare


def keyword_parameters(function: Callable[..., Any]) -> frozenset[str]:
    """The names of a function's keyword-only parameters."""
    parameters = inspect.signature(function).parameters.values()
    return frozenset(p.name for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY)


class KernelTable:
    """Kernels by operator; finds the first that takes a node, or explains why none does."""

    def __init__(self, kernels: Iterable[Kernel]) -> None:
        self._kernels: dict[tuple[str, str], list[Kernel]] = {}
        for item in kernels:
            self._kernels.setdefault((item.domain, item.op_type), []).append(item)
        self._taken: dict[tuple[object, ...], Kernel] = {}
        self._always: dict[tuple[str, str, int], bool] = {}

    def __iter__(self):  # type: ignore[no-untyped-def]
        for kernels in self._kernels.values():
            yield from kernels

    def has(self, domain: str, op_type: str) -> bool:
        """True if there is a kernel for some version of the operator."""
        return (domain, op_type) in self._kernels

    def find(self, node: ir.Node, graph: Subgraph) -> Kernel | Refusal:
        """The first declared kernel that takes the node, or the refusal of the one that came closest."""
        types = (*map(_look, node.inputs), -1, *map(_look, node.outputs))
        look = (node.domain, node.op_type, graph.opset(node), types)
        if (taken := self._taken.get(look)) is not None and (taken.when is None or not _has_bodies(node)):
            return taken
        candidates = self._kernels.get((node.domain, node.op_type), ())
        refusal = Refusal(node, "no-kernel", f"no kernel for {operator_name(node)}")
        for candidate in candidates:
            problem = refuse(candidate, node, graph.opset(node))
            if problem is None:
                if all(each.when in (None, has_no_subgraph) for each in candidates) and not _has_bodies(node):
                    self._taken[look] = candidate  # and whatever else looks like this
                return candidate
            if CLOSENESS.index(problem.code) > CLOSENESS.index(refusal.code):
                refusal = problem
        return refusal

    def refusal(self, node: ir.Node, graph: Subgraph) -> Refusal | None:
        """Why no kernel takes the node; None if one does. Where any will do, this is quicker than :meth:`find`."""
        key = node.domain, node.op_type, graph.opset(node)
        if key not in self._always:
            self._always[key] = any(_takes_arrays(each, key[2]) for each in self._kernels.get(key[:2], ()))
        if self._always[key] and not _has_bodies(node):
            return None
        found = self.find(node, graph)
        return found if isinstance(found, Refusal) else None


def _takes_arrays(candidate: Kernel, opset: int) -> bool:
    """Whether a kernel takes every node of its operator that has no subgraph."""
    if opset < candidate.since or (candidate.until is not None and opset > candidate.until):
        return False
    return not candidate.types and candidate.when in (None, has_no_subgraph)


def refuse(candidate: Kernel, node: ir.Node, opset: int) -> Refusal | None:
    """Why the kernel does not take the node, or None if it does."""
    if opset < candidate.since or (candidate.until is not None and opset > candidate.until):
        span = f"{candidate.since}..{'' if candidate.until is None else candidate.until}"
        reason = f"the kernel for {operator_name(node)} is for opset {span}, the model is read under {opset}"
        return Refusal(node, "opset", reason, f"opset in {span}", str(opset))
    for variable, allowed in (candidate.types or {}).items():
        for found in types_of(node, variable, opset):
            if found not in allowed:
                wanted = f"{variable} in {', '.join(sorted(allowed))}"
                reason = (
                    f"the kernel for {operator_name(node)} needs {wanted}; found {found or 'an unknown type'}"
                )
                return Refusal(node, "dtype", reason, wanted, found)
    verdict = True if candidate.when is None else candidate.when(node)
    if verdict is not True:
        reason = (
            verdict if isinstance(verdict, str) else f"the kernel's predicate refused this {node.op_type}"
        )
        return Refusal(node, "attribute", reason)
    return None


def has_no_subgraph(node: ir.Node) -> bool | str:
    """Portable functions take arrays only; operators with subgraphs run through their function bodies."""
    names = [name for name, attribute in node.attributes.items() if attribute.type in BODIES]
    return not names or f"the portable kernel takes no subgraph, and {names[0]} is one"


def _has_bodies(node: ir.Node) -> bool:
    attributes = node.attributes.data
    return bool(attributes) and any(attribute.type in BODIES for attribute in attributes.values())


def _look(value: ir.Value | None) -> int | None:
    """The number of a value's element type, 0 if it is unknown; None where there is no value."""
    return None if value is None or not value.name else value.dtype or 0


def types_of(node: ir.Node, variable: str, opset: int) -> list[str]:
    """The element types that a node binds a type variable of its schema to; "" where unknown."""
    inputs, outputs = _formals(node.domain, node.op_type, opset)
    bound = list(zip(_spread(inputs, len(node.inputs)), node.inputs, strict=False))
    bound += list(zip(_spread(outputs, len(node.outputs)), node.outputs, strict=False))
    return [
        element_type(value) for name, value in bound if name == variable and value is not None and value.name
    ]


def _spread(names: tuple[str, ...], count: int) -> tuple[str, ...]:
    """Repeat the last formal parameter (a variadic one) up to the actual count."""
    return names + names[-1:] * (count - len(names))


@cache
def _formals(domain: str, op_type: str, opset: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Type variables of the schema's inputs and outputs; the names are empty if there is no schema."""
    import onnx.defs

    try:
        schema = onnx.defs.get_schema(op_type, opset, domain)
    except onnx.defs.SchemaError:
        return (), ()
    return tuple(p.type_str for p in schema.inputs), tuple(p.type_str for p in schema.outputs)
