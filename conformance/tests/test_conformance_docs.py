"""``docs/conformance.md`` says what is so."""

from __future__ import annotations

import re
from pathlib import Path

from epkit_conformance import record
from epkit_conformance.cli import exits
from epkit_conformance.expectations import read_expectations
from epkit_conformance.levels import LEVELS
from epkit_conformance.operator_sets import SETS
from epkit_conformance.result import State

TEXT = (Path(__file__).parents[2] / "docs" / "conformance.md").read_text(encoding="utf-8")


def first_column(header: str) -> list[str]:
    """The first column of the table under a header row."""
    rows = TEXT.split(header)[1].split("\n\n")[0].strip().splitlines()[1:]
    return [row.split("|")[1].strip() for row in rows]


def test_states_levels_and_exit_codes_are_all_there() -> None:
    assert first_column("| state | meaning |") == [state.value for state in State]
    assert first_column("| level | proves | asks for |") == [str(level.number) for level in LEVELS]
    codes = {str(value) for name, value in vars(exits).items() if name.isupper()}
    assert set(first_column("| exit code | meaning |")) == codes


def test_the_example_of_expectations_is_one(tmp_path: Path) -> None:
    (example,) = re.findall(r"```toml\n(.*?)```", TEXT, re.DOTALL)
    path = tmp_path / "expected.toml"
    path.write_text(example)
    assert [item.kind for item in read_expectations(path).items] == ["expected_failure", "unsupported"]


def test_names_are_those_of_the_code() -> None:
    assert record.SCHEMA in TEXT
    named = re.findall(r"`([a-z-]+)`", TEXT.split("**Operator sets**")[1].split(" are certified")[0])
    assert named and set(named) <= {one.name for one in SETS}


def test_the_pictures_are_there_and_small() -> None:
    names = re.findall(r"!\[.*?\]\((.*?)\)", TEXT)
    assert len(names) == 2
    for name in names:
        picture = Path(__file__).parents[2] / "docs" / name
        assert picture.read_bytes().startswith(b"\x89PNG")
        assert picture.stat().st_size < 200_000
