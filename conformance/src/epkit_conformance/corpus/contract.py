"""Level 3: the contract, whatever the operator. Each check runs on every probe that the provider claims."""

from __future__ import annotations

import dataclasses
import gc
import os
import tracemalloc
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import epkit
from epkit.backend.registry import default
from epkit.errors import CancelledError, EpkitError, InputError, OptionError

from ..case import REFERENCE, Case
from ..observer import OBSERVER
from ..probes import PROBES, ROWS, Subject, is_plain, is_valid, native_type, on_each, see_who_works
from ..result import Result, State
from ..watch import watched

SESSIONS = 1000
RUNS = 1000


# ---- what it says ----


def explains_every_refusal(provider: str) -> Result:
    """A node that is left has a reason that a person can act on."""
    claimed, dtype = 0, native_type(provider)
    probes = [dataclasses.replace(probe, dtype=dtype) if is_plain(probe) else probe for probe in PROBES]
    for probe in filter(lambda probe: is_valid(probe.model), probes):
        for fix in ({}, {"N": ROWS}):
            with epkit.load(probe.model, [provider], optimise="none", fix=fix) as session:
                claimed += session.placement.counts().get(provider, 0)
                for node in session.placement.nodes:
                    for refusal in node.refused:
                        silent = refusal.code == "unexplained" or not refusal.reason.strip()
                        assert refusal.provider != provider or not silent, (
                            f"{node.operator} was neither claimed nor refused: "
                            "yield ep.Refusal(node, code, reason)"
                        )
    if not claimed:
        return Result(State.REFUSED, "no node of any probe was claimed")
    see_who_works(provider)
    return Result(State.PASSED)


def claims_the_same_twice(subject: Subject) -> None:
    """A claim is a function of the graph: loading again places all nodes as before."""
    placements = []
    for _ in range(2):
        with subject.load(fallback="cpu") as session:
            placements.append({node.node: node.provider for node in session.placement.nodes})
    assert placements[0] == placements[1], f"{subject.probe.label} was placed differently: {placements}"


def answers_ill_typed_options(provider: str) -> Result:
    """A value of a wrong type for any option is an OptionError."""
    fields = dataclasses.fields(default.provider_type(provider).Options)
    if not fields:
        return Result(State.UNSUPPORTED, "the provider has no options")
    for item in fields:
        try:
            default.create(provider, {item.name: object()})[0].close()
        except OptionError:
            continue
        raise AssertionError(
            f"option {item.name} took a bare object(): annotate it with the type that it needs"
        )
    return Result(State.PASSED)


# ---- what it does with memory that is not its own ----


def leaves_inputs_alone(subject: Subject) -> None:
    """Neither the caller's arrays nor a partition's inputs change."""
    watch = watched(subject.provider)
    feeds = subject.probe.feeds()
    before = {name: array.copy() for name, array in feeds.items()}
    with subject.load(registry=watch.registry) as session:
        session.run(None, feeds)
    for name, array in feeds.items():
        assert array.tobytes() == before[name].tobytes(), f"{subject.probe.label}: input {name} was written"
    inputs = [fault for fault in watch.faults if "wrote its input" in fault]
    assert not inputs, f"{subject.probe.label}: {'; '.join(inputs)}"


def writes_all_of_its_outputs(subject: Subject) -> None:
    """Memory from the core is poisoned before the program sees it, and nothing of that is left in an output."""
    watch = watched(subject.provider, poison=True)
    with subject.load(registry=watch.registry) as session:
        for rows in (ROWS, 17) if subject.dynamic else (ROWS,):
            for seed in (0, 1):
                subject.run_checked(session, rows, seed, "in poisoned memory")


def keeps_inside_its_memory(subject: Subject) -> None:
    """Memory from the core has a margin on both sides, which nobody writes."""
    watch = watched(subject.provider, guard=True)
    with subject.load(registry=watch.registry) as session:
        for rows in (ROWS, 17, 1, 0) if subject.dynamic else (ROWS,):
            session.run(None, subject.probe.feeds(rows))
            watch.check_guards()
    beyond = [fault for fault in watch.faults if "were written" in fault]
    assert not beyond, f"{subject.probe.label}: {'; '.join(beyond)}"


def forgets_its_memory(subject: Subject) -> None:
    """Memory from the core is poisoned after each run too: no later run looks at what an earlier one had."""
    watch = watched(subject.provider, poison=True, guard=True)
    with subject.load(registry=watch.registry) as session:
        for seed in range(4):
            subject.run_checked(session, seed=seed, when="after the memory of the runs before was poisoned")
            watch.check_guards()


def gives_outputs_away(subject: Subject) -> None:
    """Outputs belong to the caller: later runs leave them alone, and writing them harms no later run."""
    with subject.load() as session:
        first, second = subject.probe.feeds(seed=0), subject.probe.feeds(seed=1)
        mine = session.run(None, first)
        kept = {name: array.copy() for name, array in mine.items()}
        session.run(None, second)
        for name, array in mine.items():
            assert array.tobytes() == kept[name].tobytes(), (
                f"{subject.probe.label}: a later run changed output {name} of an earlier one"
            )
            array[...] = np.frombuffer(b"\x7f" * array.itemsize, array.dtype)[0]
        subject.check(session.run(None, first), first, "after the caller wrote into an earlier output")


# ---- the same again ----


def repeats_itself(subject: Subject) -> None:
    """The same inputs give the same bytes: in one session, and in the next."""
    feeds = subject.probe.feeds()
    results = []
    for _ in range(2):
        with subject.load() as session:
            results += [_bytes(session.run(None, feeds)) for _ in range(4)]
    assert len(set(results)) == 1, (
        f"{subject.probe.label}: {len(set(results))} different results for one input"
    )


def follows_its_inputs(subject: Subject) -> None:
    """Every one of many runs computes with the values that it is given."""
    with subject.load() as session:
        for seed in range(8):
            subject.run_checked(session, seed=seed, when=f"in run {seed + 1}")


def follows_changing_shapes(subject: Subject) -> None:
    """One session under several sizes, none and one included, and back."""
    with subject.load() as session:
        for rows in (3, 7, 1, 0, 64, 3):
            subject.run_checked(
                session, rows, rows, f"with {rows} rows in a session that had other sizes before"
            )


def keeps_constants_apart(provider: str) -> Result:
    """Two sessions of one structure with different weights are two programs."""

    def check(subject: Subject) -> None:
        changed = dataclasses.replace(subject, probe=dataclasses.replace(subject.probe, altered=True))
        with subject.load() as one, changed.load() as two:
            for seed in (0, 1):
                changed.run_checked(two, seed=seed, when="while another session has other weights")
                subject.run_checked(one, seed=seed, when="while another session has other weights")

    return on_each(provider, check, only=lambda subject: subject.probe.has_weights)


# ---- when things go wrong ----


def survives_errors(subject: Subject) -> None:
    """Refused inputs and failed runs leave the session as it was."""
    with subject.load() as session:
        feeds = subject.probe.feeds()
        name = next(iter(feeds))
        for bad in (
            {},
            {**feeds, "no_such_input": feeds[name]},
            {**feeds, name: feeds[name].astype(np.complex128)},
            {**feeds, name: feeds[name][..., None]},
        ):
            try:
                session.run(None, bad)
            except InputError:
                subject.run_checked(session, when="after inputs had been refused")
                continue
            raise AssertionError(f"{subject.probe.label}: wrong inputs were taken: {list(bad)}")


def reports_impossible_shapes(subject: Subject) -> None:
    """Shapes that only a run can tell are wrong end in an error, and the next run is right."""
    with subject.load() as session:
        feeds = subject.probe.feeds(rows=4)
        try:
            session.run(None, {**feeds, "z": feeds["z"][:3]})
        except EpkitError:
            subject.run_checked(session, when="after a run had failed")
            return
        raise AssertionError("4 rows and 3 were broadcast together")


def can_be_cancelled(subject: Subject) -> None:
    """A run that is cancelled before it starts, or at any node, raises; the next is right."""
    switch = epkit.Cancellation()
    switch.cancel()
    watch = watched(subject.provider)
    with subject.load(registry=watch.registry) as session:
        subject.run_checked(session)
        _cancelled(session, subject, switch)
        subject.run_checked(session, seed=1, when="after a cancelled run")
        for at in range(3):
            switch = epkit.Cancellation()
            seen: list[Any] = []

            def cancel(node: Any, at: int = at, seen: list[Any] = seen, switch: Any = switch) -> None:
                seen.append(node)
                if len(seen) > at:
                    switch.cancel()

            watch.on_begin = cancel
            _cancelled(session, subject, switch, must=bool(at == 0 and seen))
            watch.on_begin = lambda node: None
            subject.run_checked(session, seed=2 + at, when=f"after a run that was cancelled at node {at}")


def _cancelled(session: epkit.Session, subject: Subject, switch: Any, *, must: bool = True) -> None:
    try:
        session.run(None, subject.probe.feeds(seed=9), epkit.RunOptions(cancel=switch))
    except CancelledError:
        return
    assert not must, f"{subject.probe.label}: a cancelled run went on to its end"


# ---- the record ----


def reports_what_it_runs(subject: Subject) -> None:
    """begin and end come in pairs, for the partition's own nodes, for all that memory_steps names."""
    watch = watched(subject.provider)
    with subject.load(registry=watch.registry) as session:
        subject.run_checked(session)
    faults = [fault for fault in watch.faults if "wrote its input" not in fault]
    assert not faults, f"{subject.probe.label}: {'; '.join(faults)}"


def computes_itself(subject: Subject) -> None:
    """The provider does not hand its work to another session behind the record's back."""
    with OBSERVER.listening() as heard, subject.load() as session:
        session.run(None, subject.probe.feeds())
    for notice in (("load", session.name), ("run", session.name)):
        if notice in heard:
            heard.remove(notice)
    assert not heard, f"{subject.probe.label}: the provider used a session of its own: {heard}"


# ---- what is left over ----


def gives_back_sessions(subject: Subject) -> None:
    """A thousand sessions leave no buffer, no object and no growing process behind."""
    watch = watched(subject.provider)

    def once() -> None:
        with subject.load(registry=watch.registry) as session:
            session.run(None, feeds)

    feeds = subject.probe.feeds()
    _assert_no_growth(once, SESSIONS, f"{subject.probe.label}: a session")
    left = watch.calls("allocate") - watch.calls("free")
    assert left == 0, f"{subject.probe.label}: {left} device buffers were never freed"


def gives_back_runs(subject: Subject) -> None:
    """A thousand runs of one session hold no more memory than a hundred."""
    with subject.load() as session:
        feeds = subject.probe.feeds(64) if subject.dynamic else subject.probe.feeds()
        _assert_no_growth(lambda: session.run(None, feeds), RUNS, f"{subject.probe.label}: a run")
        for arena in session.memory.arenas:
            assert arena.in_use == 0, f"{subject.probe.label}: {arena.in_use} bytes of {arena.device} in use"


def _assert_no_growth(act: Callable[[], Any], times: int, what: str) -> None:
    """Neither Python's memory nor the process's grows with the number of calls.

    The first tenth warms caches up. A real leak shows in both halves of the rest; noise does not.
    """
    for _ in range(times // 10):
        act()
    python, resident = [], []
    tracemalloc.start()
    try:
        for _ in range(3):
            gc.collect()
            python.append(tracemalloc.get_traced_memory()[0])
            resident.append(_resident_bytes())
            for _ in range(times // 10):
                act()
    finally:
        tracemalloc.stop()
    _assert_flat(python, times // 10, 64, what, "Python objects")
    resident = [_resident_bytes()]
    for _ in range(2):
        for _ in range(times * 3 // 10):
            act()
        gc.collect()
        resident.append(_resident_bytes())
    _assert_flat(resident, times * 3 // 10, 1024, what, "the process")


def _assert_flat(sizes: list[int], calls: int, allowed: int, what: str, where: str) -> None:
    growth = min(after - before for before, after in zip(sizes, sizes[1:], strict=False)) / calls
    assert growth < allowed, f"{what} leaves {growth:,.0f} bytes behind in {where}"


def _resident_bytes() -> int:
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except OSError:
        return 0  # no Linux: Python's own count must do
    return pages * os.sysconf("SC_PAGE_SIZE")


def _bytes(outputs: dict[str, Any]) -> bytes:
    return b"".join(array.tobytes() for array in outputs.values())


# ---- the cases ----


def _adds_two(subject: Subject) -> bool:
    return subject.dynamic and subject.probe.name == "two_inputs"


EACH: tuple[Callable[[Subject], None], ...] = (
    claims_the_same_twice,
    leaves_inputs_alone,
    writes_all_of_its_outputs,
    keeps_inside_its_memory,
    forgets_its_memory,
    gives_outputs_away,
    repeats_itself,
    follows_its_inputs,
    survives_errors,
    can_be_cancelled,
    reports_what_it_runs,
    computes_itself,
)


def cases() -> Iterator[Case]:
    """One case a rule of the contract."""
    for check in EACH:
        yield _case(check.__name__, partial(on_each, check=check))
    yield _case(
        "follows_changing_shapes",
        partial(on_each, check=follows_changing_shapes, only=lambda subject: subject.dynamic),
    )
    yield _case(
        "reports_impossible_shapes",
        partial(on_each, check=reports_impossible_shapes, only=_adds_two),
    )
    for whole in (explains_every_refusal, keeps_constants_apart):
        yield _case(whole.__name__, whole)
    yield Case("contract/answers_ill_typed_options", 0, "contract", answers_ill_typed_options)
    for slow in (gives_back_sessions, gives_back_runs):
        yield _case(slow.__name__, partial(on_each, check=slow, at_most=1), seconds=300)


def _case(name: str, run: Callable[[str], Result], seconds: float = 0.0) -> Case:
    return Case(f"contract/{name}", 3, "contract", run, seconds=seconds, oracle=REFERENCE)
