"""The passes of each level. To add a pass, write its file and put its function here."""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir

from .clean_casts import clean_casts
from .expand_gradients import expand_gradients
from .fold_batch_normalization import fold_batch_normalization
from .fold_constants import fold_constants
from .lift_constants import lift_constants
from .remove_dead_code import remove_dead_code
from .remove_identities import remove_identities
from .share_subexpressions import share_subexpressions

Pass = Callable[[ir.Model], int]

NONE: tuple[Pass, ...] = (expand_gradients, lift_constants)
BASIC: tuple[Pass, ...] = (
    *NONE,
    remove_identities,
    clean_casts,
    fold_constants,
    share_subexpressions,
    fold_batch_normalization,
    remove_dead_code,
)
EXTENDED: tuple[Pass, ...] = BASIC
ALL: tuple[Pass, ...] = EXTENDED

LEVELS: dict[str, tuple[Pass, ...]] = {"none": NONE, "basic": BASIC, "extended": EXTENDED, "all": ALL}
