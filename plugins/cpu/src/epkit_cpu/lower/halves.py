"""float16 through float32: what has a native step for float32 has one for float16, rounded once where it ends."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ..image import THROUGH
from ..native import FLOAT32, FORMS
from .step import Lowering, Step, View, longs
from .types import kind_of

KERNEL = THROUGH
F16 = FORMS.index("f16")


def through_float32(view: View, lowering: Lowering, addresses: Mapping[str, int]) -> Step | None:
    """The step that a lowering makes of a node of float16 values as if they were float32, wrapped.

    Args:
        addresses: of the native kernels, by name.
    """
    if KERNEL not in addresses or "float16" not in {kind_of(v) for v in (*view.inputs, *view.outputs)}:
        return None
    if view.op == "Softmax":  # its meaning has several steps, and the results of all of them are of float16
        axis = int(view.attributes.get("axis", -1))
        return view.step("softmax_halves", longs(axis)) if view.opset >= 13 else None
    # weights of products stay in 16 bits, unless the products are narrower still
    narrow = F16 if view.narrow == FLOAT32 else view.narrow
    step = lowering(replace(view, halves=True, narrow=narrow))
    if step is None or step.kernel not in addresses:
        return None
    return wrapped(step, addresses[step.kernel])


def wrapped(step: Step, address: int) -> Step:
    """A step of float32 values as one of float16 values."""
    head, image = longs(address, 0), step.image
    if image is not None:
        inner = image.attributes
        image = replace(
            image, attributes=lambda in_blocked, out_blocked: head + inner(in_blocked, out_blocked)
        )
    return replace(step, kernel=KERNEL, attributes=head + step.attributes, alias=False, image=image)
