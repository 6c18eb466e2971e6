"""The sources compile for 64-bit ARM, and kernels give the right numbers there: under qemu, beside NumPy."""

from __future__ import annotations

import importlib.util
import math
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

NATIVE = Path(__file__).parents[1] / "native"

COMPILER, EMULATOR, ROOT = "aarch64-linux-gnu-g++", "qemu-aarch64", "/usr/aarch64-linux-gnu"
Array = np.ndarray[Any, Any]
Run = Callable[..., Array]
RANDOM = np.random.default_rng(3)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (shutil.which(COMPILER) and shutil.which(EMULATOR)),
        reason="apt-get install g++-aarch64-linux-gnu qemu-user",
    ),
]


def script(name: str) -> Any:
    """A build script of the package, under a name that no other package has."""
    own = f"epkit_cpu_{name}"
    spec = importlib.util.spec_from_file_location(own, NATIVE / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = sys.modules[own] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


build, build_kernels = script("build"), script("build_kernels")


def compile_all(folder: Path, sources: list[Path], flags: list[str]) -> list[str]:
    """The objects."""

    def one(source: Path) -> str:
        target = folder / f"{source.parent.name}-{source.stem}.o"
        subprocess.run([COMPILER, *flags, "-c", str(source), "-o", str(target)], check=True)
        return str(target)

    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(one, sources))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """``run(kernel, sizes, inputs)``: all that the kernel writes."""
    folder = tmp_path_factory.mktemp("neon")
    flags = [*build_kernels.FLAGS, *build.ARM["neon"], "-DEPK_ISA=neon", f"-I{NATIVE}", "-Werror"]
    sources = [*sorted((NATIVE / "kernels").glob("*.cpp")), Path(__file__).with_name("kernel_driver.cpp")]
    program = str(folder / "driver")
    objects = compile_all(folder, sources, flags)
    subprocess.run([COMPILER, "-static", "-o", program, *objects], check=True)

    def call(kernel: str, sizes: tuple[int, ...], *inputs: Array) -> Array:
        data = b"".join(np.ascontiguousarray(x, np.float32).tobytes() for x in inputs)
        done = subprocess.run(
            [EMULATOR, "-L", ROOT, program, kernel, *map(str, sizes)],
            input=data,
            capture_output=True,
            check=True,
        )
        return np.frombuffer(done.stdout, np.float32)

    return call


def test_operators_compile(tmp_path: Path) -> None:
    """Steps of the engine and its own sources (those without Python)."""
    flags = [
        *build.COMMON, *build.ARM["neon"], "-std=c++17", "-DEPK_ISA=neon", "-DEPK_HAS_neon",
        f"-I{build.header_folder()}", f"-I{NATIVE / 'engine'}", "-Werror",
    ]  # fmt: skip
    assert len(compile_all(tmp_path, sorted((NATIVE / "ops").glob("*.cpp")), [*flags, *build.MATH])) > 10
    engine = ("arena", "cpus", "isa", "offsets", "pool")
    compile_all(tmp_path, [NATIVE / "engine" / f"{name}.cpp" for name in engine], flags)


@pytest.mark.parametrize(("m", "k", "n"), [(1, 64, 33), (7, 130, 40), (50, 300, 17), (13, 1, 8)])
def test_products(run: Run, m: int, k: int, n: int) -> None:
    a, b, bias = (RANDOM.standard_normal(s).astype(np.float32) for s in ((m, k), (k, n), (n,)))
    exact = np.maximum(a.astype(np.float64) @ b + bias, 0)
    np.testing.assert_allclose(run("gemm", (m, k, n), a, b, bias).reshape(m, n), exact, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("m", "k", "n"), [(3, 70, 20), (20, 64, 9)])
def test_products_of_bytes(run: Run, m: int, k: int, n: int) -> None:
    a, b = RANDOM.integers(0, 256, (m, k)), RANDOM.integers(-128, 128, (k, n))
    assert np.array_equal(run("gemm_int8", (m, k, n), a, b).reshape(m, n), a @ b)


# channels, filters, size, kernel, stride, padding, groups
CONVOLUTIONS = [
    (3, 20, 9, 3, 2, 1, 1),
    (32, 17, 7, 1, 1, 0, 1),
    (20, 40, 6, 3, 1, 1, 2),
    (19, 19, 8, 3, 1, 1, 19),
]


@pytest.mark.parametrize("sizes", CONVOLUTIONS)
def test_convolutions(run: Run, sizes: tuple[int, ...]) -> None:
    channels, filters, size, kernel, stride, pad, group = sizes
    x = RANDOM.standard_normal((channels, size, size)).astype(np.float32)
    w = RANDOM.standard_normal((filters, channels // group, kernel, kernel)).astype(np.float32)
    padded = np.pad(x, ((0, 0), (pad, pad), (pad, pad))).astype(np.float64)
    view = np.lib.stride_tricks.sliding_window_view(padded, (kernel, kernel), (1, 2))[:, ::stride, ::stride]
    view = view.reshape(group, channels // group, *view.shape[1:])
    exact = np.einsum("gchwij,gfcij->gfhw", view, w.reshape(group, -1, *w.shape[1:])).reshape(filters, -1)
    np.testing.assert_allclose(run("conv", sizes, x, w).reshape(filters, -1), exact, rtol=1e-4, atol=1e-4)


def test_rows(run: Run) -> None:
    x = RANDOM.standard_normal((5, 37)).astype(np.float32) * 3
    wide = x.astype(np.float64)
    powers = np.exp(wide - wide.max(1, keepdims=True))
    np.testing.assert_allclose(
        run("softmax", x.shape, x).reshape(x.shape),
        powers / powers.sum(1, keepdims=True),
        rtol=1e-5,
        atol=1e-7,
    )
    normal = (wide - wide.mean(1, keepdims=True)) / np.sqrt(wide.var(1, keepdims=True) + 1e-5)
    np.testing.assert_allclose(run("layer_norm", x.shape, x).reshape(x.shape), normal, rtol=1e-4, atol=1e-5)


FUNCTIONS: list[Callable[[float], float]] = [
    math.exp, math.log, math.tanh, lambda v: 1 / (1 + math.exp(-v)), math.erf, math.sin, math.cos,
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(FUNCTIONS)))
def test_elementary_functions(run: Run, number: int) -> None:
    """In the order of EpkUnary. Within 2 units of the last place, as on every instruction set."""
    x = np.linspace(0.01, 8, 401, dtype=np.float32)
    exact = np.array([FUNCTIONS[number](float(v)) for v in x])
    found = run("unary", (1, x.size, number), x)
    assert (np.abs(found - exact) <= 2 * np.spacing(np.abs(exact).astype(np.float32))).all()
