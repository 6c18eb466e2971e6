"""Level 3: an error in any method ends in an error that names the provider, and leaves nothing broken behind.

The error is raised in the provider's place, as its driver would: at the first call of one method in a session's
life. What follows is the provider's and the core's to clean up.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from epkit.backend import Provider
from epkit.backend.registry import default
from epkit.errors import EpkitError

from ..case import REFERENCE, Case
from ..probes import Subject, see_who_works, subjects
from ..result import Result, State
from ..watch import Watch, watched

MEMBERS = (
    *("claim", "compile", "run", "begin", "stream", "allocate", "copy_in", "copy_out"),
    *("save", "restore", "capture", "replay"),
)
LEVELS = {
    "allocate": 4,
    "copy_in": 4,
    "copy_out": 4,
    "stream": 5,
    "save": 6,
    "restore": 6,
    "capture": 7,
    "replay": 7,
}
AT_MOST = 3
RUNS = 6
"""Enough for a replay to be made and used."""


class Injected(RuntimeError):
    """What the driver would raise."""


def cases() -> Iterator[Case]:
    """One case a method; it does not apply to a provider that has not written the method."""
    for member in MEMBERS:
        yield Case(f"errors/in_{member}", LEVELS.get(member, 3), "errors", _runner(member), oracle=REFERENCE)


def _runner(member: str) -> Callable[[str], Result]:
    def run(provider: str) -> Result:
        found, refusal = subjects(provider)
        if not found:
            return Result(State.REFUSED, f"no probe was claimed whole: {refusal}")
        outcomes = {subject.probe.label: recovers(subject, member) for subject in found[:AT_MOST]}
        tried = [label for label, outcome in outcomes.items() if outcome]
        if not tried and None in outcomes.values():
            return Result(State.REFUSED, "the runs are wrong without an error too, as other cases tell")
        if not tried:
            return Result(
                State.UNSUPPORTED, f"the core never calls {member}: the provider has none of its own"
            )
        see_who_works(provider)
        return Result(State.PASSED, f"on {', '.join(tried)}")

    return run


def recovers(subject: Subject, member: str) -> bool | None:
    """False if the method is never called; None if the provider is wrong without an error too.

    Raises:
        AssertionError: if the error is not told as it must be, or something stays broken.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        watch = watched(subject.provider)
        try:
            _play(subject, watch, folder)
            kept = _held(watch)
            _play(subject, watch, folder)  # restores what the first has saved
        except AssertionError:
            return None
        if not _applies(watch, subject.provider, member):
            return False
        if member != "restore":
            for saved in folder.iterdir():
                saved.unlink()
        faulty = _armed(watched(subject.provider), member)
        try:
            _play(subject, faulty, folder)
        except Injected as error:
            raise AssertionError(f"an error in {member} came out bare, and not as epkit's") from error
        except EpkitError as error:
            assert subject.provider in str(error), f"an error in {member} does not name the provider: {error}"
        left = _held(faulty) - (member == "allocate") - kept
        assert left <= 0, f"{left} device buffers were not freed after an error in {member}"
        _play(subject, watched(subject.provider), folder)
    return True


def _held(watch: Watch) -> int:
    return watch.calls("allocate") - watch.calls("free")


def _applies(watch: Watch, provider: str, member: str) -> bool:
    """True if the core called the method, and the provider has it."""
    if member == "save":
        return default.provider_type(provider).save is not Provider.save
    return watch.calls({"begin": "run", "capture": "replay"}.get(member, member)) > 0


def _armed(watch: Watch, member: str) -> Watch:
    """Raises at the first call of the member, once."""
    armed = {member}

    def at(name: str) -> None:
        if name in armed:
            armed.remove(name)
            raise Injected(f"acme error 7 in {member}")

    watch.on_call = at
    watch.on_begin = lambda node: at("begin")
    return watch


def _play(subject: Subject, watch: Watch, folder: Path) -> None:
    """Load, and run until replays are made; a session that survives an error in a run must be right after it."""
    with subject.load(registry=watch.registry, cache=folder, capture=True) as session:
        failed: EpkitError | None = None
        for seed in range(RUNS):
            try:
                subject.run_checked(session, seed=seed, when="around an error")
            except EpkitError as error:
                assert failed is None, f"the session fails after an error too: {error}"
                failed = error
        if failed is not None:
            raise failed
