"""Checks the model-local functions as a whole: no circles, no explosion."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from epkit.errors import InvalidModelError
from epkit.model.limits import Limits

Key = tuple[str, str, str]  # domain, name, overload


def check_functions(model: ir.Model, limits: Limits) -> None:
    """Refuse recursive functions, and functions that call one another so often that inlining never ends.

    Raises:
        InvalidModelError: naming the circle.
        UnsafeModelError: the nodes, with all calls replaced by bodies, exceed `limits.nodes`.
    """
    if not model.functions:
        return  # its own nodes are counted where names are checked
    sizes: dict[Key, int] = {}
    for key in model.functions:
        _measure(key, model, sizes)
    total = sum(1 + sizes.get(node.op_identifier(), 0) for node in model.graph.all_nodes())
    limits.refuse_above("nodes", total, "Number of nodes with all functions inlined")


def _measure(start: Key, model: ir.Model, sizes: dict[Key, int]) -> None:
    """Fill `sizes` with the expanded number of nodes of a function and of all that it calls."""
    path: dict[Key, Iterator[Key]] = {}
    pending: list[Key] = [start]
    while pending:
        key = pending[-1]
        if key not in path and key not in sizes:
            path[key] = _calls(key, model)
        below = next(path[key], None) if key in path else None
        if below is None:
            pending.pop()
            if path.pop(key, None) is not None:
                nodes = model.functions[key].all_nodes()
                sizes[key] = sum(1 + sizes.get(node.op_identifier(), 0) for node in nodes)
        elif below in path:
            circle = list(path)
            names = [f"{domain}::{name}" for domain, name, _ in (*circle[circle.index(below) :], below)]
            raise InvalidModelError(
                f"Functions call one another in a circle: {' -> '.join(names)}.",
                remedy="ONNX functions must not be recursive: use Loop",
            )
        else:
            pending.append(below)


def _calls(key: Key, model: ir.Model) -> Iterator[Key]:
    called = {node.op_identifier(): None for node in model.functions[key].all_nodes()}
    return (each for each in called if each in model.functions)
