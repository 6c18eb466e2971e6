"""``epkit bench``: times providers against each other and a peer, in alternating runs of one process."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import OptionError
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
    from .. import Session

PEERS = ("onnxruntime",)

Feeds = dict[str, Any]
Outputs = dict[str, Any]


@dataclass
class Contender:
    """One configuration: how it is called, and what was measured."""

    name: str
    call: Callable[[Feeds], Outputs]
    load_seconds: float
    first_seconds: float = 0.0
    seconds: list[float] = field(default_factory=list)
    difference: float | None = None
    """Largest difference of its outputs from the first contender's, relative to the size of the values."""

    @property
    def median(self) -> float:
        """The median of the warm runs."""
        return statistics.median(self.seconds)


def bench(
    model: Model,
    provider: Providers = None,
    fallback: Fallback = FALLBACK,
    optimise: Optimise = OPTIMISE,
    fix: Fix = None,
    dim: Dim = None,
    seed: Seed = 0,
    runs: Annotated[int, typer.Option(min=1, help="timed runs of each")] = 20,
    against: Annotated[
        str | None, typer.Option(metavar="PEER", help="onnxruntime, where it is installed")
    ] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Compare providers: each --provider is one configuration, the fallback behind it."""
    from ._inputs import cases

    with ExitStack() as stack:
        contenders = []
        for name in provider or [fallback]:
            settings = make_settings([name], fallback, optimise, fix)
            session, contender = _ours(model, name, settings)
            stack.enter_context(session)
            contenders.append(contender)
        if against is not None:
            contenders.append(_peer(model, against))
        feeds = cases(session, sizes=parse_sizes(dim, "--dim"), seed=seed)[0].feeds
        measure(contenders, feeds, runs)
    if as_json:
        _render.emit(
            {
                "model": model.name,
                "runs": runs,
                "configurations": [_facts(c, contenders[0]) for c in contenders],
            }
        )
    else:
        _as_text(model.name, runs, contenders)


def _ours(model: Path, name: str, settings: Any) -> tuple[Session, Contender]:
    from ._load import open_session

    start = time.perf_counter()
    session = open_session(model, settings)
    return session, Contender(name, lambda feeds: session.run(None, feeds), time.perf_counter() - start)


def _peer(model: Path, name: str) -> Contender:
    """A runtime to compare with.

    Raises:
        OptionError: if it is unknown or not installed.
    """
    if name not in PEERS:
        raise OptionError(f"there is no peer {name!r}", remedy=f"the peers are {', '.join(PEERS)}")
    try:
        import onnxruntime
    except ImportError:
        raise OptionError(f"{name} is not installed", remedy=f"pip install {name}") from None
    start = time.perf_counter()
    try:
        session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    except Exception as error:
        raise OptionError(f"{name} cannot load {model}: {error}", remedy="leave --against out") from None
    names = [info.name for info in session.get_outputs()]

    def call(feeds: Feeds) -> Outputs:
        return dict(zip(names, session.run(names, feeds), strict=True))

    return Contender(f"{name} {onnxruntime.__version__}", call, time.perf_counter() - start)


def measure(contenders: list[Contender], feeds: Feeds, runs: int) -> None:
    """One first run of each, then the timed ones in turn, so that all meet the same weather."""
    with _render.progress() as bar:
        task = bar.add_task("timing", total=runs + 1)
        expected: Outputs = {}
        for contender in contenders:
            contender.first_seconds, outputs = _timed(contender, feeds)
            expected = expected or outputs
            contender.difference = _difference(outputs, expected)
        bar.advance(task)
        for _ in range(runs):
            for contender in contenders:
                contender.seconds.append(_timed(contender, feeds)[0])
            bar.advance(task)


def _timed(contender: Contender, feeds: Feeds) -> tuple[float, Outputs]:
    start = time.perf_counter()
    outputs = contender.call(feeds)
    return time.perf_counter() - start, outputs


def _difference(outputs: Outputs, expected: Outputs) -> float | None:
    """None where outputs cannot be subtracted: text, lists, maps, other shapes."""
    import numpy as np

    worst = 0.0
    for name, wanted in expected.items():
        found = outputs[name]
        if not isinstance(wanted, np.ndarray) or wanted.dtype.kind == "O" or found.shape != wanted.shape:
            return None
        if wanted.size:
            wide, other = wanted.astype(np.complex128), found.astype(np.complex128)
            scale = float(np.abs(wide).max()) or 1.0
            worst = max(worst, float(np.abs(wide - other).max()) / scale)
    return worst


def _facts(contender: Contender, first: Contender) -> dict[str, Any]:
    return {
        "name": contender.name,
        "load_seconds": contender.load_seconds,
        "first_seconds": contender.first_seconds,
        "median_seconds": contender.median,
        "min_seconds": min(contender.seconds),
        "ratio": contender.median / first.median,
        "difference": contender.difference,
        "seconds": contender.seconds,
    }


def _as_text(model: str, runs: int, contenders: list[Contender]) -> None:
    _render.line(f"{model}: {runs} runs of each in turn; ratios are of medians, to {contenders[0].name}")
    rows: list[list[_render.Cell]] = []
    for contender in contenders:
        times = (contender.load_seconds, contender.first_seconds, contender.median, min(contender.seconds))
        differs = "?" if contender.difference is None else f"{contender.difference:.1g}"
        ratio = f"{contender.median / contenders[0].median:.2f}x"
        rows.append([contender.name, *map(_render.milliseconds, times), ratio, differs])
    _render.line()
    _render.table(["configuration", ">load", ">first run", ">median", ">least", ">ratio", ">differs"], rows)
