"""``epkit verify`` and ``epkit bisect``: where does a provider differ from the fallback?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from . import _render
from ._options import (
    FALLBACK,
    OPTIMISE,
    Debug,
    Dim,
    Fallback,
    Fix,
    Json,
    Model,
    Optimise,
    Providers,
    Seed,
    make_settings,
    parse_sizes,
)

if TYPE_CHECKING:
    from ..diagnose.verify import Verification
    from ..settings import Settings

Given = Annotated[
    list[str] | None,
    typer.Option("--input", "-i", metavar="[NAME=]FILE", help="an input: .npy, .npz or .pb; repeat"),
]
Data = Annotated[Path | None, typer.Option(metavar="FOLDER", help="ONNX test data: test_data_set_0")]
Rtol = Annotated[
    float | None,
    typer.Option(help="tolerated difference, relative to the largest magnitude of each tensor"),
]


def verify(
    model: Model,
    provider: Providers = None,
    fallback: Fallback = FALLBACK,
    optimise: Optimise = OPTIMISE,
    fix: Fix = None,
    given: Given = None,
    data: Data = None,
    dim: Dim = None,
    seed: Seed = 0,
    rtol: Rtol = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Compare every value of a model between its providers and the fallback."""
    from ..diagnose.verify import verify as compare

    settings = make_settings(provider, fallback, optimise, fix)
    feeds = _feeds(model, settings, given, data, dim, seed)
    found = compare(model, settings, feeds, rtol=rtol)
    _render.emit(_as_json(found)) if as_json else _show(found)
    if not found.passed:
        raise typer.Exit(1)


def bisect(
    model: Model,
    provider: Providers = None,
    fallback: Fallback = FALLBACK,
    optimise: Optimise = OPTIMISE,
    fix: Fix = None,
    given: Given = None,
    data: Data = None,
    dim: Dim = None,
    seed: Seed = 0,
    rtol: Rtol = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FOLDER", help="where the smallest failing model goes")
    ] = Path("bisected"),
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Find the smallest part of a model that a provider gets wrong, and write it with its inputs and outputs."""
    from ..diagnose.bisect import bisect as search
    from ..diagnose.verify import Verification

    settings = make_settings(provider, fallback, optimise, fix)
    feeds = _feeds(model, settings, given, data, dim, seed)
    with _render.progress() as bar:
        task = bar.add_task("comparing every value", total=None)
        found = search(
            model, settings, feeds, rtol=rtol, tell=lambda text: bar.update(task, description=text)
        )
    failure = found.failure
    path = None if failure is None else failure.write(output)
    whole = found.verification
    if as_json:
        told = {"nodes": failure.nodes, "trials": failure.trials, "model": str(path)} if failure else None
        general = (
            _as_json(whole) if isinstance(whole, Verification) else {"passed": False, "error": str(whole)}
        )
        _render.emit({**general, "smallest": told})
    else:
        _show(whole) if isinstance(whole, Verification) else _render.failure(whole, as_json=False)
        _render.line()
        if failure is None:
            _render.line("no part of the model fails when it runs alone", "green")
        else:
            _render.line(str(failure), "red")
            _render.note(f"repeat it: epkit run {path} --data {output} --provider {failure.provider}")
    if failure is not None or not (isinstance(whole, Verification) and whole.passed):
        raise typer.Exit(1)


def _feeds(
    model: Path,
    settings: Settings,
    given: list[str] | None,
    data: Path | None,
    dim: list[str] | None,
    seed: int,
) -> dict[str, Any]:
    from ._inputs import cases
    from ._load import open_session

    with open_session(model, settings) as session:
        return cases(session, given or (), data, parse_sizes(dim, "--dim"), seed)[0].feeds


def _show(found: Verification) -> None:
    wrong = [check for check in found.nodes if not check.agrees]
    _render.line(f"{found.model}: {len(found.nodes)} nodes compared, {len(wrong)} differ")
    rows: list[list[_render.Cell]] = [
        [name, Text("FAIL", "bold red") if name in found.failed else Text("pass", "green"), str(apart)]
        for name, apart in found.outputs.items()
    ]
    _render.line()
    _render.table(["output", "", "largest difference"], rows)
    if wrong:
        _render.heading("nodes that differ")
        _render.table(
            ["node", "operator", "on", "largest difference", ""],
            [
                [c.node, c.operator, c.provider, str(c.difference), "begins here" if c.caused_here else ""]
                for c in wrong[:20]
            ],
        )
        if len(wrong) > 20:
            _render.line(f"and {len(wrong) - 20} more")
    elif found.failed:
        _render.line()
        _render.line("No node differs while it is observed: the fault lies in how nodes are combined.")


def _as_json(found: Verification) -> dict[str, Any]:
    return {
        "model": found.model,
        "passed": found.passed,
        "first": None if found.first is None else found.first.node,
        "outputs": [
            {
                "name": name,
                "absolute": apart.absolute,
                "relative": apart.relative,
                "problem": apart.problem,
                "passed": name not in found.failed,
            }
            for name, apart in found.outputs.items()
        ],
        "nodes": [
            {
                "node": check.node,
                "operator": check.operator,
                "provider": check.provider,
                "absolute": check.difference.absolute,
                "relative": check.difference.relative,
                "problem": check.difference.problem,
                "agrees": check.agrees,
                "caused_here": check.caused_here,
            }
            for check in found.nodes
        ],
    }
