// Vector elementary functions of float32, inline, for kernels and fused elementwise chains.
// Errors against exact values: pow 1 ULP, all others at most 2 ULP, over the whole range, infinities and NaN as
// IEEE 754 and C have them. The polynomials are minimax fits (iteratively reweighted least squares).
#pragma once
#include <cmath>

#include "simd.h"

namespace EPK_NS {

// x * 2^n for whole n in [-252, 252]; the result may be denormal or overflow.
EPK_INLINE vf scale_by_power(vf x, vf n) {
#if defined(__AVX512F__)
  return (vf)_mm512_scalef_ps((__m512)x, (__m512)n);
#else
  const vi whole = to_int(n), half = whole >> 1;
  return x * from_bits((half + 127) << 23) * from_bits((whole - half + 127) << 23);
#endif
}

// a / (d + rest), d in [1, 1e9], |rest| at most half a unit in the last place of d; within 0.6 units.
EPK_INLINE vf quotient(vf a, vf d, vf rest) {
#if defined(__AVX512F__)
  vf inverse = (vf)_mm512_rcp14_ps((__m512)d);  // a division takes 16 cycles, this about 5
  inverse = fma_of(inverse, 1.0f - d * inverse, inverse);
  vf q = a * inverse;
  vf error = (a - q * d) - q * rest;
  return fma_of(error, inverse, q);
#else
  vf q = a / d;
  return q - q * rest;  // rest / d is below the precision of rest where d is not 1
#endif
}

// Denormal numbers make an instruction take a hundred times as long: what need not be one is 0 (vexp_or_zero, vgate).
EPK_INLINE vf vexp(vf x) {
  const float magic = 12582912.0f;  // 1.5 * 2^23: a sum with it is rounded to a whole number
  vf clamped = vmin(splat(89.0f), vmax(splat(-105.0f), x));  // NaN stays
  vf n = fma_of(clamped, splat(1.442695041f), splat(magic)) - magic;
  vf r = clamped - n * 0.693359375f;
  r = r + n * 2.12194440e-4f;
  vf p = splat(1.395171741e-03f);
  p = fma_of(p, r, splat(8.369598538e-03f));
  p = fma_of(p, r, splat(4.166618735e-02f));
  p = fma_of(p, r, splat(1.666651219e-01f));
  p = fma_of(p, r, splat(0.5f));
  p = fma_of(p, r * r, r) + 1.0f;
  return scale_by_power(p, n);
}

// The same, with 0 for what is denormal or nearly so.
EPK_INLINE vf vexp_or_zero(vf x) {
  return select((vi)(x < -87.0f), splat(0.0f), vexp(vmax(splat(-87.0f), x)));
}

EPK_INLINE vf vlog(vf x) {
  const vi denormal = (vi)(x < 1.17549435e-38f);
  vf scaled = select(denormal, x * 8388608.0f, x);
  vi offset = (vi)((vu)bits(scaled) - 0x3f2aaaabu);  // the bits of 2/3; of negative numbers it wraps around
  vi exponent = offset >> 23;
  vf m = from_bits((offset & 0x7fffff) + 0x3f2aaaab) - 1.0f;
  vf e = to_float(exponent) - select(denormal, splat(23.0f), vf{});
  vf p = splat(-1.289160103e-01f);
  p = fma_of(p, m, splat(1.398446709e-01f));
  p = fma_of(p, m, splat(-1.218427792e-01f));
  p = fma_of(p, m, splat(1.400586218e-01f));
  p = fma_of(p, m, splat(-1.668048650e-01f));
  p = fma_of(p, m, splat(2.001040578e-01f));
  p = fma_of(p, m, splat(-2.499979734e-01f));
  p = fma_of(p, m, splat(3.333321512e-01f));
  vf square = m * m;
  vf tail = fma_of(p * m, square, e * -2.12194440e-4f) - 0.5f * square;
  vf result = (m + tail) + e * 0.693359375f;
  result = select((vi)(x == splat(__builtin_inff())), x, result);
  result = select((vi)(x == 0.0f), splat(-__builtin_inff()), result);
  return select((vi)(x >= 0.0f), result, splat(__builtin_nanf("")));
}

EPK_INLINE vf vtanh(vf x) {
  vf a = abs_of(x), z = x * x;
  vf p = splat(-5.515154451e-03f);
  p = fma_of(p, z, splat(2.046941034e-02f));
  p = fma_of(p, z, splat(-5.368801951e-02f));
  p = fma_of(p, z, splat(1.333083063e-01f));
  p = fma_of(p, z, splat(-3.333325982e-01f));
  vf small = fma_of(p * z, x, x);
  vf t = vmin(splat(10.0f), a);  // tanh is 1 from 9.02
  vf large = 1.0f - quotient(splat(2.0f), vexp(t + t) + 1.0f, vf{});
  return select((vi)(a < 0.625f), small, copy_sign(large, x));
}

EPK_INLINE vf vsigmoid(vf x) {
  const vf tail = vexp(-abs_of(x)), e = vmax(splat(1e-10f), tail), sum = 1.0f + e;
  const vf rounding = (1.0f - sum) + e;  // what the sum lost, exactly
  const vi negative = (vi)(x < 0.0f);
  const vf y = quotient(select(negative, e, splat(1.0f)), sum, rounding);
  return select(negative & (vi)(tail < 1e-8f), tail, y);  // where the quotient's remainder would be denormal
}

// The same, with 0 for what is denormal or nearly so.
EPK_INLINE vf vgate(vf x) {
  return select((vi)(x < -87.0f), splat(0.0f), vsigmoid(vmax(splat(-87.0f), x)));
}

EPK_INLINE vf verf(vf x) {
  vf a = abs_of(x), z = x * x;
  vf p = splat(-5.953739164e-04f);
  p = fma_of(p, z, splat(4.985940177e-03f));
  p = fma_of(p, z, splat(-2.676171996e-02f));
  p = fma_of(p, z, splat(1.128168255e-01f));
  p = fma_of(p, z, splat(-3.761247993e-01f));
  p = fma_of(p, z, splat(1.283791512e-01f));
  vf small = fma_of(p, x, x);
  vf t = select((vi)(a > 3.95f), splat(3.95f), a);
  vf q = splat(4.938213351e-06f);
  q = fma_of(q, t, splat(-4.558117143e-05f));
  q = fma_of(q, t, splat(-4.958682985e-05f));
  q = fma_of(q, t, splat(2.930157818e-03f));
  q = fma_of(q, t, splat(-2.267413959e-02f));
  q = fma_of(q, t, splat(1.052626967e-01f));
  q = fma_of(q, t, splat(6.356252432e-01f));
  q = fma_of(q, t, splat(1.285517514e-01f));
  vf large = 1.0f - vexp(-fma_of(q, t, t));
  return select((vi)(a < 0.927f), small, copy_sign(large, x));
}

// What rounding took from a product: a * b - product.
EPK_INLINE vf lost_by(vf a, vf b, vf product) {
#if defined(__AVX512F__)
  return (vf)_mm512_fmsub_ps((__m512)a, (__m512)b, (__m512)product);  // a plain expression would become 0
#elif defined(__AVX2__)
  return (vf)_mm256_fmsub_ps((__m256)a, (__m256)b, (__m256)product);
#else
  const vf high_a = from_bits(bits(a) & int32_t(0xfffff000u)), low_a = a - high_a;  // products of these are exact
  const vf high_b = from_bits(bits(b) & int32_t(0xfffff000u)), low_b = b - high_b;
  return ((high_a * high_b - product) + (high_a * low_b + low_a * high_b)) + low_a * low_b;
#endif
}

// x / 2 erfc(-x / sqrt 2), within 8 units in the last place: with a = |x|, erfc(a / sqrt 2) / 2 is exp(-a^2 / 2) times
// a polynomial in 1 / (1 + 0.225 a), fitted. 0 where that is denormal.
EPK_INLINE vf vgelu(vf x) {
  const vf a = vmin(splat(13.1f), abs_of(x)), half = 0.5f * a, square = half * a;  // NaN stays
  const vf lost = lost_by(half, a, square);  // the exponential would magnify it
  const vf d = fma_of(a, splat(0.225f), splat(1.0f));
#if defined(__AVX512F__)
  vf r = (vf)_mm512_rcp14_ps((__m512)d);
  r = fma_of(r, 1.0f - d * r, r);
#else
  const vf r = 1.0f / d;
#endif
  vf p = splat(-9.260904044e-02f);
  p = fma_of(p, r, splat(3.795013428e-01f));
  p = fma_of(p, r, splat(-4.375925660e-01f));
  p = fma_of(p, r, splat(4.582726955e-01f));
  p = fma_of(p, r, splat(-1.272208393e-01f));
  p = fma_of(p, r, splat(1.524370462e-01f));
  p = fma_of(p, r, splat(7.591260970e-02f));
  p = fma_of(p, r, splat(9.138067067e-02f));
  p = fma_of(p, r, splat(-8.189835353e-05f));
  vf e = vexp(-square);
  e = e - e * lost;
  const vf tail = p * e, share = select((vi)(x < 0.0f), tail, 1.0f - tail);
  return x * select((vi)(x < -13.1f), splat(0.0f), share);
}
EPK_INLINE vf vgelu_tanh(vf x) {
  return x * vgate(1.5957691216f * fma_of(x * x * x, splat(0.044715f), x));  // 2 sqrt(2/pi)
}
// x / (1 + exp(-x)), within 3 units in the last place; 0 where the quotient is denormal.
EPK_INLINE vf vsilu(vf x) {
  const vf d = 1.0f + vexp(-vmax(splat(-87.0f), x));
#if defined(__AVX512F__)
  vf inverse = (vf)_mm512_rcp14_ps((__m512)d);
  inverse = fma_of(inverse, 1.0f - d * inverse, inverse);
#else
  const vf inverse = 1.0f / d;
#endif
  return x * select((vi)(x < -87.0f), splat(0.0f), inverse);
}

EPK_INLINE vd vround_d(vd x) {
  const double magic = 6755399441055744.0;  // 1.5 * 2^52
  vd rounded = x + magic;
  asm("" : "+m"(rounded));
  return rounded - magic;
}

// The remainder of x by pi/2 and the quadrant; |x| at most 1e6, where the first product is exact.
EPK_INLINE vd reduce_quarter(vd x, vd &quadrant) {
  quadrant = vround_d(x * 6.36619772367581382433e-01);
  return (x - quadrant * 1.57079632673412561417e+00) - quadrant * 6.07710050650619224932e-11;
}

template <bool cosine> EPK_INLINE vf sine(vf x) {
  if (any((vi) !(abs_of(x) < 1e6f))) {  // huge, infinite, NaN
    for (int i = 0; i < VL; i++) x[i] = cosine ? __builtin_cosf(x[i]) : __builtin_sinf(x[i]);
    return x;
  }
  Halves wide = widen(x), quadrants;
  wide.low = reduce_quarter(wide.low, quadrants.low);
  wide.high = reduce_quarter(wide.high, quadrants.high);
  vf r = narrow(wide), z = r * r;
  vi quadrant = to_int(narrow(quadrants)) + (cosine ? 1 : 0);
  vf s = splat(2.717366669e-06f);
  s = fma_of(s, z, splat(-1.983923285e-04f));
  s = fma_of(s, z, splat(8.333329111e-03f));
  s = fma_of(s, z, splat(-1.666666716e-01f));
  s = fma_of(s * z, r, r);
  vf c = splat(-2.719862664e-07f);
  c = fma_of(c, z, splat(2.479937211e-05f));
  c = fma_of(c, z, splat(-1.388888340e-03f));
  c = fma_of(c, z, splat(4.166666791e-02f));
  c = fma_of(c, z * z, fma_of(z, splat(-0.5f), splat(1.0f)));
  vf value = select((vi)((quadrant & 1) != 0), c, s);
  vf result = from_bits(bits(value) ^ (vi)(((vu)quadrant & 2) << 30));
  return cosine ? result : select((vi)(x == 0.0f), x, result);
}
EPK_INLINE vf vsin(vf x) { return sine<false>(x); }
EPK_INLINE vf vcos(vf x) { return sine<true>(x); }

// x^y of positive, normal, finite x in double precision.
EPK_INLINE vd power(vd x, vd y) {
  vl offset = (vl)x - 0x3fe6a09e667f3bcdLL;  // the bits of sqrt(1/2)
  vl exponent = offset >> 52;
  vd m = (vd)((offset & 0xfffffffffffffLL) + 0x3fe6a09e667f3bcdLL);
  vd s = (m - 1.0) / (m + 1.0), z = s * s;
  vd p = 2.82942228256917894e-01 + vd{};
  p = p * z + 3.19902922252659483e-01;
  p = p * z + 4.12209315360299089e-01;
  p = p * z + 5.77077941804167938e-01;
  p = p * z + 9.61796694114788631e-01;
  p = p * z + 2.88539008177785261e+00;
  // A whole number in the low bits of a double of magnitude 2^52: exact, and no 64-bit conversion is needed.
  vd e = (vd)(exponent + 0x4338000000000000LL) - 6755399441055744.0;
  vd t = y * (p * s + e);
  t = t > 200.0 ? 200.0 + vd{} : t;
  t = t < -200.0 ? -200.0 + vd{} : t;
  vd n = vround_d(t), r = t - n;
  vd q = 1.52019177906770779e-05 + vd{};
  q = q * r + 1.54692911065225759e-04;
  q = q * r + 1.33339225798166758e-03;
  q = q * r + 9.61802725380541713e-03;
  q = q * r + 5.55041035342805425e-02;
  q = q * r + 2.40226511981564972e-01;
  q = q * r + 6.93147180728452161e-01;
  q = q * r + 9.99999999961681318e-01;
  vl whole = (vl)(n + 6755399441055744.0) - 0x4338000000000000LL;
  return q * (vd)((whole + 1023) << 52);
}
EPK_INLINE vf vpow(vf x, vf y) {
  const float inf = __builtin_inff();
  vi usual = (vi)(x >= 1.17549435e-38f) & (vi)(x < inf) & (vi)(abs_of(y) < inf);
  if (any(~usual)) {
    for (int i = 0; i < VL; i++) x[i] = __builtin_powf(x[i], y[i]);
    return x;
  }
  Halves a = widen(x), b = widen(y);
  return narrow({power(a.low, b.low), power(a.high, b.high)});
}

}  // namespace EPK_NS
