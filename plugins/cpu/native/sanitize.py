"""Runs pytest on an engine built with the compiler's sanitizers.

python native/sanitize.py plugins/cpu/tests -x -q             AddressSanitizer, UndefinedBehaviorSanitizer
python native/sanitize.py --thread plugins/cpu/tests -x -q    ThreadSanitizer

All instruction sets that the machine has, one run after the other; with ``--isa=NAME`` that one only. Other arguments
are pytest's. The engine goes to native/build/address or native/build/thread; what is installed stays as it is. The
first finding ends the run: with status 99, and with a stack on stderr.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import build
import build_kernels

FOUND = 99
RUNTIME = {"address": "libasan.so", "thread": "libtsan.so"}
OPTIONS = {
    # Python keeps memory until its end; sizes that no machine has come back as null, as from malloc.
    "ASAN_OPTIONS": (
        f"detect_leaks=0:allocator_may_return_null=1:max_allocation_size_mb=4096:exitcode={FOUND}:"
        "abort_on_error=0:handle_segv=1"
    ),
    "UBSAN_OPTIONS": f"print_stacktrace=1:halt_on_error=1:exitcode={FOUND}",
    # Other libraries' accesses are not seen, so neither are their locks without the system's help. A forked child may
    # start threads.
    "TSAN_OPTIONS": (
        f"halt_on_error=1:exitcode={FOUND}:ignore_noninstrumented_modules=1:die_after_fork=0:"
        "allocator_may_return_null=1:max_allocation_size_mb=4096:history_size=4"
    ),
    "PYTHONMALLOC": "malloc",  # every object is a block that the sanitizer sees
    "OPENBLAS_NUM_THREADS": "1",
}


def machine_isas() -> list[str]:
    """The instruction sets that this machine has, of those we build; the best first."""
    known = list(build.instruction_sets())
    return known[known.index(build.native_isa()) :: -1]


def library(name: str) -> str:
    """The path of one of the compiler's runtime libraries."""
    told = subprocess.run(
        [*build.compiler(), f"-print-file-name={name}"], check=True, capture_output=True, text=True
    )
    return told.stdout.strip()


def restart(kind: str) -> None:
    """Start again with the sanitizer's runtime loaded first: it must see every allocation of the process."""
    preload = f"{library(RUNTIME[kind])}:{library('libstdc++.so')}"
    os.execve(sys.executable, [sys.executable, *sys.argv], {**OPTIONS, **os.environ, "LD_PRELOAD": preload})


def load_engine(path: Path) -> None:
    """Let the provider import the sanitised engine."""
    import epkit_cpu

    name = "epkit_cpu._engine"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    epkit_cpu._engine = module  # type: ignore[attr-defined, unused-ignore]


def run_one(kind: str, isa: str, arguments: list[str]) -> int:
    """Build for one instruction set, and run pytest. Returns its status."""
    target = build.NATIVE / "build" / kind / isa / f"_engine{build.SUFFIX}"
    if RUNTIME[kind] not in os.environ.get("LD_PRELOAD", ""):
        build.build(target=target, sanitize=kind, only=isa)
        restart(kind)
    del os.environ["LD_PRELOAD"]  # not for the compilers that tests start
    build_kernels.EXTRA += [*build.SANITIZE[kind], *build.TRACED]
    build_kernels.NEEDS = {name: build_kernels.NEEDS[name] for name in {"baseline", isa}}
    load_engine(target)
    import pytest

    plain = ["-p", "no:cacheprovider", "-p", "no:faulthandler"]
    return int(pytest.main([*plain, "--capture=sys", *arguments]))  # findings come past Python


def main(arguments: list[str]) -> int:
    """Every instruction set, or the one asked for, up to the first that fails. Returns its status."""
    kind = "thread" if "--thread" in arguments else "address"
    isas = [argument.removeprefix("--isa=") for argument in arguments if argument.startswith("--isa=")]
    rest = [
        argument for argument in arguments if argument != "--thread" and not argument.startswith("--isa=")
    ]
    if isas:
        return run_one(kind, isas[0], rest)
    for isa in machine_isas():
        print(f"{kind} sanitizer, {isa}", flush=True)
        status = subprocess.run([sys.executable, sys.argv[0], f"--isa={isa}", *arguments]).returncode
        if status:
            return status
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
