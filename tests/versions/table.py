"""``python -m tests.versions.table`` writes docs/operators.md: every operator version, how it runs, who vouches for it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import onnx
from onnx.defs import OpSchema

from epkit.backend import Kernel
from epkit.dtypes import BY_SPELLING
from epkit.kernels import table as portable
from epkit_cpu.provider import CpuProvider

from . import families as families
from .case import all_schemas, cases_of, is_removed, label
from .run import check

PAGE = Path(__file__).resolve().parents[2] / "docs" / "operators.md"
RUNTIME = ("If", "Loop", "Scan")
REFUSED = "refused: removed from the standard"


def how(schema: OpSchema) -> str:
    """How the CPU provider runs nodes of this version; the first that applies of several."""
    if is_removed(schema):
        return REFUSED
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


def _takes(kernel: Kernel, schema: OpSchema) -> bool:
    same = (kernel.domain, kernel.op_type) == (schema.domain, schema.name)
    return same and kernel.since <= schema.since_version <= (kernel.until or schema.since_version)


def types(schema: OpSchema) -> str:
    """The element types of the schema's type variables, by our names; other kinds of value in italics."""
    spelled = {kind for variable in schema.type_constraints for kind in variable.allowed_type_strs}
    tensors = {kind[7:-1] for kind in spelled if kind.startswith("tensor(")}
    kinds = sorted({kind.split("(")[0] for kind in spelled} - {"tensor"})
    return ", ".join([*sorted(BY_SPELLING[kind] for kind in tensors), *(f"*{kind}*" for kind in kinds)])


def oracles(schema: OpSchema) -> str:
    """Run the cases of a schema; who judged them, in the order of the cases.

    Raises:
        AssertionError: if a result is wrong, or nobody knows it.
    """
    found = [check(case, schema) for case in cases_of(schema)]
    assert all(found), "no oracle knows the result"
    return "; ".join(dict.fromkeys(found))


def recorded() -> dict[str, str]:
    """From the page: operator version -> oracles."""
    found, domain = {}, ""
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            domain = line[3:].replace("ai.onnx", "", line == "## ai.onnx")
        cells = [cell.strip() for cell in line.split("|")[1:-1]]
        if len(cells) == 5 and cells[1].isdecimal():
            found[f"{domain}.{cells[0]}-{cells[1]}".lstrip(".")] = cells[4]
    return found


def page(judges: Mapping[str, str]) -> str:
    """The whole page, given who judged each operator version."""
    rows = [(schema, how(schema), judges.get(label(schema), "")) for schema in all_schemas()]
    answered = sum(bool(judge) or way == REFUSED for _, way, judge in rows)
    lines = [
        "# Operators",
        "",
        f"Every operator of the standard (onnx {onnx.__version__}) in every version: {answered} of {len(rows)} "
        "schemas run on the CPU provider (or are refused, where they were removed) and agree with an oracle. "
        "Written by `python -m tests.versions.table`; `tests/versions` keeps it true, and tries every input and every "
        "choice of result in all the element types that are listed (where a type has no meaning, such as text in "
        "Col2Im, or an integer in Gradient, the node is refused).",
        "",
        *_counted("how the CPU provider runs it", Counter(way for _, way, _ in rows)),
        *_counted("judged (first) by", Counter(judge.split("; ")[0] for _, _, judge in rows if judge)),
    ]
    for domain in sorted({schema.domain for schema, _, _ in rows}):
        lines += [f"## {domain or 'ai.onnx'}", ""]
        lines += ["| operator | since | how | element types | judged by |", "|---|---|---|---|---|"]
        lines += [
            f"| {schema.name} | {schema.since_version} | {way} | {types(schema)} | {judge} |"
            for schema, way, judge in rows
            if schema.domain == domain
        ]
        lines.append("")
    return "\n".join(lines)


def _counted(title: str, counts: Counter[str]) -> list[str]:
    return [f"| {title} | schemas |", "|---|---|", *(f"| {k} | {n} |" for k, n in counts.most_common()), ""]


def removed_model(schema: OpSchema) -> onnx.ModelProto:
    """A model with one node of an operator that was removed."""
    count = max(schema.min_input, 1)
    inputs = [f"x{index}" for index in range(count)]
    infos = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 1]) for name in inputs]
    node = onnx.helper.make_node(schema.name, inputs, ["y"], "the_node", domain=schema.domain)
    graph = onnx.helper.make_graph([node], "g", infos, [onnx.helper.make_empty_tensor_value_info("y")])
    opset = onnx.helper.make_opsetid(schema.domain, schema.since_version)
    return onnx.helper.make_model(graph, opset_imports=[opset], ir_version=8)


if __name__ == "__main__":
    judged = {label(schema): oracles(schema) for schema in all_schemas() if not is_removed(schema)}
    PAGE.write_text(page(judged), encoding="utf-8")
