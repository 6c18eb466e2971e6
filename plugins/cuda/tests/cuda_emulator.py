"""Runs kernels of CUDA C++ on the host: one fiber for each thread of a block, blocks one after the other.

A fiber runs to the next barrier or shuffle, then the next one runs: the threads of a block must agree on these, as
kernels of this package do. The sources are those that NVRTC compiles, unchanged.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import subprocess
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

SHIM = r"""
#include <cmath>
#include <cstring>
#include <cstdint>
#include <vector>
#include <utility>
#include <ucontext.h>
using namespace std;
#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __restrict__ __restrict
#define __shared__ static
struct Index { unsigned x, y, z; };
static Index threadIdx, blockIdx, blockDim, gridDim;
static ucontext_t scheduler;
static vector<ucontext_t> fibers;
static vector<vector<char>> stacks;
static vector<char> done;
static uint64_t slots[1024];
static void pause_here() { unsigned me = threadIdx.x; swapcontext(&fibers[me], &scheduler); threadIdx.x = me; }
static void __syncthreads() { pause_here(); }
static void __syncwarp(unsigned = 0) { pause_here(); }
template <class T> T shuffled(T value, unsigned from) {
  unsigned me = threadIdx.x;
  memcpy(&slots[me], &value, sizeof(T));
  pause_here();
  T result; memcpy(&result, &slots[(me & ~31u) + (from & 31)], sizeof(T));
  pause_here();
  return result;
}
template <class T> T __shfl_xor_sync(unsigned, T value, int mask) { return shuffled(value, (threadIdx.x & 31) ^ mask); }
template <class T> T __shfl_sync(unsigned, T value, int lane) { return shuffled(value, lane); }
struct f16; struct bf16;
static inline float __int_as_float(int bits) { float f; memcpy(&f, &bits, 4); return f; }
static inline int __float_as_int(float f) { int bits; memcpy(&bits, &f, 4); return bits; }
template <class T> static inline T atomicCAS(T* at, T seen, T wanted) { T old = *at; if (old == seen) *at = wanted; return old; }
static inline int atomicOr(int* at, int value) { int old = *at; *at |= value; return old; }
"""

CONVERSIONS = r"""
typedef short Halves __attribute__((vector_size(16)));
typedef float Singles __attribute__((vector_size(16)));
inline float widen(f16 x) { return __builtin_ia32_vcvtph2ps(Halves{(short)x.bits})[0]; }
inline void narrow(float v, f16& x) { x.bits = (unsigned short)__builtin_ia32_vcvtps2ph(Singles{v}, 0)[0]; }
inline float widen(bf16 x) { return __int_as_float((int)x.bits << 16); }
inline void narrow(float v, bf16& x) {
  unsigned bits = (unsigned)__float_as_int(v);
  x.bits = v != v ? 0x7fc0 : (unsigned short)((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}
"""

OPTIONS = ("-O0", "-std=c++17", "-mf16c", "-fwrapv", "-fPIC", "-w")

RUNNER = r"""
template <class... P, size_t... I> void call(void (*f)(P...), void** a, index_sequence<I...>) {
  f(*(typename remove_reference<P>::type*)a[I]...);
}
template <class... P> void apply_to(void (*f)(P...), void** a) { call(f, a, index_sequence_for<P...>{}); }
static void** given;
static void enter(unsigned me) { threadIdx.x = me; apply_to(KERNEL, given); done[me] = 1; }
extern "C" void emulate(int grid, int block, int fibered, void** arguments) {
  given = arguments; gridDim = {(unsigned)grid, 1, 1}; blockDim = {(unsigned)block, 1, 1};
  for (int b = 0; b < grid; b++) {
    blockIdx = {(unsigned)b, 0, 0};
    if (!fibered) {
      for (int t = 0; t < block; t++) { threadIdx = {(unsigned)t, 0, 0}; apply_to(KERNEL, given); }
      continue;
    }
    fibers.resize(block); stacks.resize(block); done.assign(block, 0);
    for (int t = 0; t < block; t++) {
      stacks[t].resize(1 << 15);
      getcontext(&fibers[t]);
      fibers[t].uc_stack.ss_sp = stacks[t].data(); fibers[t].uc_stack.ss_size = stacks[t].size();
      fibers[t].uc_link = &scheduler;
      makecontext(&fibers[t], (void (*)())enter, 1, (unsigned)t);
    }
    for (bool left = true; left;) {
      left = false;
      for (int t = 0; t < block; t++)
        if (!done[t]) { threadIdx.x = t; swapcontext(&scheduler, &fibers[t]); left |= !done[t]; }
    }
  }
}
"""


def run(source: str, name: str, grid: int, block: int, arguments: Sequence[Any]) -> None:
    """Run a kernel over NumPy arrays (their address is passed) and NumPy scalars."""
    values: list[Any] = []
    for argument in arguments:
        if isinstance(argument, np.ndarray):
            values.append(np.array(argument.ctypes.data, np.uint64))
        else:
            assert isinstance(argument, np.generic), f"{type(argument)} is no kernel argument"
            values.append(np.array(argument))
    pointers = (ctypes.c_void_p * len(values))(*(value.ctypes.data for value in values))
    body = source[source.rindex('extern "C"') :]
    fibered = any(word in body for word in ("over_block", "over_warp", "__sync", "__shfl"))
    _built(source, name).emulate(grid, block, int(fibered), pointers)


@cache
def _built(source: str, name: str) -> ctypes.CDLL:
    text = source.replace("HOST_CONVERSIONS", CONVERSIONS) + RUNNER.replace("KERNEL", name)
    return ctypes.CDLL(str(_made(text, ".cpp", ".so", ["-include", str(_header()), "-shared"])))


@cache
def _header() -> Path:
    """The beginning, compiled once for all kernels."""
    return _made(SHIM, ".hpp", ".hpp.gch", ["-x", "c++-header"]).with_suffix("")


def _made(text: str, ending: str, result: str, options: Sequence[str]) -> Path:
    """A text as the compiler makes it; kept between runs."""
    folder = Path(tempfile.gettempdir()) / f"epkit-cuda-emulated-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    name = hashlib.sha256(f"{SHIM} {text}".encode()).hexdigest()[:24]
    found = folder / f"{name}{result}"
    if not found.exists():
        path = folder / f"{name}.{os.getpid()}{ending}"
        path.write_text(text)
        made = folder / f"{name}.{os.getpid()}{result}"
        command = ["g++", *OPTIONS, *options, str(path), "-o", str(made)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[:3000]
        if result.endswith(".gch"):
            path.replace(folder / f"{name}{ending}")
        else:
            path.unlink()
        made.replace(found)
    return found
