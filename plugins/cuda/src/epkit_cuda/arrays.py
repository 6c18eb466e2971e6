"""The array namespace that portable operators see: CuPy's, and the few functions of the standard that it lacks."""

from __future__ import annotations

from typing import Any


class Arrays:
    """A namespace over another one."""

    def __init__(self, source: Any) -> None:
        self._source = source

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)

    def vecdot(self, a: Any, b: Any, /, *, axis: int = -1) -> Any:
        """The sum of conj(a) b along an axis."""
        left = self._source.conj(a) if a.dtype.kind == "c" else a
        return self._source.sum(left * b, axis=axis)

    @property
    def linalg(self) -> Linalg:
        """Linear algebra."""
        return Linalg(self._source)


class Linalg:
    """The part ``linalg`` of the namespace."""

    def __init__(self, source: Any) -> None:
        self._source = source

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source.linalg, name)

    def diagonal(self, x: Any, /, *, offset: int = 0) -> Any:
        """The diagonals of the matrices in the last two axes."""
        return self._source.diagonal(x, offset=offset, axis1=-2, axis2=-1)
