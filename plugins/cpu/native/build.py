"""Builds the native library: engine sources once, operators and kernels once per instruction set.

python native/build.py              build in place, only what has changed
python native/build.py --isa=avx512 that instruction set only; native: the best that this machine has

EPKIT_CPU_BUILD_ISA=native chooses the same way while the package is installed.

sanitize.py builds with the compiler's sanitizers, and runs tests there.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import sysconfig
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

NATIVE = Path(__file__).resolve().parent
PACKAGE = NATIVE.parent / "src" / "epkit_cpu"
SUFFIX = sysconfig.get_config_var("EXT_SUFFIX") or ".so"

X86 = {
    "baseline": ["-O1"],  # hardly any machine needs it, and it would be a third of the build
    "avx2": ["-march=x86-64-v3"],
    "avx512": ["-march=x86-64-v4", "-mavx512vnni", "-mavx512bf16", "-mprefer-vector-width=512"],
}
ARM = {"baseline": [], "neon": ["-march=armv8.2-a+dotprod"]}

COMMON = [
    *("-O3", "-fPIC", "-fvisibility=hidden"),
    *("-falign-functions=64", "-falign-loops=64"),  # a loop's speed is not to hang on what is before it
    *("-Wall", "-Wextra", "-Wno-psabi", "-Wno-uninitialized", "-Wno-maybe-uninitialized"),
]
MATH = ["-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast", "-fno-rtti", "-fno-exceptions"]
SANITIZE = {
    "": [],
    "address": ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"],
    "thread": ["-fsanitize=thread"],
}
TRACED = [
    "-fno-omit-frame-pointer",
    "-O1",
    "-fexpensive-optimizations",
    "-g1",
]  # fused multiply-adds as elsewhere


@dataclass(frozen=True)
class Unit:
    """One compilation: a source, its object, the flags."""

    source: Path
    object: Path
    flags: tuple[str, ...]

    @property
    def dependencies(self) -> Path:
        """The file in which the compiler lists the headers that it read."""
        return self.object.with_suffix(".d")

    def is_fresh(self) -> bool:
        """True if the object is newer than all that it was made from."""
        flags = self.object.with_suffix(".flags")
        if not (self.object.exists() and self.dependencies.exists() and flags.exists()):
            return False
        if flags.read_text() != " ".join(self.flags):
            return False
        names = self.dependencies.read_text().replace("\\\n", " ").split(":", 1)[1].split()
        made = self.object.stat().st_mtime
        return all(Path(name).exists() and Path(name).stat().st_mtime <= made for name in names)


def instruction_sets() -> dict[str, list[str]]:
    """Flags of each instruction set of this machine's architecture."""
    return ARM if platform.machine() in ("aarch64", "arm64") else X86


def header_folder() -> Path:
    """Where ``epkit_kernel.h`` is: in the repository, or in a source distribution."""
    beside = NATIVE.parents[2] / "sdk" / "src" / "epkit" / "backend" / "include"
    return beside if beside.is_dir() else NATIVE / "include"


def native_isa() -> str:
    """The best instruction set that this machine has, of those we build.

    Raises:
        OSError, subprocess.CalledProcessError: if there is no compiler, or it fails.
    """

    def macros(*flags: str) -> set[str]:
        command = [*compiler(), *flags, "-dM", "-E", "-x", "c++", os.devnull]
        text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        return {line.split()[1] for line in text.splitlines() if line.split()[1].startswith("__A")}

    here = macros("-march=native")
    return [isa for isa, flags in instruction_sets().items() if macros(*flags) <= here][-1]


def units(folder: Path, extra: list[str], only: str = "") -> list[Unit]:
    """Everything to compile."""
    import numpy

    includes = [f"-I{header_folder()}", f"-I{NATIVE / 'engine'}"]
    only = native_isa() if only == "native" else only
    chosen = {k: v for k, v in instruction_sets().items() if only in ("", k)}
    python = [
        *(f"-DEPK_HAS_{isa}" for isa in chosen),
        f"-I{sysconfig.get_paths()['include']}",
        f"-I{numpy.get_include()}",
    ]
    common = [*COMMON, "-std=c++17", *includes, *extra]
    engine = f"engine-{only}" if only else "engine"
    found = [
        Unit(source, folder / f"{engine}-{source.stem}.o", (*common, *python))
        for source in sorted((NATIVE / "engine").glob("*.cpp"))
    ]
    for isa, flags in chosen.items():
        for source in sorted([*(NATIVE / "ops").glob("*.cpp"), *(NATIVE / "kernels").glob("*.cpp")]):
            name = f"{isa}-{source.parent.name}-{source.stem}.o"
            found.append(Unit(source, folder / name, (*common, *MATH, *flags, f"-DEPK_ISA={isa}")))
    return found


def compiler() -> list[str]:
    """The C++ compiler's command."""
    return os.environ.get("CXX", "g++").split()


def compile_unit(unit: Unit) -> None:
    """Run the compiler for one unit."""
    command = [*compiler(), *unit.flags, "-MMD", "-MF", str(unit.dependencies), "-c", str(unit.source)]
    started = time.time()
    subprocess.run([*command, "-o", str(unit.object)], check=True)
    os.utime(unit.object, (started, started))  # what is edited meanwhile counts as newer
    unit.object.with_suffix(".flags").write_text(" ".join(unit.flags))


def build(target: Path | None = None, folder: Path | None = None, sanitize: str = "", only: str = "") -> Path:
    """Compile what is stale and link, with the flags of ``SANITIZE[sanitize]``. Returns the extension module.

    Raises:
        OSError, subprocess.CalledProcessError: if there is no compiler, or it fails.
    """
    extra = [*SANITIZE[sanitize], *TRACED] if sanitize else []
    folder = folder or NATIVE / "build" / (sanitize or "release")
    target = target or PACKAGE / f"_engine{SUFFIX}"
    folder.mkdir(parents=True, exist_ok=True)
    everything = units(folder, extra, only)
    stale = [unit for unit in everything if not unit.is_fresh()]
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        list(pool.map(compile_unit, stale))
    if stale or not target.exists() or target.stat().st_mtime < folder.stat().st_mtime:
        objects = [str(unit.object) for unit in everything]
        target.parent.mkdir(parents=True, exist_ok=True)
        fresh = target.with_suffix(".new")
        command = [*compiler(), "-shared", "-pthread", *extra, *objects, "-Wl,-s" if not sanitize else "-g"]
        subprocess.run([*command, "-o", str(fresh)], check=True)
        fresh.replace(target)  # a process that has the old one loaded keeps it
    return target


if __name__ == "__main__":
    isas = [argument.removeprefix("--isa=") for argument in sys.argv[1:] if argument.startswith("--isa=")]
    print(build(only=isas[0] if isas else ""))
