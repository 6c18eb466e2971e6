"""``epkit inspect``: what a model is, or what it has become after a stage of the pipeline."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import EpkitError
from . import _render
from ._options import (
    FALLBACK,
    OPTIMISE,
    Debug,
    Fallback,
    Fix,
    Json,
    Model,
    Optimise,
    Providers,
    make_settings,
)

if TYPE_CHECKING:
    from ..model.check import CheckedModel
    from ..model.read import ReadModel
    from ..settings import Settings


def inspect(
    model: Model,
    after: Annotated[
        str | None,
        typer.Option(metavar="STAGE", help="read, check, optimise, claim, partition, plan or compile"),
    ] = None,
    provider: Providers = None,
    fallback: Fallback = FALLBACK,
    optimise: Optimise = OPTIMISE,
    fix: Fix = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Show what a model is made of, or what it has become after a stage."""
    settings = make_settings(provider, fallback, optimise, fix)
    if after is not None:
        _stage(model, settings, after, as_json)
        return
    told, problem = summarise(model, settings)
    if as_json:
        _render.emit(told)
    else:
        _as_text(told)
    if problem is not None:
        _render.failure(problem, as_json=False)
        raise typer.Exit(1)


def _stage(model: Path, settings: Settings, stage: str, as_json: bool) -> None:
    from ..pipeline import STAGES
    from ._load import stop_after

    if stage not in STAGES:
        raise typer.BadParameter(
            f"{stage!r} is no stage; the stages are {', '.join(STAGES)}", param_hint="--after"
        )
    text = str(stop_after(model, settings, stage))
    if as_json:
        _render.emit({"model": model.name, "stage": stage, "text": text})
    else:
        _render.verbatim(text)


def summarise(model: Path, settings: Settings) -> tuple[dict[str, Any], EpkitError | None]:
    """What the file says; and what is wrong with it, if it can be read but breaks a rule.

    Raises:
        EpkitError: if it cannot be read.
    """
    from ._load import watch

    told: dict[str, Any] = {}
    try:
        for name, value in watch(model, settings):
            if name == "read":
                told = _facts(value)  # type: ignore[arg-type]
            if name == "check":
                told.update(_facts(value))  # type: ignore[arg-type]
                break
    except EpkitError as error:
        if not told:
            raise
        return {**told, "problem": error.what}, error
    return {**told, "problem": None}, None


def _facts(value: ReadModel | CheckedModel) -> dict[str, Any]:
    model = value.model
    graph = model.graph
    nodes = [
        *graph.all_nodes(),
        *(node for function in model.functions.values() for node in function.all_nodes()),
    ]
    weights = [item.const_value for item in graph.initializers.values() if item.const_value is not None]
    return {
        "model": value.name,
        "ir_version": model.ir_version,
        "opsets": {domain or "ai.onnx": version for domain, version in graph.opset_imports.items()},
        "producer": " ".join(filter(None, (model.producer_name, model.producer_version))),
        "inputs": [_interface(item) for item in graph.inputs],
        "outputs": [_interface(item) for item in graph.outputs],
        "nodes": len(nodes),
        "operators": dict(Counter(_operator(node) for node in nodes).most_common()),
        "functions": [f"{function.domain}.{function.name}" for function in model.functions.values()],
        "weights": len(weights),
        "weight_bytes": sum(tensor.nbytes for tensor in weights if tensor.dtype.name != "STRING"),
        "metadata": dict(model.metadata_props),
        "warnings": list(value.warnings),
    }


def _interface(value: Any) -> dict[str, Any]:
    from ..runtime.feeds import value_info

    info = value_info(value)
    return {"name": info.name, "type": info.type, "shape": info.shape}


def _operator(node: Any) -> str:
    return f"{node.domain}.{node.op_type}" if node.domain else str(node.op_type)


def _as_text(told: dict[str, Any]) -> None:
    opsets = ", ".join(f"{domain} {version}" for domain, version in told["opsets"].items())
    made_by = f", made by {told['producer']}" if told["producer"] else ""
    _render.line(told["model"], "bold")
    _render.line(f"IR version {told['ir_version']}, opsets {opsets}{made_by}")
    size = _render.memory(told["weight_bytes"])
    _render.line(
        f"{told['nodes']:,} nodes, {told['weights']:,} weights of {size}, {len(told['functions'])} functions"
    )
    for kind in ("inputs", "outputs"):
        rows = [[item["name"], item["type"], _shape(item["shape"])] for item in told[kind]]
        _render.line()
        _render.table([kind, "type", "shape"], rows)
    _render.line()
    _render.table(["operator", ">nodes"], list(told["operators"].items()))
    for kind in ("functions", "warnings"):
        if told[kind]:
            _render.heading(kind)
            for text in told[kind]:
                _render.line(f"  {text}")
    if told["metadata"]:
        _render.heading("metadata")
        _render.table(["key", "value"], [[key, value[:200]] for key, value in told["metadata"].items()])


def _shape(shape: tuple[int | str | None, ...] | None) -> str:
    return "?" if shape is None else "[" + ", ".join("?" if dim is None else str(dim) for dim in shape) + "]"
