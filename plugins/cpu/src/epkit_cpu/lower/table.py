"""All lowerings by operator; elementwise operators are in ``pointwise`` by themselves."""

from __future__ import annotations

from .attention import ATTENTION
from .choose import CHOOSE
from .conv import CONV
from .einsum import EINSUM
from .fused import FUSED
from .integer import INTEGER
from .matmul import MATMUL
from .movement import MOVEMENT
from .norm import NORM
from .quantise import QUANTISE
from .recurrent import RECURRENT
from .reduce import REDUCE
from .resize import RESIZE
from .shapes import SHAPES
from .step import Lowering
from .trees import TREES

LOWERINGS: dict[tuple[str, str], Lowering] = {
    **ATTENTION,
    **CHOOSE,
    **CONV,
    **EINSUM,
    **FUSED,
    **INTEGER,
    **MATMUL,
    **MOVEMENT,
    **NORM,
    **QUANTISE,
    **RECURRENT,
    **REDUCE,
    **RESIZE,
    **SHAPES,
    **TREES,
}
