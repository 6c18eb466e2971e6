"""What an untrusted model may ask for. Generous defaults: any real model passes, a bomb does not."""

from __future__ import annotations

from dataclasses import dataclass

from epkit.errors import UnsafeModelError

GIB = 1 << 30


@dataclass(frozen=True)
class Limits:
    """Upper bounds that reading enforces.

    Attributes:
        nesting: graphs within graphs (bodies of If, Loop, Scan), counted from the main graph.
        nodes: nodes in all graphs and functions together.
        rank: dimensions of one tensor.
        tensor_bytes: size of one weight, unpacked.
        total_bytes: size of all weights together, unpacked.
        text_bytes: size of a file in one of the text formats, which must be read whole.
        expanded_bytes: memory for sparse weights written out as dense ones.
    """

    nesting: int = 24
    nodes: int = 2_000_000
    rank: int = 64
    tensor_bytes: int = 1024 * GIB
    total_bytes: int = 4096 * GIB
    text_bytes: int = 1 * GIB
    expanded_bytes: int = 1 * GIB

    def refuse_above(self, field: str, size: int, what: str) -> None:
        """Raise UnsafeModelError if `size` exceeds the limit named `field`."""
        bound = getattr(self, field)
        if size > bound:
            raise UnsafeModelError(
                f"{what}: {size:,}, more than the limit of {bound:,}.",
                remedy=f"if you trust the model, read it with limits=Limits({field}={size})",
            )


DEFAULT_LIMITS = Limits()
