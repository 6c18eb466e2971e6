"""What the user can do so that more of a model runs on the providers that he named."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import onnx_ir as ir

from ..backend.claim import Refusal
from ..backend.subgraph import element_type, operator_name
from .partitions import Partitioned
from .policy import DEARER


@dataclass(frozen=True)
class Advice:
    """One thing to do: what, how many nodes of which provider it concerns."""

    provider: str
    nodes: int
    text: str


def advise(partitioned: Partitioned) -> tuple[Advice, ...]:
    """Advice on refusals that the user can do something about, most nodes first."""
    named = {bound.name for bound in partitioned.bounds if not bound.fallback}
    inputs = {
        str(dim)
        for value in partitioned.model.graph.inputs
        for dim in value.shape or ()
        if not isinstance(dim, int)
    }
    found: Counter[tuple[str, str]] = Counter()
    missing: dict[str, Counter[str]] = {}
    typed: dict[tuple[str, str], Counter[str]] = {}
    for node, refusals in partitioned.refusals.items():
        for provider, refusal in refusals:
            if provider not in named:
                continue
            if refusal.code == "no-kernel":
                missing.setdefault(provider, Counter())[operator_name(node)] += 1
            elif refusal.code == "dtype":
                typed.setdefault((provider, _types(node)), Counter())[operator_name(node)] += 1
            else:
                found.update((provider, text) for text in _texts(node, refusal, inputs))
    rows = [Advice(provider, count, text) for (provider, text), count in found.items()]
    rows += [
        Advice(provider, operators.total(), _kernels(operators)) for provider, operators in missing.items()
    ]
    rows += [
        Advice(
            provider,
            operators.total(),
            f"convert the model to a type that {provider} takes: {_listed(operators)} in {types}",
        )
        for (provider, types), operators in typed.items()
    ]
    return tuple(sorted(rows, key=lambda item: (-item.nodes, item.provider, item.text)))


def _kernels(operators: Counter[str]) -> str:
    return f"write kernels for {_listed(operators)}, or ask the provider's maker for them"


def _listed(operators: Counter[str]) -> str:
    listed = ", ".join(f"{name} ({count})" for name, count in operators.most_common(8))
    return listed + (f" and {len(operators) - 8} more operators" if len(operators) > 8 else "")


def _types(node: ir.Node) -> str:
    return ", ".join(dict.fromkeys(filter(None, (element_type(value) for value in node.inputs))))


def _texts(node: ir.Node, refusal: Refusal, inputs: set[str]) -> Iterator[str]:
    if refusal.code == "dynamic-shape":
        free = _symbolic(node) & inputs
        if free:
            yield "give sizes to symbolic dimensions: " + " ".join(f"--fix {dim}=N" for dim in sorted(free))
        else:
            yield "its shapes are known only at run time; fix the sizes of the model's inputs where you can"
    elif refusal.code == "opset":
        yield f"convert the model to another opset (onnx.version_converter) for {operator_name(node)}"
    elif refusal.code == "pinned":
        yield "the placement that you gave pins these nodes elsewhere"
    elif refusal.code == "cost" and refusal.reason == DEARER:
        yield "elsewhere is cheaper; --policy priority takes them all the same"


def _symbolic(node: ir.Node) -> set[str]:
    values = (value for value in (*node.inputs, *node.outputs) if value is not None)
    return {str(dim) for value in values for dim in value.shape or () if not isinstance(dim, int)}
