"""What each level does: phases, each of which runs until it changes nothing any more.

To add a pass or a rule, write it in its file and put it here (a fusion: into ``fusions/``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import onnx_ir as ir

from . import (
    dims_of_inputs,
    einsum_products,
    fold_affine,
    layout,
    make_gemm,
    merge_casts,
    remove_neutral,
    simplify_quantization,
    simplify_reshapes,
    simplify_transposes,
    slices_to_split,
)
from .clean_casts import clean_casts
from .expand_gradients import expand_gradients
from .fold_constants import fold_constants
from .fusions import RULES as FUSIONS
from .lift_constants import lift_constants
from .refine_shapes import REFINED, refine_shapes
from .remove_dead_code import remove_dead_code
from .remove_identities import remove_identities
from .rule import Operator, Rule
from .share_constants import share_constants
from .share_subexpressions import share_subexpressions

Pass = Callable[[ir.Model], int]
"""Changes the model in place, and returns in how many places."""


@dataclass(frozen=True)
class Phase:
    """Passes, then rules, over and over until none changes anything.

    Attributes:
        learns: whether the rules may leave more known of shapes than before.
        repeats: False for what is done once.
    """

    passes: tuple[Pass, ...] = ()
    rules: tuple[Rule, ...] = ()
    learns: bool = False
    repeats: bool = True


PREPARE = Phase((expand_gradients, lift_constants), repeats=False)
"""What every level needs: one form of a constant, and operators that can be run."""

STARTS: dict[Pass, frozenset[Operator]] = {
    expand_gradients: frozenset({("ai.onnx.preview.training", "Gradient")}),
    lift_constants: frozenset({("", "Constant")}),
    refine_shapes: frozenset(("", name) for name in REFINED),
    remove_identities: frozenset({("", "Identity"), ("", "Dropout")}),
    clean_casts: frozenset({("", "Cast")}),
}
"""Where a model has none of these operators, neither in its graphs nor in its functions, the pass finds nothing."""

SILENT: frozenset[Pass] = frozenset(
    (clean_casts, remove_dead_code, remove_identities, share_constants, share_subexpressions)
)
"""After these nothing more is known of shapes than before, and the passes before them find nothing new."""

SILENT_RULES: frozenset[Rule] = frozenset(
    (
        *merge_casts.RULES,
        *simplify_transposes.RULES,
        *remove_neutral.RULES,
        *simplify_quantization.RULES,
        *slices_to_split.RULES,
        *make_gemm.RULES,
        *fold_affine.RULES,
    )
)
"""After these nothing more is known of shapes than before: what they make has the types of what they replace."""

CLEAN = Phase(
    (
        refine_shapes,
        remove_identities,
        clean_casts,
        fold_constants,
        share_constants,
        share_subexpressions,
        remove_dead_code,
    ),
    (
        *merge_casts.RULES,
        *simplify_transposes.RULES,
        *simplify_reshapes.RULES,
        *remove_neutral.RULES,
        *simplify_quantization.RULES,
        *slices_to_split.RULES,
        *dims_of_inputs.RULES,
        *einsum_products.RULES,
        *make_gemm.RULES,
        *fold_affine.RULES,
    ),
    learns=True,
)

FUSE = Phase((remove_dead_code,), FUSIONS)

LAY_OUT = Phase((remove_dead_code,), layout.RULES)

LEVELS: dict[str, tuple[Phase, ...]] = {
    "none": (PREPARE,),
    "basic": (PREPARE, CLEAN),
    "extended": (PREPARE, CLEAN, FUSE),
    "all": (PREPARE, CLEAN, FUSE, LAY_OUT),
}
