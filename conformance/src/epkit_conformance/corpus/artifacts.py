"""Level 6: programs that outlive their session, and are refused when anything that they depend on has changed."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from epkit.backend import Provider
from epkit.backend.registry import PROVIDER_GROUP, default
from epkit.errors import EpkitError

from ..case import REFERENCE, Case
from ..probes import PROBES, Subject, on_each
from ..result import Result, State
from ..watch import Watch, watched

Folder = Path

PROGRAMS = "*.program"
"""What providers saved; the cache folder holds optimised models too, which are the core's."""


def restores_in_a_new_session(subject: Subject, folder: Folder) -> None:
    """The second session compiles nothing, and computes the same."""
    feeds = subject.probe.feeds()
    results = []
    for restored in (False, True):
        watch = watched(subject.provider)
        with subject.load(registry=watch.registry, cache=folder) as session:
            outputs = session.run(None, feeds)
            subject.check(outputs, feeds, "restored" if restored else "before it was saved")
            results.append([array.tobytes() for array in outputs.values()])
    _assert_saved(subject, folder)
    assert watch.calls("restore") > 0, f"{subject.probe.label}: what was saved was not restored"
    assert watch.calls("compile") == 0, f"{subject.probe.label}: it was restored, and compiled again"
    assert results[0] == results[1], f"{subject.probe.label}: the restored program gives other bytes"


def restores_in_a_new_process(subject: Subject, folder: Folder) -> None:
    """A fresh process, which has never compiled, gets equal results."""
    feeds = subject.probe.feeds()
    with subject.load(cache=folder) as session:
        mine = {name: array.tobytes().hex() for name, array in session.run(None, feeds).items()}
    _assert_saved(subject, folder)
    command = [
        sys.executable,
        "-m",
        "epkit_conformance.corpus.artifacts",
        subject.provider,
        f"{subject.probe.name}:{subject.probe.dtype}",
        str(folder),
    ]
    command.append("fixed" if subject.fix else "dynamic")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{subject.probe.label}: the new process failed: {done.stderr[-400:]}"
    told = json.loads(done.stdout)
    assert told["compiled"] == 0, (
        f"{subject.probe.label}: the new process compiled again: is fingerprint() stable?"
    )
    assert told["outputs"] == mine, f"{subject.probe.label}: the new process gets other bytes"


def tells_models_apart(subject: Subject, folder: Folder) -> None:
    """Of two models that differ in their weights only, each is restored as itself."""
    changed = dataclasses.replace(subject, probe=dataclasses.replace(subject.probe, altered=True))
    for _ in range(2):
        for one in (subject, changed):
            with one.load(cache=folder) as session:
                one.run_checked(session, when="from a cache that holds a model with other weights too")


def refuses_what_was_made_elsewhere(subject: Subject, folder: Folder) -> None:
    """Another version, driver or option is compiled anew; a program moved under its name is refused."""
    with subject.load(cache=folder) as session:
        subject.run_checked(session)
    (saved,) = _assert_saved(subject, folder)
    old = saved.read_bytes()
    for change, changed, members in _elsewhere(subject):
        watch = watched(subject.provider, **members)
        with changed.load(registry=watch.registry, cache=folder) as session:
            changed.run_checked(session, when=f"after {change} had changed")
        assert watch.calls("compile") > 0, f"{subject.probe.label}: a program for another {change} was used"
        (fresh,) = set(folder.glob(PROGRAMS)) - {saved}
        fresh.write_bytes(old)
        _loads_anew(changed, folder, watched(subject.provider, **members), f"made for another {change}")
        fresh.unlink()


def _elsewhere(subject: Subject) -> Iterator[tuple[str, Subject, dict[str, Any]]]:
    """What may differ: its name, the subject with it, and members of the provider to replace."""
    yield "version", subject, {"version": "another"}
    yield "fingerprint", subject, {"fingerprint": lambda self, device: "another driver"}
    options = default.provider_type(subject.provider).Options
    yield "set of options", subject, {"Options": _of_a_later_release(options)}
    for name, value in _switched(options):
        changed = dataclasses.replace(subject, options={name: value})
        if _is_claimed(changed):
            yield f"option {name}", changed, {}


def _of_a_later_release(options: type[Any]) -> type[Any]:
    """The options, and one more."""
    more = [("of_a_later_release", bool, dataclasses.field(default=True))]
    frozen = options.__dataclass_params__.frozen
    return dataclasses.make_dataclass(options.__name__, more, bases=(options,), frozen=frozen)


def _switched(options: type[Any]) -> list[tuple[str, bool]]:
    """The options that are on or off, the other way round: of no others is it known which values there are."""
    defaults = ((item.name, item.default) for item in dataclasses.fields(options))
    return [(name, not value) for name, value in defaults if isinstance(value, bool)]


def _is_claimed(subject: Subject) -> bool:
    try:
        subject.load().close()
    except EpkitError:
        return False
    return True


def refuses_what_is_damaged(subject: Subject, folder: Folder) -> None:
    """A file that was cut short, or in which one byte is different, is never restored."""
    with subject.load(cache=folder) as session:
        subject.run_checked(session)
    (saved,) = _assert_saved(subject, folder)
    whole = saved.read_bytes()
    flipped = bytearray(whole)
    flipped[-1] ^= 0x10
    for damaged in (b"", whole[: len(whole) // 2], whole[:-1], bytes(flipped), b"\0" * len(whole)):
        saved.write_bytes(damaged)
        _loads_anew(
            subject, folder, watched(subject.provider), f"damaged, {len(damaged)} of {len(whole)} bytes"
        )


def _loads_anew(subject: Subject, folder: Folder, watch: Watch, why: str) -> None:
    with subject.load(registry=watch.registry, cache=folder) as session:
        subject.run_checked(session, when=f"beside an artifact that was {why}")
    assert watch.calls("restore") == 0, f"{subject.probe.label}: an artifact was restored that was {why}"
    assert watch.calls("compile") > 0, f"{subject.probe.label}: nothing was compiled beside an artifact {why}"


def _assert_saved(subject: Subject, folder: Folder) -> list[Path]:
    found = list(folder.glob(PROGRAMS))
    assert found, f"{subject.probe.label}: save() returned None, so nothing was kept"
    return found


CHECKS: tuple[Callable[[Subject, Folder], None], ...] = (
    restores_in_a_new_session,
    refuses_what_was_made_elsewhere,
    refuses_what_is_damaged,
)


def cases() -> Iterator[Case]:
    """One case a rule; none applies to a provider that saves nothing."""
    for check in CHECKS:
        yield _case(check.__name__, partial(on_each, check=_in_folder(check)))
    yield _case(
        "tells_models_apart",
        lambda provider: on_each(
            provider, _in_folder(tells_models_apart), only=lambda subject: subject.probe.has_weights
        ),
    )
    yield _case("restores_in_a_new_process", _new_process)


def _case(name: str, run: Callable[[str], Result]) -> Case:
    def where_it_applies(provider: str) -> Result:
        if default.provider_type(provider).save is Provider.save:
            return Result(State.UNSUPPORTED, "the provider saves no programs: compiling is fast enough")
        return run(provider)

    return Case(f"artifacts/{name}", 6, "artifacts", where_it_applies, oracle=REFERENCE)


def _new_process(provider: str) -> Result:
    if provider not in {entry.name for entry in importlib.metadata.entry_points(group=PROVIDER_GROUP)}:
        return Result(State.UNSUPPORTED, "registered in this process only, so that no other can load it")
    return on_each(provider, _in_folder(restores_in_a_new_process), at_most=3)


def _in_folder(check: Callable[[Subject, Folder], None]) -> Callable[[Subject], None]:
    def run(subject: Subject) -> None:
        with tempfile.TemporaryDirectory() as folder:
            check(subject, Path(folder))

    return run


def _tell(provider: str, name: str, folder: str, sizes: str) -> dict[str, Any]:
    """What the new process has to say."""
    name, dtype = name.split(":")
    probe = next(dataclasses.replace(probe, dtype=dtype) for probe in PROBES if probe.name == name)
    watch = watched(provider)
    subject = Subject(probe, provider, {"N": 3} if sizes == "fixed" else {})
    with subject.load(registry=watch.registry, cache=folder) as session:
        outputs = session.run(None, probe.feeds())
    return {
        "compiled": watch.calls("compile"),
        "outputs": {name: array.tobytes().hex() for name, array in outputs.items()},
    }


if __name__ == "__main__":
    print(json.dumps(_tell(*sys.argv[1:])))
