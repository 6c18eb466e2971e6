"""onnx and onnx_ir come without what they hardly ever need.

onnx_ir uses sympy for arithmetic with symbolic dimensions only, which is 36 MB of memory and most of the import, and
OpenSSL (3 MB) in one of its passes; onnx brings its generator of sources and a reader of archives. So while the modules
of ``LATE`` are imported, by whomever, what they import is a stand-in, which imports the real one when somebody asks it
for anything. Stand-ins do not stay in ``sys.modules``.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from importlib.abc import Loader  # which imports 30 modules more

LATE = {
    "onnx": ("onnx.gen_proto", "tarfile"),
    # the second one uses sympy where it is imported, and is used by what needs sympy only
    "onnx_ir": ("sympy", "onnx_ir._symbolic_shapes"),
    "onnx_ir.passes.common.initializer_deduplication": ("hashlib",),
}
"""While one of these is imported, the others wait."""


class Late(ModuleType):
    """A module that is imported at the first question."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # the import system's own questions
            raise AttributeError(name)
        if sys.modules.get(self.__name__) is self:  # another thread asks while the import is under way
            del sys.modules[self.__name__]
        return getattr(importlib.import_module(self.__name__), name)


@contextmanager
def without(names: Sequence[str]) -> Iterator[None]:
    """Stand-ins are there for the modules that are not."""
    stand_ins = {name: Late(name) for name in names if name not in sys.modules}
    sys.modules.update(stand_ins)
    try:
        yield
    finally:
        for name, stand_in in stand_ins.items():
            if sys.modules.get(name) is stand_in:
                del sys.modules[name]


class _Finder:
    """Finds some modules as the path has them, with a loader that does something before and after."""

    def __init__(self) -> None:
        self.around: dict[str, Callable[[], AbstractContextManager[None]]] = {}

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in self.around:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader, self.around[fullname])  # type: ignore[assignment]
        return spec


class _Loader:
    """Another loader's work, done within a context."""

    def __init__(self, loader: Loader, around: Callable[[], AbstractContextManager[None]]) -> None:
        self._loader, self._around = loader, around

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        assert module.__spec__ is not None
        module.__spec__.loader = module.__loader__ = self._loader
        with self._around():
            self._loader.exec_module(module)


_finder = _Finder()


def import_within(name: str, around: Callable[[], AbstractContextManager[None]]) -> None:
    """From now on a module is imported within a context, whoever imports it."""
    if _finder not in sys.meta_path:
        sys.meta_path.insert(0, _finder)
    _finder.around[name] = around


def keep_onnx_light() -> None:
    """From now on onnx and onnx_ir are imported without what they hardly ever need."""
    for name, others in LATE.items():
        import_within(name, partial(without, others))
