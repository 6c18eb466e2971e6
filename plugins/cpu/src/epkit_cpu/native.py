"""The native library: whether it is there, which instruction set serves, its kernels by name."""

from __future__ import annotations

import importlib
import warnings
from functools import cache
from types import ModuleType
from typing import Any

import xxhash

from epkit.errors import OptionError
from epkit.knobs import Knob


def _choice(text: str) -> str:
    if text not in ("auto", "off"):
        raise ValueError("expected auto or off")
    return text


ISA: Knob[str] = Knob(
    "EPKIT_CPU_ISA",
    "",
    str,
    "the native kernels' instructions (avx512fp16, avx512, avx2, neon, baseline), or none",
)
BF16: Knob[str] = Knob(
    "EPKIT_CPU_BF16",
    "",
    str,
    "how precision='bf16' multiplies (dot, wide, half); the CPU's fastest if not given",
)
WINOGRAD: Knob[str] = Knob(
    "EPKIT_CPU_WINOGRAD",
    "auto",
    _choice,
    "off: all convolutions by direct sums, which keep an infinity to the outputs that read it; auto: by measured rules",
)
FORMS = ("dot", "wide", "half", "f16")
"""In the order of EpkForm16 in kernels/gemm16.h."""
FLOAT32 = -1

REMEDY = (
    "install a C++17 compiler and reinstall epkit-cpu, or install a wheel: pip install --only-binary :all:"
)


@cache
def engine() -> ModuleType | None:
    """The extension module, or None if the package was installed without a compiler."""
    try:
        return importlib.import_module("epkit_cpu._engine")
    except ModuleNotFoundError:
        return None
    except ImportError as error:
        warnings.warn(
            f"the CPU provider's native engine is broken: {error}; {REMEDY}", RuntimeWarning, stacklevel=2
        )
        return None


@cache
def engine_digest() -> str:
    """A digest of the library: what its kernels pack, another build of it may read otherwise."""
    module = engine()
    path = None if module is None else module.__file__
    if path is None:
        return ""
    digest = xxhash.xxh3_64()
    with open(path, "rb") as file:
        while block := file.read(1 << 16):  # not mapped, nor read whole: it would stay in the process's peak
            digest.update(block)
    return str(digest.hexdigest())


@cache
def isas() -> tuple[str, ...]:
    """The instruction sets that the library has and this CPU understands, best first."""
    module = engine()
    return () if module is None else tuple(module.isas())


def chosen_isa() -> str:
    """The instruction set in force; "" if there are no native kernels, or ``EPKIT_CPU_ISA=none`` forbids them.

    Raises:
        OptionError: if ``EPKIT_CPU_ISA`` asks for one that is not there.
    """
    wanted, present = ISA.get(), isas()
    if wanted == "none" or not present:
        return ""
    if wanted and wanted not in present:
        raise OptionError(
            f"EPKIT_CPU_ISA={wanted!r} is not possible here",
            remedy=f"choose one of {', '.join(present)}, or none for the portable kernels",
        )
    return wanted or present[0]


@cache
def kernels(isa: str) -> dict[str, int]:
    """The addresses of an instruction set's kernels, by name."""
    module = engine()
    return {} if module is None else dict(module.operators(isa))


def bf16_form(isa: str) -> str:
    """How an instruction set multiplies bfloat16 numbers: a rule, so that results are the same in every run.

    "dot": bfloat16 dot products, where they outrun float32 multiply-adds; "half": products of float16, where there
    is such arithmetic; "": nothing is faster than float32. "wide" (float32 multiply-adds of rounded numbers, weights in
    16 bits) is there for who asks.

    Raises:
        OptionError: if ``EPKIT_CPU_BF16`` asks for what is not there.
    """
    module: Any = engine()
    wanted, half = BF16.get(), isa == "avx512fp16"
    possible = ("dot", "wide", "half") if half else ("dot", "wide")
    if wanted and wanted not in possible:
        raise OptionError(
            f"EPKIT_CPU_BF16={wanted!r} is not possible with {isa}",
            remedy=f"choose one of {', '.join(possible)}",
        )
    if wanted:
        return wanted
    if isa.startswith("avx512") and module.fast_bf16_dot():
        return "dot"
    return "half" if half else ""


@cache
def tile_ops() -> dict[str, int]:
    """The numbers of the operations of fused chains, by name."""
    return _numbers("tile_ops")


@cache
def tile_types() -> dict[str, int]:
    """The numbers of the element types of fused chains, by name."""
    return _numbers("tile_types")


@cache
def tile_knows(op: str, kind: str) -> bool:
    """True if an operation of fused chains has a meaning for an element type."""
    module = engine()
    return (
        module is not None
        and op in tile_ops()
        and kind in tile_types()
        and bool(module.tile_knows(tile_ops()[op], tile_types()[kind]))
    )


def _numbers(table: str) -> dict[str, int]:
    module: Any = engine()
    return {} if module is None else {name: number for number, name in enumerate(getattr(module, table)())}


def cpus() -> int:
    """The CPUs that this process may really use: by affinity, and by the quota of its control group."""
    module: Any = engine()
    return 1 if module is None else int(module.cpus())
