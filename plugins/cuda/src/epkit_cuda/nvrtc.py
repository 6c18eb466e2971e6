"""The run-time compiler of CUDA C++, from the wheel ``nvidia-cuda-nvrtc`` or the system; it needs no GPU."""

from __future__ import annotations

import ctypes
import re
from functools import cache
from pathlib import Path

from epkit.errors import CompileError, Where

NAMES = ("libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so")


@cache
def library(newest: int = 99) -> ctypes.CDLL:
    """The compiler's library, of a generation that the driver can load code of.

    Args:
        newest: the driver's generation of CUDA, such as 12.

    Raises:
        CompileError: if there is none.
    """
    candidates = [name for name in (*_in_wheels(), *NAMES) if generation(name) <= newest]
    for candidate in candidates:
        try:
            return ctypes.CDLL(candidate)
        except OSError:
            continue
    raise CompileError(
        "NVRTC, the compiler of CUDA kernels, is not installed",
        where=Where(stage="compile", provider="cuda"),
        remedy="pip install epkit-cuda[cu13] (or epkit-cuda[cu12] for a driver older than 580)",
    )


def generation(name: str) -> int:
    """Of CUDA, from a library's name; 0 where it is not said."""
    found = re.search(r"\.so\.(\d+)$", name)
    return int(found[1]) if found else 0


def _in_wheels() -> list[str]:
    """Files of NVIDIA's wheels, the newest first."""
    try:
        import nvidia  # type: ignore[import-untyped,import-not-found,unused-ignore]
    except ImportError:
        return []
    found = {path for root in nvidia.__path__ for path in Path(root).glob("*/lib/libnvrtc.so.*")}
    usable = [path for path in found if re.fullmatch(r"libnvrtc\.so\.\d+", path.name)]
    return [str(path) for path in sorted(usable, key=lambda path: path.name, reverse=True)]


def version(newest: int = 99) -> str:
    """Such as ``13.0``."""
    major, minor = ctypes.c_int(), ctypes.c_int()
    library(newest).nvrtcVersion(ctypes.byref(major), ctypes.byref(minor))
    return f"{major.value}.{minor.value}"


def compiled(source: str, architecture: str, newest: int = 99) -> bytes:
    """The machine code (a cubin) of a source for an architecture such as ``sm_90``.

    Args:
        newest: see :func:`library`.

    Raises:
        CompileError: with the compiler's words and the lines that they are about.
    """
    nvrtc, program = library(newest), ctypes.c_void_p()
    nvrtc.nvrtcCreateProgram(ctypes.byref(program), source.encode(), b"kernel.cu", 0, None, None)
    try:
        options = [f"--gpu-architecture={architecture}", "--std=c++17", "--device-as-default-execution-space"]
        array = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
        if nvrtc.nvrtcCompileProgram(program, len(options), array) != 0:
            log = _text(nvrtc.nvrtcGetProgramLogSize, nvrtc.nvrtcGetProgramLog, program)
            raise CompileError(
                f"NVRTC {version(newest)} did not compile a kernel for {architecture}: {_explained(log, source)}",
                where=Where(stage="compile", provider="cuda"),
                remedy="report it with this text, and the versions that `epkit providers` shows",
            )
        return _bytes(nvrtc.nvrtcGetCUBINSize, nvrtc.nvrtcGetCUBIN, program)
    finally:
        nvrtc.nvrtcDestroyProgram(ctypes.byref(program))


def _bytes(size_of: object, get: object, program: ctypes.c_void_p) -> bytes:
    size = ctypes.c_size_t()
    size_of(program, ctypes.byref(size))  # type: ignore[operator]
    buffer = ctypes.create_string_buffer(size.value)
    get(program, buffer)  # type: ignore[operator]
    return buffer.raw


def _text(size_of: object, get: object, program: ctypes.c_void_p) -> str:
    return _bytes(size_of, get, program).rstrip(b"\0").decode(errors="replace")


def _explained(log: str, source: str) -> str:
    """The log, and the source lines that it names."""
    lines = source.splitlines()
    numbers = sorted({int(found) for found in re.findall(r"\((\d+)\): error", log)})
    told = [f"  line {n}: {lines[n - 1].strip()}" for n in numbers[:5] if 0 < n <= len(lines)]
    return "\n".join([log.strip()[-1500:], *told])
