"""Imports onnx_ir without sympy, which it uses for arithmetic with symbolic dimensions only.

sympy is 36 MB of memory and most of the import. So while onnx_ir is imported, two modules are stand-ins,
which import the real ones when somebody asks them for anything. They do not stay in ``sys.modules``.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any

LATE = ("sympy", "onnx_ir._symbolic_shapes")
"""The second one uses sympy where it is imported, and is used by what needs sympy only."""


class Late(ModuleType):
    """A module that is imported at the first question."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # the import system's own questions
            raise AttributeError(name)
        return getattr(importlib.import_module(self.__name__), name)


def import_onnx_ir() -> None:
    """Import onnx_ir, unless that is done already."""
    if "onnx_ir" in sys.modules:
        return
    stand_ins = {name: Late(name) for name in LATE if name not in sys.modules}
    sys.modules.update(stand_ins)
    try:
        importlib.import_module("onnx_ir")
    finally:
        for name, module in stand_ins.items():
            if sys.modules.get(name) is module:
                del sys.modules[name]
