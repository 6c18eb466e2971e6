// Conversions between float32 and the two 16-bit formats, to the nearest, halves to even.
#pragma once
#include "simd.h"

namespace EPK_NS {

#if defined(__aarch64__) && !defined(__clang__) && __GNUC__ < 13
typedef __fp16 f16;  // g++ had no _Float16 for this machine; the numbers are the same
#else
typedef _Float16 f16;
#endif

// The bfloat16 next to each lane, as float32; NaN stays NaN.
EPK_INLINE vf round_bf16(vf x) {
  const vi b = bits(x), rounded = b + 0x7fff + ((b >> 16) & 1);
  return from_bits(((x == x) ? rounded : (b | 0x400000)) & (int32_t)0xffff0000u);
}

EPK_INLINE vf load_bf16(const uint16_t *p) {
#if defined(__AVX512F__)
  return (vf)_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p)), 16);
#elif defined(__AVX2__)
  return (vf)_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)p)), 16);
#else
  vi v{};
  for (int i = 0; i < VL; i++) v[i] = (int32_t)((uint32_t)p[i] << 16);
  return from_bits(v);
#endif
}

EPK_INLINE vf load_f16(const uint16_t *p) {
#if defined(__AVX512F__)
  return (vf)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p));
#elif defined(__F16C__)
  return (vf)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p));
#else
  vf v{};
  for (int i = 0; i < VL; i++) v[i] = (float)load_as<f16>(p + i);
  return v;
#endif
}

EPK_INLINE void store_f16(uint16_t *p, vf v) {
#if defined(__AVX512F__)
  _mm256_storeu_si256((__m256i *)p, _mm512_cvtps_ph((__m512)v, _MM_FROUND_TO_NEAREST_INT));
#elif defined(__F16C__)
  _mm_storeu_si128((__m128i *)p, _mm256_cvtps_ph((__m256)v, _MM_FROUND_TO_NEAREST_INT));
#else
  for (int i = 0; i < VL; i++) store_as(p + i, (f16)v[i]);
#endif
}

// The float16 next to each lane, as float32.
EPK_INLINE vf round_f16(vf x) {
  uint16_t halves[VL];
  store_f16(halves, x);
  return load_f16(halves);
}

// x times a power of two that may itself be out of range.
EPK_INLINE vf scale_by(vf x, vf exponent) {
#if defined(__AVX512F__)
  return (vf)_mm512_scalef_ps((__m512)x, (__m512)exponent);
#else
  for (int i = 0; i < VL; i++) x[i] = __builtin_ldexpf(x[i], (int)exponent[i]);
  return x;
#endif
}

// The exponent of a positive, finite number, not below LEAST_EXPONENT.
constexpr int LEAST_EXPONENT = -100;
EPK_INLINE int exponent_of(float x) {
  int32_t b;
  memcpy(&b, &x, 4);
  return max_of((b >> 23) - 127, LEAST_EXPONENT);
}

}  // namespace EPK_NS
