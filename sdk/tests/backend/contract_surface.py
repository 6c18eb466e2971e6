"""The public surface of ``epkit.backend`` as text, one line for each thing that a plugin may rely on.

Run this file to write the surface of the present contract version anew, after something was added to it.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import epkit.backend
from epkit.backend import hooks


def frozen_file(version: int) -> Path:
    """Where the surface of a contract version is kept."""
    return Path(__file__).with_name(f"contract_v{version}.txt")


def surface() -> list[str]:
    """All lines, sorted."""
    lines = [line for name in epkit.backend.__all__ for line in describe(name, getattr(epkit.backend, name))]
    specs = [f for f in vars(hooks).values() if inspect.isfunction(f) and hasattr(f, "epkit_spec")]
    lines += [f"hook {spec.__name__}{signature(spec)}" for spec in specs]
    return sorted(lines)


def describe(name: str, thing: Any) -> Iterator[str]:
    if thing is Any:
        yield f"{name} is any object"
    elif isinstance(thing, type):
        yield from describe_class(name, thing)
    elif inspect.isfunction(thing):
        yield f"def {name}{signature(thing)}"
    elif isinstance(thing, frozenset | dict):
        yield from (f"{name} has {item}" for item in sorted(thing))
    elif isinstance(thing, int):
        yield f"{name} = {thing}"
    else:
        yield f"{name} is there"


def describe_class(name: str, kind: type) -> Iterator[str]:
    bases = ", ".join(base.__name__ for base in kind.__bases__ if base is not object)
    yield f"class {name}({bases})"
    abstract = getattr(kind, "__abstractmethods__", frozenset())
    if dataclasses.is_dataclass(kind):
        frozen = " frozen" if kind.__dataclass_params__.frozen else ""  # type: ignore[attr-defined]
        for place, field in enumerate(dataclasses.fields(kind)):
            yield f"{name} field {place}{frozen}: {field.name}: {field.type}{default_of(field)}"
    for member, value in vars(kind).items():
        if member.startswith("_") and member not in ("__init__", "__call__"):
            continue
        note = " abstract" if member in abstract else ""
        if isinstance(value, property) or type(value).__name__ == "cached_property":
            yield f"{name}.{member} property"
        elif (
            inspect.isfunction(value)
            and value.__qualname__ == f"{name}.{member}"
            and not is_made(kind, member)
        ):
            yield f"{name}.{member}{signature(value)}{note}"
    if not dataclasses.is_dataclass(kind):
        for member, annotation in inspect.get_annotations(kind).items():
            if not member.startswith("_"):
                yield f"{name}.{member}: {annotation}{' = ' + repr(vars(kind)[member]) if is_plain(kind, member) else ''}"


def is_made(kind: type, member: str) -> bool:
    """True for the constructor that a dataclass gets from its fields."""
    return member == "__init__" and dataclasses.is_dataclass(kind)


def is_plain(kind: type, member: str) -> bool:
    return isinstance(vars(kind).get(member), int | str | tuple)


def default_of(field: dataclasses.Field[Any]) -> str:
    if field.default is not dataclasses.MISSING:
        return f" = {field.default!r}"
    return " = (made)" if field.default_factory is not dataclasses.MISSING else ""


class Verbatim(str):
    """Text that shows itself without quotes."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def signature(function: Any) -> str:
    """The signature with annotations as they are written."""
    found = inspect.signature(function)
    plain = [
        p if p.annotation is p.empty else p.replace(annotation=Verbatim(p.annotation))
        for p in found.parameters.values()
    ]
    result = found.return_annotation
    return str(
        found.replace(
            parameters=plain, return_annotation=result if result is found.empty else Verbatim(result)
        )
    )


if __name__ == "__main__":
    frozen_file(epkit.backend.CONTRACT_VERSION).write_text("\n".join(surface()) + "\n", encoding="utf-8")
