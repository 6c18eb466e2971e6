"""Matrix products into given memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from epkit.backend import kernel


def product_shape(a: Any, b: Any, **_: Any) -> Sequence[tuple[Sequence[int], np.dtype[Any]]]:
    """The shape of ``a @ b`` for ranks of two and more.

    Raises:
        ValueError: if the inner dimensions differ.
    """
    if a.shape[-1] != b.shape[-2]:
        raise ValueError(f"the inner dimensions differ: {list(a.shape)} x {list(b.shape)}")
    batch = a.shape[:-2] if b.ndim == 2 else np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    return [((*batch, a.shape[-2], b.shape[-1]), a.dtype)]


def _has_rank_two(node: Any) -> bool | str:
    ranks = [None if value.shape is None else len(value.shape) for value in node.inputs]
    return (
        all(rank is not None and rank >= 2 for rank in ranks)
        or f"needs known ranks of at least 2, found {ranks}"
    )


@kernel("MatMul", since=1, types={"T": {"float32", "float64"}}, when=_has_rank_two, shapes=product_shape)
def matmul(a: Any, b: Any, *, out: tuple[Any, ...]) -> None:
    """a @ b by the BLAS that NumPy brings."""
    with np.errstate(all="ignore"):  # infinity and NaN are results like others
        np.matmul(a, b, out=out[0])


KERNELS = (matmul,)
