"""Element types as DLPack's numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from epkit.dtypes import NAME

if TYPE_CHECKING:
    import onnx_ir as ir

INT, UINT, FLOAT, BFLOAT, COMPLEX, BOOL = 0, 1, 2, 4, 5, 6

NATIVE: dict[str, tuple[int, int]] = {
    **{f"int{bits}": (INT, bits) for bits in (8, 16, 32, 64)},
    **{f"uint{bits}": (UINT, bits) for bits in (8, 16, 32, 64)},
    **{f"float{bits}": (FLOAT, bits) for bits in (16, 32, 64)},
    "bfloat16": (BFLOAT, 16),
    "bool": (BOOL, 8),
    "complex64": (COMPLEX, 64),
    "complex128": (COMPLEX, 128),
    "float8_e4m3fn": (10, 8),
    "float8_e4m3fnuz": (11, 8),
    "float8_e5m2": (12, 8),
    "float8_e5m2fnuz": (13, 8),
    "float8_e8m0fnu": (14, 8),
}
"""(code, bits) of the types that native kernels see; the others stay Python's."""


def native_type(kind: str) -> tuple[int, int]:
    """(code, bits) of an element type; (0, 0) if native kernels do not see it."""
    return NATIVE.get(kind, (0, 0))


def is_numeric(kind: str) -> bool:
    """True for element types whose tensors native kernels move: whole bytes, no text."""
    return kind in NATIVE


def kind_of(value: ir.Value | None) -> str:
    """The element type of a tensor; "" for sequences, optionals and what is not known."""
    kind = None if value is None else value.type
    return NAME.get(kind.dtype, "") if type(kind).__name__ == "TensorType" else ""  # type: ignore[union-attr]
