"""Windows that slide over images: what convolutions and pooling share."""

from __future__ import annotations

from collections.abc import Sequence

from .step import View, longs

AUTO_PADS = ("NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID")


def three(numbers: Sequence[int] | None, rank: int, fill: int) -> list[int]:
    """Numbers of the last ``rank`` of three dimensions."""
    found = [fill] * rank if numbers is None else [int(n) for n in numbers]
    return [fill] * (3 - rank) + found


def window(view: View, kernel: Sequence[int], extra: Sequence[int] = ()) -> bytes | None:
    """Window in ops/window.h, with ``extra`` padding; None for what it cannot say."""
    rank, attributes = len(kernel), view.attributes
    auto_pad = attributes.get("auto_pad", "NOTSET")
    pads = attributes.get("pads") or [0] * (2 * rank)
    if auto_pad not in AUTO_PADS or not 1 <= rank <= 3 or len(pads) != 2 * rank or min(pads) < 0:
        return None
    strides, dilations = attributes.get("strides"), attributes.get("dilations")
    if any(n is not None and (len(n) != rank or min(n) < 1) for n in (strides, dilations)) or min(kernel) < 1:
        return None
    if auto_pad != "NOTSET":
        pads = [0] * (2 * rank)
    pads = [a + b for a, b in zip(pads, extra or [0] * (2 * rank), strict=True)]
    if max(*kernel, *pads, *(strides or (1,)), *(dilations or (1,))) >= 2**31:
        return None  # products of these stay below 2**63
    if any(extra):
        auto_pad = "NOTSET"  # which is VALID where nothing was written out
    return longs(
        rank,
        AUTO_PADS.index(auto_pad),
        int(attributes.get("ceil_mode", 0)),
        *three(kernel, rank, 1),
        *three(strides, rank, 1),
        *three(dilations, rank, 1),
        *three(pads[:rank], rank, 0),
        *three(pads[rank:], rank, 0),
    )
