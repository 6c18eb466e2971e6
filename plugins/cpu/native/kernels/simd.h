// Vectors of the instruction set that this source is compiled for: GCC vector extensions, and the few operations
// that need intrinsics. Every kernel source is compiled once per instruction set with -DEPK_ISA=<name>; all of its
// code lives in a namespace of that name, so that variants never mix (no templates of std:: in kernels either:
// the linker would merge them across instruction sets).
#pragma once
#include <cstdint>
#include <cstring>

#include "parallel.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#ifndef EPK_ISA
#define EPK_ISA baseline
#endif
#define EPK_JOIN2(a, b) epk_##a##_##b
#define EPK_JOIN(a, b) EPK_JOIN2(a, b)
#define EPK(name) EPK_JOIN(name, EPK_ISA)  // the exported name of a kernel: epk_<name>_<isa>
#define EPK_CAT2(a, b) a##b
#define EPK_CAT(a, b) EPK_CAT2(a, b)
#define EPK_NS EPK_CAT(epk_, EPK_ISA)
#define EPK_INLINE inline __attribute__((always_inline))

namespace EPK_NS {

#if defined(__AVX512F__)
constexpr int VL = 16;
#elif defined(__AVX2__)
constexpr int VL = 8;
#else
constexpr int VL = 4;
#endif

typedef float vf __attribute__((vector_size(VL * 4)));
typedef int32_t vi __attribute__((vector_size(VL * 4)));
typedef uint32_t vu __attribute__((vector_size(VL * 4)));
typedef double vd __attribute__((vector_size(VL * 4)));  // half as many lanes as vf
typedef int64_t vl __attribute__((vector_size(VL * 4)));
typedef float vh __attribute__((vector_size(VL * 2)));  // half a vf

template <class T> EPK_INLINE T min_of(T a, T b) { return a < b ? a : b; }
template <class T> EPK_INLINE T max_of(T a, T b) { return a > b ? a : b; }
EPK_INLINE int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
EPK_INLINE int64_t round_up(int64_t a, int64_t b) { return ceil_div(a, b) * b; }

template <class T> EPK_INLINE T load_as(const void *p) {
  T v;
  memcpy(&v, p, sizeof v);
  return v;
}
// VL bytes as whole numbers.
EPK_INLINE vi load_bytes(const uint8_t *p) {
#if defined(__AVX512F__)
  return (vi)_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)p));
#elif defined(__AVX2__)
  return (vi)_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)p));
#else
  vi v{};
  for (int i = 0; i < VL; i++) v[i] = p[i];
  return v;
#endif
}
EPK_INLINE vi load_bytes(const int8_t *p) {
#if defined(__AVX512F__)
  return (vi)_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)p));
#elif defined(__AVX2__)
  return (vi)_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)p));
#else
  vi v{};
  for (int i = 0; i < VL; i++) v[i] = p[i];
  return v;
#endif
}
template <class T> EPK_INLINE void store_as(void *p, T v) { memcpy(p, &v, sizeof v); }
// The low bytes of VL whole numbers.
EPK_INLINE void store_bytes(uint8_t *p, vi v) {
#if defined(__AVX512F__)
  _mm_storeu_si128((__m128i *)p, _mm512_cvtepi32_epi8((__m512i)v));
#elif defined(__AVX2__)
  const __m256i low = _mm256_shuffle_epi8((__m256i)v, _mm256_set1_epi32(0x0c080400));
  store_as(p, _mm256_extract_epi32(low, 0));
  store_as(p + 4, _mm256_extract_epi32(low, 4));
#else
  for (int i = 0; i < VL; i++) p[i] = (uint8_t)v[i];
#endif
}
EPK_INLINE vf load(const float *p) { return load_as<vf>(p); }
EPK_INLINE void store(float *p, vf v) { store_as(p, v); }
EPK_INLINE vf splat(float x) { return x - vf{}; }
EPK_INLINE vi splat_i(int32_t x) { return x - vi{}; }
EPK_INLINE vi bits(vf x) { return (vi)x; }
EPK_INLINE vf from_bits(vi x) { return (vf)x; }
EPK_INLINE vf select(vi mask, vf a, vf b) { return mask ? a : b; }
EPK_INLINE vi to_int(vf x) { return __builtin_convertvector(x, vi); }  // truncates
EPK_INLINE vf to_float(vi x) { return __builtin_convertvector(x, vf); }
struct Halves {
  vd low, high;
};
EPK_INLINE Halves widen(vf x) {
  vh part[2];
  memcpy(part, &x, sizeof x);
  return {__builtin_convertvector(part[0], vd), __builtin_convertvector(part[1], vd)};
}
EPK_INLINE vf narrow(Halves x) {
  const vh part[2] = {__builtin_convertvector(x.low, vh), __builtin_convertvector(x.high, vh)};
  return load_as<vf>(part);
}
EPK_INLINE vf abs_of(vf x) { return from_bits(bits(x) & 0x7fffffff); }
EPK_INLINE vf copy_sign(vf magnitude, vf sign) {
  return from_bits((bits(magnitude) & 0x7fffffff) | (bits(sign) & int32_t(0x80000000u)));
}
EPK_INLINE vf fma_of(vf a, vf b, vf c) { return a * b + c; }  // one instruction where the set has it

// The first n lanes, 0 < n <= VL; the others read as zero and are not written.
EPK_INLINE vf load_n(const float *p, int64_t n) {
#if defined(__AVX512F__)
  return (vf)_mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), p);
#else
  vf v{};
  memcpy(&v, p, (size_t)n * 4);
  return v;
#endif
}
EPK_INLINE void store_n(float *p, vf v, int64_t n) {
#if defined(__AVX512F__)
  _mm512_mask_storeu_ps(p, (__mmask16)((1u << n) - 1), (__m512)v);
#else
  memcpy(p, &v, (size_t)n * 4);
#endif
}

// a where a > b, else b: NaN in b stays.
EPK_INLINE vf vmax(vf a, vf b) {
#if defined(__AVX512F__)
  return (vf)_mm512_max_ps((__m512)a, (__m512)b);
#elif defined(__AVX2__)
  return (vf)_mm256_max_ps((__m256)a, (__m256)b);
#elif defined(__SSE2__)
  return (vf)_mm_max_ps((__m128)a, (__m128)b);
#else
  return a > b ? a : b;
#endif
}
EPK_INLINE vf vmin(vf a, vf b) {
#if defined(__AVX512F__)
  return (vf)_mm512_min_ps((__m512)a, (__m512)b);
#elif defined(__AVX2__)
  return (vf)_mm256_min_ps((__m256)a, (__m256)b);
#elif defined(__SSE2__)
  return (vf)_mm_min_ps((__m128)a, (__m128)b);
#else
  return a < b ? a : b;
#endif
}
EPK_INLINE vf vsqrt(vf x) {
#if defined(__AVX512F__)
  return (vf)_mm512_sqrt_ps((__m512)x);
#elif defined(__AVX2__)
  return (vf)_mm256_sqrt_ps((__m256)x);
#elif defined(__SSE2__)
  return (vf)_mm_sqrt_ps((__m128)x);
#else
  for (int i = 0; i < VL; i++) x[i] = __builtin_sqrtf(x[i]);
  return x;
#endif
}
// To the nearest whole number, halves to even.
EPK_INLINE vf vround(vf x) {
#if defined(__AVX512F__)
  return (vf)_mm512_roundscale_ps((__m512)x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
#elif defined(__AVX2__)
  return (vf)_mm256_round_ps((__m256)x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
#else
  const vf magic = copy_sign(splat(8388608.0f), x);  // 2^23: no fraction bits are left above it
  vf rounded = x + magic;
  asm("" : "+m"(rounded));  // the sum may not be simplified away
  rounded = rounded - magic;
  return select((vi)(abs_of(x) < 8388608.0f), copy_sign(rounded, x), x);
#endif
}

EPK_INLINE bool any(vi mask) {
#if defined(__AVX512F__)
  return _mm512_movepi32_mask((__m512i)mask) != 0;
#elif defined(__AVX2__)
  return _mm256_movemask_ps((__m256)mask) != 0;
#elif defined(__SSE2__)
  return _mm_movemask_ps((__m128)mask) != 0;
#else
  int32_t found = 0;
  for (int i = 0; i < VL; i++) found |= mask[i];
  return found != 0;
#endif
}
EPK_INLINE float sum_of(vf v) {
#if defined(__AVX512F__)
  return _mm512_reduce_add_ps((__m512)v);
#else
  for (int width = VL / 2; width; width /= 2)
    for (int i = 0; i < width; i++) v[i] += v[i + width];
  return v[0];
#endif
}
EPK_INLINE float max_lane(vf v) {
#if defined(__AVX512F__)
  return _mm512_reduce_max_ps((__m512)v);
#else
  for (int width = VL / 2; width; width /= 2)
    for (int i = 0; i < width; i++) v[i] = v[i] > v[i + width] ? v[i] : v[i + width];
  return v[0];
#endif
}

// body(begin, end, thread) over [0, count); serial where there is nothing to share.
template <class Body> inline void parallel_for(Parallel *p, int64_t count, int64_t grain, const Body &body) {
  if (count <= 0) return;
  if (grain < 1) grain = 1;
  if (!p || p->threads <= 1 || count <= grain) {
    body((int64_t)0, count, 0);
    return;
  }
  p->run(
      p, count, grain,
      [](void *arg, int64_t begin, int64_t end, int thread) { (*(const Body *)arg)(begin, end, thread); },
      (void *)&body);
}
EPK_INLINE int threads_of(const Parallel *p) { return p && p->threads > 1 ? p->threads : 1; }

}  // namespace EPK_NS
