"""Every element type that the schemas allow runs, and agrees with an oracle.

A type is tried under the version of the operator that brought it and under the newest one; under all versions
with ``-m slow``.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from onnx.defs import OpSchema

from epkit.dtypes import INTS
from epkit.errors import RunError

from . import families as families
from .case import all_schemas, label
from .model import build
from .retype import Typed, typed_cases
from .run import check_typed, run

SCHEMAS = {label(schema): schema for schema in all_schemas()}

MEANINGLESS = {
    ("Col2Im", "string"): "the blocks are summed up",
    ("GridSample", "string"): "the default mode interpolates",
}
"""Types that the schema allows and the operator's meaning does not: refused with a clear error."""

OPEN = {
    **{("Erf", element): "nothing says how the result is rounded" for element in INTS},
    **{
        (op, "string"): "nothing says with how many digits numbers are written" for op in ("Cast", "CastLike")
    },
    ("Trilu", "string"): "nothing says which text stands for zero",
    **{(op, "float8_e8m0fnu"): "negative numbers are undefined" for op in ("Cast", "CastLike")},
}
"""Results that the standard leaves open: element type and shape are compared."""


def sweep(schema: OpSchema, every: bool) -> Iterator[Typed]:
    """The typed cases of a schema; without ``every``, those that are new in it, or all of the newest version."""
    history = [s for s in SCHEMAS.values() if (s.domain, s.name) == (schema.domain, schema.name)]
    before = [s for s in history if s.since_version < schema.since_version]
    newest = schema.since_version == max(s.since_version for s in history)
    known = set(before[-1].type_constraints and _pairs(before[-1])) if before else set()
    for typed in typed_cases(schema):
        if every or newest or (typed.variable, typed.element) not in known:
            yield typed


def _pairs(schema: OpSchema) -> Iterator[tuple[str, str]]:
    yield from ((typed.variable, typed.element) for typed in typed_cases(schema))


def _check(name: str, every: bool) -> None:
    schema = SCHEMAS[name]
    for typed in sweep(schema, every):
        where = f"{name} with {typed.variable} = {typed.element}"
        try:
            _check_one(typed, schema)
        except Exception as error:
            raise AssertionError(f"{where}: {error}") from error


def _check_one(typed: Typed, schema: OpSchema) -> None:
    key = (schema.name, typed.element)
    if key in MEANINGLESS:
        with pytest.raises(RunError, match="text|string"):
            run(typed.case, build(typed.case, schema))
        return
    assert check_typed(typed, schema, loosely=key in OPEN), "no oracle knows the result"


@pytest.mark.parametrize("name", SCHEMAS)
def test_types(name: str) -> None:
    _check(name, every=False)


@pytest.mark.slow
@pytest.mark.parametrize("name", SCHEMAS)
def test_types_under_all_versions(name: str) -> None:
    _check(name, every=True)
