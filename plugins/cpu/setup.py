"""Builds the native library with native/build.py; without a compiler the package installs with portable kernels."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

HERE = Path(__file__).resolve().parent
HEADER = HERE.parents[1] / "sdk" / "src" / "epkit" / "backend" / "include" / "epkit_kernel.h"

sys.path.insert(0, str(HERE / "native"))


class BuildNative(build_ext):
    """One extension, several instruction sets."""

    def build_extension(self, ext: Extension) -> None:
        from build import build  # type: ignore[import-not-found]

        try:
            # objects stay in native/build, for the next build
            build(Path(self.get_ext_fullpath(ext.name)), only=os.environ.get("EPKIT_CPU_BUILD_ISA", ""))
        except (OSError, subprocess.CalledProcessError) as error:
            self.warn(f"the native engine was not built, portable kernels will serve: {error}")


if HEADER.exists():  # a source distribution carries the header with it
    (HERE / "native" / "include").mkdir(exist_ok=True)
    shutil.copyfile(HEADER, HERE / "native" / "include" / HEADER.name)

setup(
    ext_modules=[Extension("epkit_cpu._engine", sources=[], optional=True)],
    cmdclass={"build_ext": BuildNative},
)
