"""Provider options: a frozen dataclass per provider, filled from what the application wrote.

Unknown names and ill-typed values are errors that list what there is. Values that come as text
(command line, environment) are read by the field's type.
"""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any, get_args, get_origin

from ..errors import OptionError, Where


@dataclass(frozen=True)
class NoOptions:
    """The options of a provider that has none."""


def make_options(options_type: type[Any], given: Mapping[str, Any], provider: str) -> Any:
    """An instance of the provider's options dataclass.

    Raises:
        OptionError: for an unknown name, a value of the wrong type, or a combination that the dataclass
            refuses.
    """
    where = Where(provider=provider)
    hints = typing.get_type_hints(options_type) if given else {}
    names = [f.name for f in fields(options_type)]
    values = {}
    for name, value in given.items():
        if name not in names:
            raise OptionError(
                f"provider {provider!r} has no option {name!r}",
                where=where,
                remedy=_suggest(name, options_type),
            )
        try:
            values[name] = _convert(value, hints[name])
        except (TypeError, ValueError) as error:
            raise OptionError(
                f"option {name!r} of provider {provider!r} is {value!r}: {error}",
                where=where,
                remedy=f"the option is declared as {name}: {_type_text(hints[name])}",
            ) from error
    try:
        return options_type(**values)
    except (TypeError, ValueError) as error:
        raise OptionError(f"the options of provider {provider!r} do not fit: {error}", where=where) from error


def describe_options(options_type: type[Any]) -> tuple[str, ...]:
    """One line an option: ``name: type = default``."""
    hints = typing.get_type_hints(options_type)
    return tuple(
        f"{f.name}: {_type_text(hints[f.name])}" + ("" if f.default is MISSING else f" = {f.default!r}")
        for f in fields(options_type)
    )


def _suggest(name: str, options_type: type[Any]) -> str:
    known = describe_options(options_type)
    if not known:
        return "this provider takes no options"
    close = difflib.get_close_matches(name, [f.name for f in fields(options_type)], n=1)
    return (f"did you mean {close[0]!r}? " if close else "") + "its options are " + "; ".join(known)


def _type_text(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) else str(hint).replace("typing.", "")


def _convert(value: Any, hint: Any) -> Any:
    origin = get_origin(hint)
    if origin in (types.UnionType, typing.Union):
        return _convert_union(value, get_args(hint))
    if origin is typing.Literal:
        if value not in get_args(hint):
            raise ValueError("expected one of " + ", ".join(map(repr, get_args(hint))))
        return value
    if hint is typing.Any:
        return value
    if hint is bool:
        return _convert_bool(value)
    if isinstance(value, str) and hint in (int, float):
        return hint(value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    expected = origin or hint
    if not isinstance(value, expected) or (hint is int and isinstance(value, bool)):
        raise TypeError(f"expected {_type_text(hint)}, got {type(value).__name__}")
    return value


def _convert_union(value: Any, choices: tuple[Any, ...]) -> Any:
    if value is None and type(None) in choices:
        return None
    problems = []
    for choice in choices:
        try:
            return _convert(value, choice)
        except (TypeError, ValueError) as error:
            problems.append(str(error))
    raise TypeError("; ".join(problems))


def _convert_bool(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    words = {"1": True, "true": True, "on": True, "0": False, "false": False, "off": False}
    if isinstance(value, str) and value.lower() in words:
        return words[value.lower()]
    raise TypeError(f"expected bool, got {type(value).__name__}")
