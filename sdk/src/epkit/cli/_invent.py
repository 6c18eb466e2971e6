"""Invents inputs from a model's interface: small, plausible, the same for the same seed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..dtypes import BY_SPELLING, FLOATS, numpy_dtype
from ..errors import InputError, OptionError, Where
from ..runtime.value_info import ValueInfo

SEQUENCE = 16
SIGNAL = 512
SIZES = (
    (r"batch|^[nb]$", 1),
    (r"past", 0),
    (r"height|width|^[hw]$", 64),
    (r"channel|^c$", 3),
    (r"sample", 16000),
    (r"seq|len|time|token|frame|^[lst]$", SEQUENCE),
)
"""Sizes of symbolic dimensions by what their names say; the first that fits."""


class Inventor:
    """Makes inputs. A symbolic dimension has one size in all of them.

    Args:
        sizes: sizes by the dimension's name; the rest is guessed from names and positions.
        seed: of the random numbers.
    """

    def __init__(self, sizes: Mapping[str, int], seed: int = 0) -> None:
        self.sizes = dict(sizes)
        self._random = np.random.default_rng(seed)

    def learn(self, info: ValueInfo, value: Any) -> None:
        """Take the sizes of symbolic dimensions from an input that was given."""
        shape = getattr(value, "shape", ())
        for dim, size in zip(info.shape or (), shape, strict=False):
            if isinstance(dim, str):
                self.sizes.setdefault(dim, size)

    def make(self, info: ValueInfo) -> Any:
        """A value for the input; None for an optional one, which means that it is left out.

        Raises:
            InputError: if the model does not say enough about it.
        """
        if info.dtype:
            if info.shape is None:
                raise _unknown(info, "its rank is unknown")
            shape = tuple(self.size(dim, axis, info) for axis, dim in enumerate(info.shape))
            return self.array(info.name, info.dtype, shape)
        if info.type.startswith("optional("):
            return None
        item = re.fullmatch(r"seq\(tensor\((\w+)\)\)", info.type)
        if item is None:
            raise _unknown(info, f"its type is {info.type}")
        return [self.array(info.name, BY_SPELLING[item[1]], (2, 3)) for _ in range(2)]

    def size(self, dim: int | str | None, axis: int, info: ValueInfo) -> int:
        """The size of a dimension; sums of names, such as ``past + 1``, are computed."""
        if isinstance(dim, int):
            return dim
        if dim is None:
            return guess("", axis, info)
        if dim not in self.sizes and "+" in dim:
            terms = (term.strip() for term in dim.split("+"))
            return sum(int(term) if term.isdecimal() else self.size(term, axis, info) for term in terms)
        return self.sizes.setdefault(dim, guess(dim, axis, info))

    def array(self, name: str, dtype: str, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
        """Masks are ones, positions count up, other integers are small, floats lie in [0, 1)."""
        name = name.lower()
        target = numpy_dtype(dtype)
        if dtype == "string":
            return np.full(shape, "text", object)
        if "mask" in name:
            return np.ones(shape, target)
        if dtype == "bool":
            return self._random.integers(0, 2, shape).astype(bool)
        if target.kind not in "iu" and "int" not in dtype:
            return self._random.random(shape).astype(target)
        if "position" in name and shape:
            return np.broadcast_to(np.arange(shape[-1]), shape).astype(target)
        if "type" in name or "segment" in name:
            return np.zeros(shape, target)
        top = 2 if dtype.endswith("int2") else 8  # int2 ends at 1, int4 at 7
        return self._random.integers(0, top, shape).astype(target)


def guess(name: str, axis: int, info: ValueInfo) -> int:
    """The size of a dimension that nobody gave, from its name, else from its position.

    By position, the first is a batch of one; then come a signal in a matrix of floats, channels and a small
    picture where there are four dimensions and more, else a short sequence.
    """
    shape = info.shape or ()
    signal = SIGNAL if len(shape) == 2 and axis == 1 and info.dtype in FLOATS else None
    for pattern, size in SIZES:
        if re.search(pattern, name.lower()):
            return signal or size if size == SEQUENCE else size
    if all(isinstance(dim, int) and dim != 1 for dim in shape[:axis]):
        return 1
    if len(shape) >= 4:
        return 64 if axis >= len(shape) - 2 else 3
    return signal or SEQUENCE


def check_sizes(sizes: Mapping[str, int], infos: tuple[ValueInfo, ...]) -> None:
    """Refuse sizes for dimensions that no input has.

    Raises:
        OptionError: listing the symbolic dimensions that there are.
    """
    known = {dim for info in infos for dim in info.shape or () if isinstance(dim, str)}
    parts = {part.strip() for dim in known for part in dim.split("+") if not part.strip().isdecimal()}
    for name in sizes:
        if name not in known | parts:
            listed = ", ".join(sorted(known | parts)) or "none"
            raise OptionError(
                f"no input has a symbolic dimension {name!r}",
                remedy=f"the symbolic dimensions are: {listed}",
            )


def _unknown(info: ValueInfo, why: str) -> InputError:
    return InputError(
        f"no value can be invented for the input {info.name!r}: {why}",
        where=Where(value=info.name),
        remedy=f"give one: --input {info.name}=FILE, or --data FOLDER",
    )
