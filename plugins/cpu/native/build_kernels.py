"""Builds the math kernels alone, for their tests and the microbenchmark: one library, every instruction set.

The package's own build compiles the same sources with the same flags (``ISAS``, ``FLAGS``).
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

KERNELS = Path(__file__).parent / "kernels"
FLAGS = [
    *("-std=c++17", "-O3", "-fPIC", "-fno-exceptions", "-fno-rtti"),
    *("-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math"),
    *("-Wall", "-Wextra", "-Wno-psabi", "-Wno-unknown-pragmas"),
    *("-Wno-maybe-uninitialized", "-Wno-uninitialized"),  # GCC 12 on its own intrinsics
]
EXTRA: list[str] = []
"""More flags for the compiler and the linker; sanitize.py sets them."""
ISAS = {
    "baseline": [],
    "avx2": ["-march=x86-64-v3"],
    "avx512": ["-march=x86-64-v4", "-mavx512vnni", "-mavx512bf16"],
}
NEEDS = {
    "baseline": set(),
    "avx2": {"avx2", "fma", "f16c"},
    "avx512": {"avx512bw", "avx512_vnni", "avx512_bf16"},
}


def machine_isas() -> list[str]:
    """The instruction sets of ``ISAS`` that this machine can run, the lowest first."""
    if platform.machine() != "x86_64":
        return ["baseline"]
    flags = set(Path("/proc/cpuinfo").read_text().split("flags", 1)[1].split("\n", 1)[0].split())
    return [isa for isa, needs in NEEDS.items() if needs <= flags]


def build(isas: list[str] | None = None) -> Path:
    """The shared library, compiled where its sources, headers or flags have changed. Raises CalledProcessError."""
    cache = Path(os.environ.get("TMPDIR", tempfile.gettempdir())) / f"epkit-kernels-{os.getuid()}"
    cache.mkdir(exist_ok=True)
    jobs = []
    for isa in isas or machine_isas():
        for source in sorted(KERNELS.glob("*.cpp")):
            command = ["g++", *FLAGS, *ISAS[isa], *EXTRA, f"-DEPK_ISA={isa}", "-c", str(source)]
            key = hashlib.sha256(repr(command).encode() + _with_headers(source)).hexdigest()[:16]
            jobs.append((command, cache / f"{source.stem}-{isa}-{key}.o"))
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(_compile, jobs))
    objects = [str(target) for _, target in jobs]
    library = cache / f"kernels-{hashlib.sha256(''.join(objects).encode()).hexdigest()[:16]}.so"
    if not library.exists():
        partial = f"{library}.{os.getpid()}"
        subprocess.run(["g++", "-shared", *EXTRA, "-o", partial, *objects, "-lm", "-lpthread"], check=True)
        os.replace(partial, library)
    return library


def _with_headers(source: Path) -> bytes:
    """The text of a source and of all the headers of this folder that it includes."""
    found = [source]
    for file in found:
        names = re.findall(r'^#include "(.+)"', file.read_text(), re.MULTILINE)
        found += [path for name in names if (path := file.parent / name) not in found]
    return b"".join(file.read_bytes() for file in found)


def _compile(job: tuple[list[str], Path]) -> None:
    command, target = job
    if not target.exists():
        partial = f"{target}.{os.getpid()}"
        subprocess.run([*command, "-o", partial], check=True)
        os.replace(partial, target)


if __name__ == "__main__":
    print(build())
