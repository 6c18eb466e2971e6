"""The portable operators on the device's array namespace: breadth, from the first day.

Inputs that say sizes, axes or positions stay host values. What the namespace or the standard leaves to the host
(strings, sequences, trees, random numbers of a seed) is refused, with the reason.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import onnx_ir as ir

from epkit.backend import Kernel, RunContext, element_type, portable_kernels
from epkit.kernels.attributes import attribute_values

from ..launch import from_host, on_host
from ..memory import Tensor

ELEMENTS = frozenset(
    ["bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"]
    + ["float16", "float32", "float64", "complex64", "complex128"]
)
"""Element types that the array namespace computes with."""

MOVEMENT = frozenset(
    ["Concat", "Expand", "Flatten", "Identity", "Reshape", "Slice", "Split", "Squeeze", "Tile", "Transpose"]
    + ["Unsqueeze"]
)
"""Operators that move elements and compute nothing: they take bfloat16, too."""

HOST_INPUTS: dict[str, tuple[int, ...]] = {
    "AffineGrid": (1,),
    "CenterCropPad": (1,),
    "Col2Im": (1, 2),
    "ConstantOfShape": (0,),
    "CumProd": (1,),
    "CumSum": (1,),
    "DFT": (1, 2),
    "Dropout": (1, 2),
    "Expand": (1,),
    "MaxUnpool": (2,),
    "OneHot": (1,),
    "Pad": (1, 3),
    "Range": (0, 1, 2),
    "Reshape": (1,),
    "Resize": (1, 2, 3),
    "STFT": (1, 3),
    "Slice": (1, 2, 3, 4),
    "Split": (1,),
    "Squeeze": (1,),
    "Tile": (1, 2),
    "TopK": (1,),
    "Trilu": (1,),
    "Unsqueeze": (1,),
    "Upsample": (1,),
    **{f"Reduce{name}": (1,) for name in ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod")},
    **{f"Reduce{name}": (1,) for name in ("Sum", "SumSquare")},
}
"""Inputs that the host must know, by operator."""

HOST_ONLY = {
    "TfIdfVectorizer": "it looks up words one by one, which is the host's work",
    **dict.fromkeys(
        (
            "RandomNormal",
            "RandomNormalLike",
            "RandomUniform",
            "RandomUniformLike",
            "Multinomial",
            "Bernoulli",
        ),
        "random numbers of a seed come from the host",
    ),
    "NonMaxSuppression": "it decides box by box, which is the host's work",
}
"""Operators that stay on the host, and why."""


FUNCTIONS: set[Callable[..., Any]] = set()
"""Of the kernels made here: what they give may be a view of what they were given."""


def kernels(xp: Any) -> list[Kernel]:
    """The portable operators over a machine's namespace."""
    every = [item for item in portable_kernels(xp) if item.domain == ""]
    return [on_device(item) for item in every]


def on_device(item: Kernel) -> Kernel:
    """A portable kernel that takes and gives tensors."""
    function, at_host = item.function, HOST_INPUTS.get(item.op_type, ())

    def run(*tensors: Tensor | None, context: RunContext, **attributes: Any) -> Any:
        arguments = [
            None if tensor is None else on_host(context, tensor) if index in at_host else tensor.array
            for index, tensor in enumerate(tensors)
        ]
        result = function(*arguments, **attributes)
        if isinstance(result, tuple):
            return tuple(_tensor(context, array) for array in result)
        return _tensor(context, result)

    FUNCTIONS.add(run)
    return replace(item, function=run, wants=item.wants | {"context"}, when=_when(item))


def _tensor(context: RunContext, array: Any) -> Tensor:
    """A result: an array of the device, or host values that a size gave."""
    if isinstance(array, np.ndarray | np.generic):
        return from_host(context, np.asarray(array))
    del context
    return Tensor(array)


def _when(item: Kernel) -> Callable[[Any], bool | str]:
    before = item.when

    def takes(node: Any) -> bool | str:
        if node.op_type in HOST_ONLY:
            return HOST_ONLY[node.op_type]
        if node.op_type.startswith("Scatter") and attribute_values(node).get("reduction") == "mul":
            return "the device's array library cannot scatter by multiplication"
        held = ELEMENTS | {"bfloat16"} if node.op_type in MOVEMENT else ELEMENTS
        for value in (*node.inputs, *node.outputs):
            if value is None or not value.name:
                continue
            if not isinstance(value.type, ir.TensorType) or element_type(value) not in held:
                found = str(value.type or "a value of unknown type")
                return f"the device's array library cannot hold {value.name}, {found}"
        return True if before is None else before(node)

    return takes
