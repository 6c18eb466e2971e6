"""``epkit compile``: fills a cache, so that later loads begin with the optimised model and compiled programs."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

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


def compile_model(
    model: Model,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FOLDER", help="the cache; give it to run --cache")
    ],
    provider: Providers = None,
    fallback: Fallback = FALLBACK,
    optimise: Optimise = OPTIMISE,
    fix: Fix = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Optimise and compile a model into a cache folder, and say what a load takes with it."""
    from dataclasses import replace

    from ._load import open_session

    settings = replace(make_settings(provider, fallback, optimise, fix), cache=output)
    seconds = []
    for _ in range(2):
        start = time.perf_counter()
        open_session(model, settings).close()
        seconds.append(time.perf_counter() - start)
    files = [path for path in output.iterdir() if path.is_file()]
    size = sum(path.stat().st_size for path in files)
    if as_json:
        _render.emit({"folder": str(output), "files": len(files), "bytes": size, "load_seconds": seconds[1]})
        return
    first, second = map(_render.milliseconds, seconds)
    _render.line(f"{output}: {len(files)} files, {_render.memory(size)}; load {first} before, {second} now")
    _render.note(f"use it: epkit run {model} --cache {output}, or epkit.load(..., cache={str(output)!r})")
