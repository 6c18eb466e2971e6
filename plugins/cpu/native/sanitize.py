"""Runs pytest on an engine built with AddressSanitizer and UndefinedBehaviorSanitizer.

python native/sanitize.py plugins/cpu/tests -x -q

The engine goes to native/build/sanitize; what is installed stays as it is. The first finding ends the run: with
status 99, and with a stack on stderr. Arguments are pytest's; ``--isa=NAME`` before them builds that instruction set
and the baseline only.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys

import build
import build_kernels

FOUND = 99
TARGET = build.NATIVE / "build" / "sanitize" / f"_engine{build.SUFFIX}"
OPTIONS = {
    # Python keeps memory until its end; sizes that no machine has come back as null, as from malloc.
    "ASAN_OPTIONS": (
        f"detect_leaks=0:allocator_may_return_null=1:max_allocation_size_mb=4096:exitcode={FOUND}:"
        "abort_on_error=0:handle_segv=1"
    ),
    "UBSAN_OPTIONS": f"print_stacktrace=1:halt_on_error=1:exitcode={FOUND}",
    "PYTHONMALLOC": "malloc",  # every object is a block that the sanitizer sees
}


def library(name: str) -> str:
    """The path of one of the compiler's runtime libraries."""
    compiler = os.environ.get("CXX", "g++").split()
    told = subprocess.run([*compiler, f"-print-file-name={name}"], check=True, capture_output=True, text=True)
    return told.stdout.strip()


def restart_under_sanitizer() -> None:
    """Start again with the runtime loaded first: it must see every allocation of the process."""
    preload = f"{library('libasan.so')}:{library('libstdc++.so')}"
    given = {**os.environ, **OPTIONS, "LD_PRELOAD": preload}
    os.execve(sys.executable, [sys.executable, *sys.argv], given)


def load_engine() -> None:
    """Let the provider import the sanitised engine."""
    import epkit_cpu

    name = "epkit_cpu._engine"
    spec = importlib.util.spec_from_file_location(name, TARGET)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    epkit_cpu._engine = module  # type: ignore[attr-defined, unused-ignore]


def main(arguments: list[str]) -> int:
    """Build, and run pytest. Returns its status."""
    only = ""
    if arguments and arguments[0].startswith("--isa="):
        only = arguments.pop(0).removeprefix("--isa=")
    if "libasan" not in os.environ.get("LD_PRELOAD", ""):
        build.build(target=TARGET, sanitize=True, only=only)
        restart_under_sanitizer()
    del os.environ["LD_PRELOAD"]  # not for the compilers that tests start
    build_kernels.EXTRA += build.SANITIZE
    if only:
        build_kernels.NEEDS = {isa: build_kernels.NEEDS[isa] for isa in {"baseline", only}}
    load_engine()
    import pytest

    plain = ["-p", "no:cacheprovider", "-p", "no:faulthandler"]
    return int(pytest.main([*plain, "--capture=sys", *arguments]))  # findings come past Python


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
