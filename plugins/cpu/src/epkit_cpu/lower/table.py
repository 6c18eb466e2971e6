"""All lowerings by operator; elementwise operators are in ``pointwise`` by themselves."""

from __future__ import annotations

from .conv import CONV
from .matmul import MATMUL
from .movement import MOVEMENT
from .norm import NORM
from .reduce import REDUCE
from .shapes import SHAPES
from .step import Lowering

LOWERINGS: dict[tuple[str, str], Lowering] = {
    **CONV,
    **MATMUL,
    **MOVEMENT,
    **NORM,
    **REDUCE,
    **SHAPES,
}
