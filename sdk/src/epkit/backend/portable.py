"""The portable operators as kernels, for any provider whose device has an array library."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache, partial
from typing import Any

from ..kernels import Operator, OperatorTable, make_operator, table
from .custom import CustomOperator
from .kernel import Kernel, has_no_subgraph


def portable_kernels(
    xp: Any, only: Iterable[str] | None = None, operators: OperatorTable | None = None
) -> list[Kernel]:
    """Kernels that run the operators of ``epkit.kernels`` on the array namespace ``xp``.

    Args:
        xp: an array namespace: ``numpy``, ``cupy``, ...
        only: operator names (``"Relu"``, ``"ai.onnx.ml.Scaler"``); all by default.
        operators: another table than the standard's.
    """
    chosen = list(operators if operators is not None else table())
    if only is not None:
        names = set(only)
        chosen = [item for item in chosen if ".".join(filter(None, (item.domain, item.name))) in names]
    return [as_kernel(xp, item, _until(item, chosen)) for item in chosen]


def _until(item: Operator, chosen: list[Operator]) -> int | None:
    """The last opset before the next declaration of the same operator."""
    later = [
        o.since for o in chosen if (o.domain, o.name) == (item.domain, item.name) and o.since > item.since
    ]
    return min(later) - 1 if later else None


def as_kernel(xp: Any, item: Operator, until: int | None) -> Kernel:
    """One portable operator as a kernel."""
    return Kernel(
        item.name,
        partial(item.function, xp),
        item.domain,
        item.since,
        until,
        when=has_no_subgraph,
        attributes=item.attributes,
        wants=item.wants,
    )


def custom_kernels(xp: Any, operators: Iterable[CustomOperator]) -> list[Kernel]:
    """Kernels of custom operators on the array namespace ``xp``."""
    return list(_custom_kernels(xp, tuple(operators)))


@lru_cache(maxsize=8)  # the operators of the installed packages come anew with every load
def _custom_kernels(xp: Any, operators: tuple[CustomOperator, ...]) -> tuple[Kernel, ...]:
    own = OperatorTable()
    for item in operators:
        attributes = () if item.schema is None else item.schema.attributes.keys()
        own.add(make_operator(item.name, item.since, item.domain, item.function, attributes))
    every = [*own, *table()]  # an operator older than the standard's holds until that
    return tuple(as_kernel(xp, item, _until(item, every)) for item in own)
