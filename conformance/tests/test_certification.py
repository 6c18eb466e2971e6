"""Which levels and operator sets follow from results, and that nothing but passes raises them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epkit_conformance.certification import Status, certify
from epkit_conformance.levels import LEVELS
from epkit_conformance.operator_sets import SETS, passed_operators, standings
from epkit_conformance.record import Entry
from epkit_conformance.result import Result, State

DENSE = next(one for one in SETS if one.name == "dense")

OPERATORS = sorted({name for one in SETS for name in one.operators})


def entry(level: int, state: State, operator: str = "", dtype: str = "", version: int = 13) -> Entry:
    name = f"made/{level}/{operator}/{dtype}/{state.value}"
    return Entry(name, level, "made", operator, version if operator else 0, dtype, Result(state, "because"))


def whole(state: State = State.PASSED) -> list[Entry]:
    """A run in which each level and each operator with float32 end in the state."""
    return [
        *(entry(level.number, state) for level in LEVELS if level.number != 2),
        *(entry(2, state, name, "float32") for name in OPERATORS),
    ]


def test_a_run_without_a_blemish_is_certified_for_all() -> None:
    found = certify(whole())
    assert found.reached == 7
    assert "dense float32" in found.sets
    assert {verdict.status for verdict in found.verdicts} == {Status.CERTIFIED}
    assert found.next is None


@pytest.mark.parametrize("state", [state for state in State if state is not State.PASSED])
def test_no_other_state_certifies_anything(state: State) -> None:
    found = certify(whole(state))
    assert found.reached == -1
    assert found.sets == ()


def test_an_error_holds_back_all_that_is_above() -> None:
    found = certify([*whole(), entry(3, State.CRASHED)])
    assert [verdict.status for verdict in found.verdicts[3:]] == [Status.FAILING, *[Status.HELD] * 4]
    assert found.reached == 2
    assert found.next is not None and found.next.level.number == 3


def test_a_device_of_the_host_has_no_level_four_and_goes_on() -> None:
    entries = [entry(4, State.UNSUPPORTED) if item.level == 4 else item for item in whole()]
    found = certify(entries)
    assert found.verdicts[4].status is Status.NOT_APPLICABLE
    assert found.reached == 7


def test_a_level_that_everybody_needs_cannot_be_left_out() -> None:
    entries = [entry(3, State.UNSUPPORTED) if item.level == 3 else item for item in whole()]
    found = certify(entries)
    assert found.verdicts[3].status is Status.NOT_SHOWN
    assert found.reached == 2


def test_some_operators_are_no_operator_set() -> None:
    entries = [
        entry(2, State.REFUSED, item.operator, "float32") if item.operator else item for item in whole()
    ]
    entries += [entry(2, State.PASSED, name, "float32") for name in DENSE.operators if name != "MatMul"]
    found = certify(entries)
    assert found.verdicts[2].status is Status.NOT_SHOWN
    assert found.reached == 1
    (dense,) = [item for item in standings(entries) if item.label == "dense float32"]
    assert dense.missing == ("MatMul",)
    assert "dense float32" in certify([*entries, entry(2, State.PASSED, "MatMul", "float32")]).sets


def test_one_wrong_version_spoils_its_operator() -> None:
    entries = [
        *whole(),
        entry(2, State.FAILED, "Add", "float32", 7),
        entry(2, State.PASSED, "Add", "float32", 7),
    ]
    assert "dense float32" not in certify(entries).sets
    assert passed_operators(entries)["Add"] == {"13": ["float32"]}


def test_a_waived_failure_is_no_pass() -> None:
    entries = [*whole(), entry(2, State.EXPECTED_FAILURE, "Add", "float32")]
    assert "dense float32" not in certify(entries).sets
    assert "Add" not in passed_operators(entries)


ENTRIES = st.lists(
    st.builds(
        entry,
        st.integers(0, 7),
        st.sampled_from(State),
        st.sampled_from(["", *DENSE.operators]),
        st.sampled_from(["float32", "float16"]),
    ),
    max_size=30,
)


@given(ENTRIES, st.sampled_from([state for state in State if state is not State.PASSED]), st.data())
def test_taking_a_pass_away_never_raises_anything(
    extra: list[Entry], state: State, data: st.DataObject
) -> None:
    entries = [*whole(), *extra]
    passes = [index for index, item in enumerate(entries) if item.state is State.PASSED]
    chosen = data.draw(st.sampled_from(passes))
    worse = list(entries)
    worse[chosen] = replace(worse[chosen], result=Result(state))
    before, after = certify(entries), certify(worse)
    assert after.reached <= before.reached
    assert set(after.sets) <= set(before.sets)


def test_every_set_has_members_that_the_suite_tries() -> None:
    from epkit_conformance.catalogue import all_cases

    tried = {(case.operator, dtype) for case in all_cases() for dtype in (case.dtype, "")}
    for one in SETS:
        for dtype in one.dtypes:
            assert {name for name in one.operators if (name, dtype) in tried}, f"{one.name} {dtype}"
        lost = [name for name in one.operators if not any((name, dtype) in tried for dtype in one.dtypes)]
        assert not lost, f"{one.name} names operators without a case: {lost}"
