"""What a session says of its inputs and outputs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ValueInfo:
    """A graph input or output.

    Attributes:
        name: its name.
        dtype: element type such as ``"float32"``; "" if it is no tensor or unknown.
        shape: int where a dimension is fixed, its name (or None) where it is not; None if the rank is
            unknown.
        type: the ONNX spelling, such as ``"tensor(float)"`` or ``"seq(tensor(int64))"``.
    """

    name: str
    dtype: str
    shape: tuple[int | str | None, ...] | None
    type: str

    def __str__(self) -> str:
        dims = "?" if self.shape is None else ", ".join("?" if d is None else str(d) for d in self.shape)
        return f"{self.name}: {self.dtype or self.type}[{dims}]"
