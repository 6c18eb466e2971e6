"""``python -m tests.versions.table`` writes docs/operators.md: every operator version, and how the
CPU provider runs it.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import onnx
from onnx.defs import OpSchema

from epkit.dtypes import BY_SPELLING
from epkit.kernels import table as portable
from epkit_cpu.provider import CpuProvider

from .case import all_schemas, is_removed

PAGE = Path(__file__).resolve().parents[2] / "docs" / "operators.md"
RUNTIME = ("If", "Loop", "Scan")


def how(schema: OpSchema) -> str:
    """How the CPU provider runs nodes of this version; the first that applies of several."""
    if is_removed(schema):
        return "refused: removed from the standard"
    if schema.domain == "" and schema.name in RUNTIME:
        return "runtime"
    if schema.name == "Gradient":
        return "expanded into the backward graph"
    if any(kernel.shapes is not None and _takes(kernel, schema) for kernel in CpuProvider().table):
        return "kernel into given memory, else portable"
    if portable().find(schema.domain, schema.name, schema.since_version) is not None:
        return "portable"
    if schema.has_function or schema.has_context_dependent_function:
        return "function body"
    return "none"


def _takes(kernel: object, schema: OpSchema) -> bool:
    same = (kernel.domain, kernel.op_type) == (schema.domain, schema.name)  # type: ignore[attr-defined]
    return same and kernel.since <= schema.since_version  # type: ignore[attr-defined]


def types(schema: OpSchema) -> str:
    """The element types that the schema's type variables allow, by our names; other kinds of value in italics."""
    spelled = {kind for variable in schema.type_constraints for kind in variable.allowed_type_strs}
    tensors = {kind[7:-1] for kind in spelled if kind.startswith("tensor(")}
    kinds = sorted({kind.split("(")[0] for kind in spelled} - {"tensor"})
    return ", ".join(
        [*sorted(BY_SPELLING.get(kind, kind) for kind in tensors), *(f"*{kind}*" for kind in kinds)]
    )


def removed_model(schema: OpSchema) -> onnx.ModelProto:
    """A model with one node of an operator that was removed."""
    count = max(schema.min_input, 1)
    inputs = [f"x{index}" for index in range(count)]
    infos = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 1]) for name in inputs]
    node = onnx.helper.make_node(schema.name, inputs, ["y"], "the_node", domain=schema.domain)
    graph = onnx.helper.make_graph([node], "g", infos, [onnx.helper.make_empty_tensor_value_info("y")])
    opset = onnx.helper.make_opsetid(schema.domain, schema.since_version)
    return onnx.helper.make_model(graph, opset_imports=[opset], ir_version=8)


def page() -> str:
    """The whole page."""
    schemas = all_schemas()
    rows = [(schema, how(schema)) for schema in schemas]
    counts = Counter(way for _, way in rows)
    lines = [
        "# Operators",
        "",
        f"Every operator of the standard (onnx {onnx.__version__}) in every version: {len(schemas)} schemas. "
        "Written by `python -m tests.versions.table`; a test keeps it true, and `tests/versions` runs each version "
        "against an oracle. Element types are those that the schema allows.",
        "",
        "| how the CPU provider runs it | schemas |",
        "|---|---|",
        *(f"| {way} | {count} |" for way, count in counts.most_common()),
        "",
    ]
    for domain in sorted({schema.domain for schema in schemas}):
        lines += [f"## {domain or 'ai.onnx'}", "", "| operator | since | how | types |", "|---|---|---|---|"]
        lines += [
            f"| {schema.name} | {schema.since_version} | {way} | {types(schema)} |"
            for schema, way in rows
            if schema.domain == domain
        ]
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
