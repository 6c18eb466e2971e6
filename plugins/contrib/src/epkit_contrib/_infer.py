"""What the shape rules of this package share: types as (element type, dimensions).

A dimension is a number, the name of a symbolic one, or None where nothing is known; dimensions as a whole
are None where even the rank is unknown.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from onnx.helper import get_attribute_value, make_tensor_type_proto

Dim = int | str | None
Dims = list[Dim] | None


def elem(ctx: Any, index: int) -> int:
    """The element type of an input, 0 if it is absent or unknown."""
    given = ctx.get_input_type(index) if ctx.has_input(index) else None
    return int(given.tensor_type.elem_type) if given is not None else 0


def dims(ctx: Any, index: int, rank: int | None = None) -> Dims:
    """The dimensions of an input, None if they are unknown or it is absent.

    Raises:
        ValueError: if it does not have the ``rank`` asked for.
    """
    given = ctx.get_input_type(index) if ctx.has_input(index) else None
    if given is None or not given.tensor_type.HasField("shape"):
        return None
    found = [_dim(d) for d in given.tensor_type.shape.dim]
    if rank is not None and len(found) != rank:
        raise ValueError(f"input {index} of shape {found} should have {rank} axes")
    return found


def _dim(proto: Any) -> Dim:
    which = proto.WhichOneof("value")
    return getattr(proto, which) if which else None


def attr(ctx: Any, name: str, default: Any = None) -> Any:
    """The value of an attribute; a string as text."""
    proto = ctx.get_attribute(name)
    if proto is None:
        return default
    value = get_attribute_value(proto)
    return value.decode() if isinstance(value, bytes) else value


def put(ctx: Any, output: int, element: int, shape: Sequence[Dim] | None) -> None:
    """Set the type of an output, if the node has it and the element type is known."""
    if element and ctx.has_output(output):
        ctx.set_output_type(output, make_tensor_type_proto(element, shape))


def like(*pairs: tuple[int, int]) -> Callable[[Any], None]:
    """A rule: each (output, input) has the same type and shape."""

    def infer(ctx: Any) -> None:
        for output, index in pairs:
            put(ctx, output, elem(ctx, index), dims(ctx, index))

    return infer


same = like((0, 0))
"""The rule of all that compute their first output element by element from their first input."""


def plus(*terms: Dim) -> Dim:
    """The sum of dimensions, unknown if one of them is not a number."""
    return sum(terms) if all(isinstance(t, int) for t in terms) else None  # type: ignore[arg-type]


def over(a: Dim, b: Dim) -> Dim:
    """a / b where both are numbers and it is whole."""
    return a // b if isinstance(a, int) and isinstance(b, int) and b > 0 and not a % b else None


def times(a: Dim, b: Dim) -> Dim:
    """The product of two dimensions, unknown if one of them is not a number."""
    return a * b if isinstance(a, int) and isinstance(b, int) else None


def broadcast(a: Dims, b: Dims) -> Dims:
    """The shape that two shapes broadcast to."""
    if a is None or b is None:
        return None
    rank = max(len(a), len(b))
    padded = zip([1] * (rank - len(a)) + a, [1] * (rank - len(b)) + b, strict=True)
    return [_broadcast(x, y) for x, y in padded]


def _broadcast(x: Dim, y: Dim) -> Dim:
    if x == y or y == 1:
        return x
    if x == 1:
        return y
    numbers = [d for d in (x, y) if isinstance(d, int)]
    if len(numbers) == 2:
        raise ValueError(f"dimensions {x} and {y} do not broadcast")
    return numbers[0] if numbers else None
