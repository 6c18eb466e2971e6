"""All lowerings by operator; elementwise operators are in ``pointwise`` by themselves."""

from __future__ import annotations

from .matmul import MATMUL
from .movement import MOVEMENT
from .reduce import REDUCE
from .shapes import SHAPES
from .step import Lowering

LOWERINGS: dict[tuple[str, str], Lowering] = {**MATMUL, **MOVEMENT, **REDUCE, **SHAPES}
