"""The command: ``epkit conformance fuzz NAME``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from ..cli.exits import CERTIFIED, FAILED, INTERRUPTED
from .finds import Find, replay, save
from .nodes import KINDS, operators
from .search import Progress, search


def main(arguments: Sequence[str] | None = None) -> int:
    """Search, or replay one find; returns the exit code: 0 nothing wrong, 1 finds, 130 interrupted.

    Raises:
        SystemExit: with code 2, for a wrong command line.
    """
    parser = _parser()
    given = parser.parse_args(arguments)
    unknown = sorted(set(given.only) - {operator for operator, _ in operators()})
    if unknown:
        parser.error(f"no strategy for {', '.join(unknown)}; there are: {', '.join(sorted(KINDS))}")
    if given.replay is not None:
        verdict = replay(given.replay, given.provider)
        print(f"{verdict.state.value}: {verdict.detail}" if verdict.detail else verdict.state.value)
        return FAILED if verdict.state.is_error else CERTIFIED
    try:
        progress = search(
            given.provider,
            seconds=given.seconds,
            examples=given.examples,
            start=given.seed,
            only=given.only,
            report=lambda find, progress: _report(find, progress, given.out, given.provider),
        )
    except KeyboardInterrupt:
        return INTERRUPTED
    return FAILED if progress.finds else CERTIFIED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "epkit conformance fuzz",
        description="Try operators and small graphs at random until interrupted. What is found is made small and "
        "written down: the model, its inputs, what was expected and what was found.",
    )
    parser.add_argument("provider", help="the provider under test")
    parser.add_argument("--seconds", type=float, help="stop after so long")
    parser.add_argument("--examples", type=int, help="stop after so many trials")
    parser.add_argument("--seed", type=int, default=0, help="begin elsewhere; the same seed tries the same")
    parser.add_argument("--only", nargs="+", default=(), metavar="OPERATOR", help="try these operators alone")
    parser.add_argument("--out", type=Path, default=Path("finds"), help="the folder for finds (./finds)")
    parser.add_argument("--replay", type=Path, metavar="FIND", help="try one find again, and nothing else")
    return parser


def _report(find: Find | None, progress: Progress, out: Path, provider: str) -> None:
    if find is not None:
        place = save(find, out, len(progress.finds), provider)
        print(f"\nfind {len(progress.finds)}: {find.title}: {find.verdict.detail}\n  {place}", flush=True)
        return
    counts = ", ".join(f"{count} {state.value}" for state, count in progress.trials.most_common())
    print(f"{progress.total} trials: {counts}; {len(progress.finds)} finds", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
