"""The suite is tested: each faulty provider is reported by the cases meant for it, and by no others."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatch

import pytest
import wrong_after_errors  # noqa: F401 - fills the zoo
import wrong_devices  # noqa: F401
import wrong_in_company  # noqa: F401
import wrong_manners
import wrong_results  # noqa: F401
from sound import ZOO, Busy, Contrary, Sound, SoundDevice, Specimen, Unusual

import epkit
from epkit.backend import Refusal
from epkit_conformance.catalogue import all_cases
from epkit_conformance.result import Result, State
from epkit_conformance.runner import Limits, run_cases, run_here

SLOW = ("contract/gives_back_sessions", "contract/gives_back_runs")

FEW = ("describe/*", "first/*", "published/relu", "published/add", "special/Abs/float32/nan")
"""What every specimen runs, besides the cases that must report it; the slow test runs more."""

SAMPLE = (
    *FEW,
    *(
        "contract/*",
        "errors/*",
        "graphs/long_chain/3_rows",
        "graphs/inside_loop/3_rows",
        "threads/one_session_many_threads",
    ),
    *("device/*", "streams/*", "artifacts/*", "capture/*"),
    *("published/matmul_2d", "published/round", "published/constant_pad", "published/leakyrelu"),
    *("published/top_k", "published/max_example", "published/sqrt", "published/tanh", "published/abs"),
    *("published/logsoftmax_axis_1", "published/erf", "dynamic/abs/3_rows", "dynamic/relu/*"),
    *("generated/Neg/13/float32", "generated/Concat/13/float32", "special/Abs/float32/*", "graphs/diamond/*"),
)
"""A little of everything."""


def run(
    provider: type[epkit.backend.Provider], patterns: Iterable[str], seconds: float = 60
) -> dict[str, Result]:
    """The results of the cases that match, but for the slow ones that are not named in full."""
    epkit.register(provider)
    wanted = tuple(patterns)
    cases = [
        case
        for case in all_cases()
        if any(fnmatch(case.name, pattern) for pattern in wanted)
        and (case.name in wanted or case.name not in SLOW)
    ]
    return run_cases(cases, provider.name, jobs=1 if len(cases) < 30 else 2, limits=Limits(seconds))


@pytest.fixture(scope="module", autouse=True)
def _warm() -> None:
    """Import in this process what every worker would else import anew."""
    run_here(next(case for case in all_cases() if case.name == "published/relu"), "cpu")


def test_there_are_enough_of_them() -> None:
    assert len(ZOO) >= 25
    assert len({specimen.provider.name for specimen in ZOO}) == len(ZOO)


@pytest.mark.parametrize("specimen", ZOO, ids=lambda specimen: specimen.provider.__name__)
def test_each_fault_is_reported_where_it_must_be(specimen: Specimen) -> None:
    assert_reported(specimen, FEW)


@pytest.mark.slow
@pytest.mark.parametrize("specimen", ZOO, ids=lambda specimen: specimen.provider.__name__)
def test_each_fault_is_reported_nowhere_else(specimen: Specimen) -> None:
    assert_reported(specimen, SAMPLE)


def assert_reported(specimen: Specimen, others: Iterable[str]) -> None:
    """The cases that must report the fault do so, each in its state, and no others."""
    results = run(specimen.provider, [*others, *specimen.cases], specimen.seconds)
    errors = {name: result for name, result in results.items() if result.state.is_error}
    by_chance = {
        name
        for name in errors
        if name not in specimen.cases and any(fnmatch(name, pattern) for pattern in specimen.may)
    }
    found = {name: result.state for name, result in errors.items() if name not in by_chance}
    assert found == specimen.cases, {
        name: errors[name].detail for name in errors if name not in specimen.cases
    }


@pytest.mark.parametrize(
    "provider", [Sound, SoundDevice, Contrary, Busy], ids=lambda provider: provider.__name__
)
def test_a_sound_provider_has_no_errors(provider: type[epkit.backend.Provider]) -> None:
    results = run(provider, SAMPLE)
    assert not {name: result.detail for name, result in results.items() if result.state.is_error}
    assert results["first/one_kernel_runs"].state is State.PASSED


@pytest.mark.slow
@pytest.mark.parametrize(
    "provider", [Sound, SoundDevice, Contrary, Busy, Unusual], ids=lambda provider: provider.__name__
)
def test_a_sound_provider_leaves_nothing_behind(provider: type[epkit.backend.Provider]) -> None:
    results = run(provider, SLOW)
    assert {result.state for result in results.values()} == {State.PASSED}


def test_a_sound_provider_of_unusual_choices_passes_all_that_applies() -> None:
    results = run(
        Unusual, [*SAMPLE, "threads/*", "graphs/*/3_rows", "pairs/*_device", "partitions/random/1*"]
    )
    assert not {name: result.detail for name, result in results.items() if result.state.is_error}
    optional = ("device/", "streams/", "threads/", "artifacts/", "capture/")
    states = {name: result.state for name, result in results.items() if name.startswith(optional)}
    others = {name for name, state in states.items() if state is not State.PASSED}
    assert others == {"artifacts/restores_in_a_new_process"}  # no other process knows this class


def test_the_null_provider_has_an_honest_level_one() -> None:
    results = run(epkit.backend.null.NullProvider, [*SAMPLE, "patterns/*/3_rows", "models/*/one"])
    assert not {name: result.detail for name, result in results.items() if result.state.is_error}
    assert results["first/one_kernel_runs"].state is State.PASSED
    passed = {name for name, result in results.items() if result.state is State.PASSED}
    assert {name for name in passed if name.startswith(("published/", "generated/"))} == {
        "published/relu",
        "generated/Neg/13/float32",
    }
    assert not any(
        name.startswith(("patterns/", "models/", "device/", "artifacts/", "capture/")) for name in passed
    )


class Lazy(Sound):
    """Refuses everything, and lets others work."""

    name = "zoo_lazy"

    def claim(self, graph: epkit.backend.Subgraph) -> Iterable[Refusal]:
        return (Refusal(node, "cost", "somebody else will do it") for node in graph.nodes)


EVERYTHING = (
    *(
        *SAMPLE,
        *SLOW,
        "published/reduce_*",
        "published/simple/*",
        "graphs/*",
        "quantised/*",
        "pairs/before_*",
    ),
    *("partitions/*", "models/*/one"),
)


def test_a_provider_that_computes_nothing_passes_nothing() -> None:
    results = run(Lazy, EVERYTHING)
    levels = {case.name: case.level for case in all_cases()}
    above = {name: result.state for name, result in results.items() if levels[name] > 0}
    assert len(above) > 150
    assert set(above.values()) <= {State.REFUSED, State.UNSUPPORTED}


def test_a_provider_that_lets_another_compute_passes_nothing_however_much_it_claims() -> None:
    results = run(wrong_manners.LetsTheCpuWork, EVERYTHING)
    levels = {case.name: case.level for case in all_cases()}
    above = {name: result for name, result in results.items() if levels[name] > 0}
    assert not {name: result.detail for name, result in above.items() if result.state is State.PASSED}
    assert sum(result.state is State.FALLBACK for result in above.values()) > 50
    assert above["contract/computes_itself"].state is State.FAILED
