// Element types that C has no arithmetic for: float16, bfloat16 and bool, as conversions to and from float.
#pragma once
#include "ops.h"

namespace EPK_NS {

#if defined(__aarch64__) && !defined(__clang__) && __GNUC__ < 13
typedef __fp16 half;  // g++ had no _Float16 for this machine; the numbers are the same
#else
typedef _Float16 half;
#endif

struct bf16 {
  uint16_t bits;
};

struct bool8 {
  uint8_t byte;
};

inline float from_bf16(bf16 x) {
  uint32_t wide = uint32_t(x.bits) << 16;
  float f;
  memcpy(&f, &wide, 4);
  return f;
}

inline bf16 to_bf16(float f) {  // to nearest even; NaN stays NaN
  uint32_t wide;
  memcpy(&wide, &f, 4);
  if ((wide & 0x7fffffff) > 0x7f800000) return bf16{uint16_t((wide >> 16) | 0x40)};
  return bf16{uint16_t((wide + 0x7fff + ((wide >> 16) & 1)) >> 16)};
}

// A double as float, inexact values to the odd neighbour: rounding again to fewer bits is right then.
inline float to_odd_float(double x) {
  float y = float(x);
  uint32_t bits;
  memcpy(&bits, &y, 4);
  double back = double(y);
  if (back == x || x != x || (bits & 1) || back - back != 0) return y;
  bits += (back < x) == (y > 0 || (y == 0 && x > 0)) ? 1 : uint32_t(-1);
  memcpy(&y, &bits, 4);
  return y;
}

// convert<To>(from): what Cast means. Floats out of an integer's range give what the CPU's conversion gives.
template <class To, class From> struct Convert {
  static To of(From x) { return To(x); }
};
template <class From> struct Convert<bool8, From> {
  static bool8 of(From x) { return bool8{uint8_t(x != From(0))}; }
};
template <class To> struct Convert<To, bool8> {
  static To of(bool8 x) { return To(x.byte != 0); }
};
template <> struct Convert<bool8, bool8> {
  static bool8 of(bool8 x) { return x; }
};
template <class To> struct Convert<To, bf16> {
  static To of(bf16 x) { return Convert<To, float>::of(from_bf16(x)); }
};
template <class From> struct Convert<bf16, From> {
  static bf16 of(From x) { return to_bf16(to_odd_float(double(x))); }
};
template <> struct Convert<bf16, float> {
  static bf16 of(float x) { return to_bf16(x); }
};
template <> struct Convert<bf16, bf16> {
  static bf16 of(bf16 x) { return x; }
};
template <> struct Convert<bf16, bool8> {
  static bf16 of(bool8 x) { return to_bf16(x.byte ? 1.0f : 0.0f); }
};
template <> struct Convert<bool8, bf16> {
  static bool8 of(bf16 x) { return bool8{uint8_t((x.bits & 0x7fff) != 0)}; }
};
#define EPK_FLOAT_TO_INT(To, From, Via) \
  template <> struct Convert<To, From> { \
    static To of(From x) { return To(Via(x)); } \
  };
#define EPK_FLOAT_TO_INTS(From) \
  EPK_FLOAT_TO_INT(int8_t, From, int32_t) EPK_FLOAT_TO_INT(int16_t, From, int32_t) \
  EPK_FLOAT_TO_INT(uint8_t, From, int32_t) EPK_FLOAT_TO_INT(uint16_t, From, int32_t) \
  EPK_FLOAT_TO_INT(uint32_t, From, int64_t)
EPK_FLOAT_TO_INTS(float)
EPK_FLOAT_TO_INTS(double)
#undef EPK_FLOAT_TO_INTS
#undef EPK_FLOAT_TO_INT
#define EPK_FLOAT_TO_UINT64(From) \
  template <> struct Convert<uint64_t, From> { \
    static uint64_t of(From x) { return x < From(0) ? uint64_t(int64_t(x)) : uint64_t(x); } \
  };
EPK_FLOAT_TO_UINT64(float)
EPK_FLOAT_TO_UINT64(double)
#undef EPK_FLOAT_TO_UINT64
#define EPK_HALF_TO_INT(To) \
  template <> struct Convert<To, half> { \
    static To of(half x) { return Convert<To, float>::of(float(x)); } \
  };
EPK_HALF_TO_INT(int8_t) EPK_HALF_TO_INT(int16_t) EPK_HALF_TO_INT(int32_t) EPK_HALF_TO_INT(int64_t)
EPK_HALF_TO_INT(uint8_t) EPK_HALF_TO_INT(uint16_t) EPK_HALF_TO_INT(uint32_t) EPK_HALF_TO_INT(uint64_t)
#undef EPK_HALF_TO_INT

}  // namespace EPK_NS
