"""Lifetimes and offsets, against a simulation that knows nothing of them."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir
from hypothesis import given
from hypothesis import strategies as st

from epkit.backend import MemoryStep
from epkit.memory.lifetimes import Lifetime, lifetimes
from epkit.memory.planner import MemoryPlan, plan_memory


@dataclass(frozen=True)
class Program:
    """Random steps over values, with sizes in bytes."""

    steps: tuple[MemoryStep, ...]
    sizes: dict[ir.Value, int]
    escaping: frozenset[ir.Value]


@st.composite
def programs(draw: st.DrawFn) -> Program:
    known: list[ir.Value] = [ir.Value(name="input")]
    steps, sizes = [], {}
    for index in range(draw(st.integers(1, 14))):
        reads = draw(st.lists(st.sampled_from(known[-5:]), max_size=3, unique=True))
        kinds = draw(st.lists(st.sampled_from(["write", "alias", "both"]), min_size=1, max_size=2))
        made = [ir.Value(name=f"{index}.{place}") for place in range(len(kinds))]
        named = list(zip(made, kinds, strict=True))
        writes = tuple(value for value, kind in named if kind != "alias")
        aliases = tuple(value for value, kind in named if kind != "write")
        steps.append(MemoryStep(None, tuple(reads), writes, aliases))
        sizes.update({value: draw(st.integers(0, 300)) for value in writes})
        known += made
    escaping = draw(st.sets(st.sampled_from(known), max_size=3))
    return Program(tuple(steps), sizes, frozenset(escaping))


def carriers(program: Program) -> list[set[ir.Value]]:
    """For each step, the written values that some later step may still reach, directly or through views."""
    may_show: dict[ir.Value, set[ir.Value]] = {}
    for step in program.steps:
        behind = {value for read in step.reads for value in may_show.get(read, ())}
        for value in step.aliases:
            may_show[value] = set(behind)
        for value in step.writes:
            may_show[value] = may_show.get(value, set()) | {value}
    forever = {value for escaped in program.escaping for value in may_show.get(escaped, ())}
    alive = []
    for index in range(len(program.steps)):
        written = {value for step in program.steps[: index + 1] for value in step.writes}
        read = {read for step in program.steps[index:] for read in step.reads}
        needed = {value for one in read for value in may_show.get(one, ())}
        alive.append((written & (needed | set(program.steps[index].writes))) - forever)
    return alive


def plan(program: Program, alignment: int) -> tuple[tuple[Lifetime, ...], MemoryPlan]:
    found = lifetimes(program.steps, program.escaping)
    return found, plan_memory(found, program.sizes, alignment)


@given(programs())
def test_a_value_lives_as_long_as_anything_that_may_be_a_view_of_it(program: Program) -> None:
    found, _ = plan(program, 64)
    for index, wanted in enumerate(carriers(program)):
        assert {item.value for item in found if item.start <= index <= item.end} == wanted


@given(programs(), st.sampled_from([1, 64, 256]))
def test_no_two_values_alive_together_overlap(program: Program, alignment: int) -> None:
    _, result = plan(program, alignment)
    for alive in carriers(program):
        spans = sorted((p.offset, p.offset + p.nbytes) for v, p in result.places.items() if v in alive)
        assert all(end <= start for (_, end), (start, _) in zip(spans, spans[1:], strict=False))


@given(programs(), st.sampled_from([1, 64, 256]))
def test_places_are_aligned_large_enough_and_inside(program: Program, alignment: int) -> None:
    found, result = plan(program, alignment)
    assert set(result.places) == {item.value for item in found if program.sizes[item.value] > 0}
    for value, place in result.places.items():
        assert place.offset % alignment == 0
        assert place.nbytes >= program.sizes[value]
        assert 0 <= place.offset <= place.offset + place.nbytes <= result.size


@given(programs(), st.sampled_from([1, 64]))
def test_the_size_lies_between_what_is_alive_and_the_sum(program: Program, alignment: int) -> None:
    _, result = plan(program, alignment)

    def rounded(value: ir.Value) -> int:
        return -(-program.sizes[value] // alignment) * alignment

    most = max(sum(map(rounded, alive)) for alive in carriers(program))
    assert result.lower_bound == most
    assert most <= result.size <= result.unshared


def test_a_chain_needs_two_places() -> None:
    values = [ir.Value(name=str(index)) for index in range(10)]
    steps = [
        MemoryStep(None, tuple(values[max(0, i - 1) : i]), (value,), ()) for i, value in enumerate(values)
    ]
    result = plan_memory(lifetimes(steps, ()), dict.fromkeys(values, 100), 64)
    assert (result.size, result.lower_bound, result.unshared) == (256, 256, 1280)


def test_values_of_unknown_size_have_no_place() -> None:
    known, unknown = ir.Value(name="known"), ir.Value(name="unknown")
    found = lifetimes([MemoryStep(None, (), (known, unknown), ())], ())
    assert set(plan_memory(found, {known: 8}, 64).places) == {known}
