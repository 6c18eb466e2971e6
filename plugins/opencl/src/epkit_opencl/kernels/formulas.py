"""Elementwise operators as formulas in OpenCL C. Chains of them become one kernel (see ``fuse``)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from epkit.backend import Kernel, kernel

FLOATS = frozenset({"float32", "float64"})
SIGNED = frozenset({"int8", "int16", "int32", "int64"})
UNSIGNED = frozenset({"uint8", "uint16", "uint32", "uint64"})
NUMBERS = FLOATS | SIGNED | UNSIGNED
ANY = NUMBERS | {"bool", "float16"}

Write = Callable[["Site"], str]


@dataclass(frozen=True)
class Site:
    """Where a formula is written down.

    Attributes:
        args: C expressions of the inputs; None for an optional one that is absent.
        types: their C types.
        out: the C type of the result.
        attributes: of the node.
        opset: under which the node is read.
    """

    args: Sequence[str | None]
    types: Sequence[str]
    out: str
    attributes: Mapping[str, Any]
    opset: int

    def __getitem__(self, index: int) -> str:
        found = self.args[index]
        assert found is not None
        return found

    @property
    def is_float(self) -> bool:
        """True if the first input is a floating-point number."""
        return self.types[0] in ("float", "double", "half")

    def literal(self, value: float) -> str:
        """A number of the result's type."""
        return literal(value, self.out)

    def attribute(self, name: str, default: float) -> str:
        """An attribute as a number of the result's type."""
        return self.literal(self.attributes.get(name, default))


def literal(value: float, c_type: str) -> str:
    """A number as OpenCL C writes it."""
    if c_type in ("float", "double", "half"):
        if math.isnan(value):
            return f"({c_type})NAN"
        if math.isinf(value):
            return f"({c_type})({'-' if value < 0 else ''}INFINITY)"
        return f"{float(value)!r}{'f' if c_type == 'float' else ''}"
    return f"(({c_type}){int(value)})"


@dataclass(frozen=True)
class Formula:
    """An operator that computes each element of its result from the elements at the same place.

    Attributes:
        kernel: its name, versions and types, as any kernel has them.
        write: the expression.
        per_channel: inputs that hold one number for each channel (axis 1).
    """

    kernel: Kernel
    write: Write
    per_channel: frozenset[int] = frozenset()


FORMULAS: dict[Callable[..., Any], Formula] = {}
"""By the kernel's function."""


def formula(
    name: str,
    write: str | Write,
    *,
    since: int = 1,
    until: int | None = None,
    types: Mapping[str, frozenset[str]] | None = None,
    when: Callable[[Any], bool | str] | None = None,
    per_channel: Sequence[int] = (),
    domain: str = "",
) -> Kernel:
    """Declare one; ``write`` is a pattern such as ``"{0} + {1}"``, or a function of a :class:`Site`."""
    types = {"T": FLOATS} if types is None else types

    @kernel(name, since=since, until=until, domain=domain, types=types, when=when)
    def declared(*inputs: Any) -> Any:
        raise NotImplementedError("formulas are compiled, not called")

    text = write

    def from_pattern(site: Site) -> str:
        return str(text).format(*site.args, T=site.out, zero=site.literal(0), one=site.literal(1))

    writer = from_pattern if isinstance(write, str) else write
    FORMULAS[declared.function] = Formula(declared, writer, frozenset(per_channel))
    return declared


def formula_of(found: Kernel) -> Formula | None:
    """The formula that a kernel stands for, or None."""
    return FORMULAS.get(found.function)
