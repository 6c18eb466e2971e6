"""What every kernel source begins with: element types, and reductions over a block. No header is needed."""

from __future__ import annotations

from typing import Any

import numpy as np

STORED = {
    "float32": "float",
    "float64": "double",
    "float16": "f16",
    "bfloat16": "bf16",
    "int8": "signed char",
    "uint8": "unsigned char",
    "int16": "short",
    "uint16": "unsigned short",
    "int32": "int",
    "uint32": "unsigned int",
    "int64": "long long",
    "uint64": "unsigned long long",
    "bool": "bool",
    "float8_e4m3fn": "e4m3",
    "float8_e5m2": "e5m2",
    "int4": "i4",
    "uint4": "u4",
}
"""C++ types in memory, by element type."""

FLOAT8 = frozenset({"float8_e4m3fn", "float8_e5m2"})
NARROW = ("f16", "bf16", "e4m3", "e5m2")
HALF_BYTES = ("i4", "u4")
"""Four bits, one element a byte; the upper half is nobody's."""


def stored(dtype: np.dtype[Any] | str) -> str:
    """The C++ type of an element in memory."""
    return STORED[dtype if isinstance(dtype, str) else dtype.name]


def computed(c_type: str) -> str:
    """The C++ type that an element of a stored type is computed in."""
    return "float" if c_type in NARROW else "int" if c_type in HALF_BYTES else c_type


PRELUDE = r"""
struct f16 { unsigned short bits; };
struct bf16 { unsigned short bits; };
struct e4m3 { unsigned char bits; };
struct e5m2 { unsigned char bits; };
struct i4 { unsigned char bits; };
struct u4 { unsigned char bits; };

#ifdef __CUDACC_RTC__
#define INFINITY __int_as_float(0x7f800000)
#define NAN __int_as_float(0x7fc00000)
__device__ inline float widen(f16 x) { float r; asm("cvt.f32.f16 %0, %1;" : "=f"(r) : "h"(x.bits)); return r; }
__device__ inline void narrow(float v, f16& x) { asm("cvt.rn.f16.f32 %0, %1;" : "=h"(x.bits) : "f"(v)); }
__device__ inline void narrow(float v, bf16& x) { asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(x.bits) : "f"(v)); }
__device__ inline float widen(bf16 x) { return __int_as_float((int)x.bits << 16); }
#else
HOST_CONVERSIONS
#endif

// Eight bits, done by hand: only the newest GPUs have instructions for it. LAST is the code of the greatest number.
template <int M, int LAST> __device__ inline float widen_8(unsigned char bits) {
  const int bias = (1 << (6 - M)) - 1, size = bits & 0x7f, power = size >> M, rest = size & ((1 << M) - 1);
  float x = power ? ldexpf((float)((1 << M) + rest), power - bias - M) : ldexpf((float)rest, 1 - bias - M);
  if (size > LAST) x = M == 2 && size == LAST + 1 ? INFINITY : NAN;
  return bits & 0x80 ? -x : x;
}
template <int M, int LAST> __device__ inline unsigned char narrow_8(float v) {
  const int bias = (1 << (6 - M)) - 1, sign = (unsigned)__float_as_int(v) >> 31 << 7;
  const float a = fabsf(v);
  if (v != v) return sign | 0x7f;
  if (a >= 65536.0f) return sign | LAST;
  int power;
  frexpf(a, &power);
  if (power - 1 < 1 - bias) power = 2 - bias;
  int code = (int)rintf(ldexpf(a, M + 1 - power)) + ((power - 2 + bias) << M);
  if (a == 0) code = 0;
  return sign | (code > LAST ? LAST : code);
}
__device__ inline float widen(e4m3 x) { return widen_8<3, 0x7e>(x.bits); }
__device__ inline float widen(e5m2 x) { return widen_8<2, 0x7b>(x.bits); }
__device__ inline void narrow(float v, e4m3& x) { x.bits = narrow_8<3, 0x7e>(v); }
__device__ inline void narrow(float v, e5m2& x) { x.bits = narrow_8<2, 0x7b>(v); }

__device__ inline int widen(i4 x) { return (int)((x.bits & 15) ^ 8) - 8; }
__device__ inline int widen(u4 x) { return x.bits & 15; }
__device__ inline void narrow(float v, i4& x) { x.bits = (int)v & 15; }
__device__ inline void narrow(float v, u4& x) { x.bits = (int)v & 15; }

template <class T> __device__ inline T widen(T x) { return x; }
template <class V, class T> __device__ inline void narrow(V v, T& x) { x = (T)v; }
template <class T, class V> __device__ inline T stored_as(V v) { T x; narrow(v, x); return x; }

struct Sum { template <class C> __device__ C operator()(C a, C b) const { return a + b; }
             template <class C> __device__ static C none() { return 0; } };
struct Top { template <class C> __device__ C operator()(C a, C b) const { return a != a || a > b ? a : b; }
             template <class C> __device__ static C none() { return -INFINITY; } };
struct Low { template <class C> __device__ C operator()(C a, C b) const { return a != a || a < b ? a : b; }
             template <class C> __device__ static C none() { return INFINITY; } };
struct Product { template <class C> __device__ C operator()(C a, C b) const { return a * b; }
                 template <class C> __device__ static C none() { return 1; } };

// One value from those of all threads of a block; every thread gets it. Blocks are whole warps.
template <class F, class C> __device__ inline C over_block(F join, C value) {
  __shared__ C kept[32];
  for (int step = 16; step; step >>= 1) value = join(value, __shfl_xor_sync(0xffffffffu, value, step));
  const int warps = blockDim.x >> 5;
  if (warps == 1) return value;
  if ((threadIdx.x & 31) == 0) kept[threadIdx.x >> 5] = value;
  __syncthreads();
  value = kept[0];
  for (int warp = 1; warp < warps; warp++) value = join(value, kept[warp]);
  __syncthreads();
  return value;
}
"""
