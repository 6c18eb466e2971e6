// The operations of fused chains, each over one tile.
#include "../kernels/vmath.h"
#include "pointwise.h"
#include "types.h"

namespace EPK_NS {
namespace {

#define EPK_TILE [[maybe_unused]] const Instruction &how, [[maybe_unused]] void *to_, \
  [[maybe_unused]] const void *a_, [[maybe_unused]] const void *b_, [[maybe_unused]] const void *c_, \
  [[maybe_unused]] int64_t n

// ---- arithmetic in each type; integers wrap around ----

template <class T> struct Unsigned { typedef T type; };
template <> struct Unsigned<int8_t> { typedef uint32_t type; };
template <> struct Unsigned<int16_t> { typedef uint32_t type; };
template <> struct Unsigned<uint8_t> { typedef uint32_t type; };
template <> struct Unsigned<uint16_t> { typedef uint32_t type; };
template <> struct Unsigned<int32_t> { typedef uint32_t type; };
template <> struct Unsigned<int64_t> { typedef uint64_t type; };
#define U(x) typename Unsigned<T>::type(x)

#define EPK_BINARY(name, expression) \
  template <class T> int name(EPK_TILE) { \
    T *to = static_cast<T *>(to_); \
    const T *pa = static_cast<const T *>(a_), *pb = static_cast<const T *>(b_); \
    _Pragma("GCC ivdep") for (int64_t i = 0; i < n; i++) { \
      T a = pa[i], b = pb[i]; \
      to[i] = T(expression); \
    } \
    return 0; \
  }
#define EPK_COMPARE(name, expression) \
  template <class T> int name(EPK_TILE) { \
    uint8_t *to = static_cast<uint8_t *>(to_); \
    const T *pa = static_cast<const T *>(a_), *pb = static_cast<const T *>(b_); \
    for (int64_t i = 0; i < n; i++) { \
      T a = pa[i], b = pb[i]; \
      to[i] = uint8_t(expression); \
    } \
    return 0; \
  }
#define EPK_UNARY_OP(name, expression) \
  template <class T> int name(EPK_TILE) { \
    T *to = static_cast<T *>(to_); \
    const T *pa = static_cast<const T *>(a_); \
    [[maybe_unused]] const T x = T(how.x), y = T(how.y); \
    _Pragma("GCC ivdep") for (int64_t i = 0; i < n; i++) { \
      T a = pa[i]; \
      to[i] = T(expression); \
    } \
    return 0; \
  }

EPK_BINARY(add, U(a) + U(b))
EPK_BINARY(sub, U(a) - U(b))
EPK_BINARY(mul, U(a) * U(b))
EPK_BINARY(div_float, a / b)
EPK_BINARY(max_float, (a > b) | (a != a) ? a : b)  // NaN wins
EPK_BINARY(min_float, (a < b) | (a != a) ? a : b)
EPK_BINARY(max_int, a > b ? a : b)
EPK_BINARY(min_int, a < b ? a : b)
EPK_BINARY(prelu, a < 0 ? T(U(a) * U(b)) : a)
EPK_BINARY(bit_and, a & b)
EPK_BINARY(bit_or, a | b)
EPK_BINARY(bit_xor, a ^ b)
EPK_COMPARE(equal, a == b)
EPK_COMPARE(greater, a > b)
EPK_COMPARE(less, a < b)
EPK_COMPARE(greater_equal, a >= b)
EPK_COMPARE(less_equal, a <= b)
EPK_UNARY_OP(neg, U(0) - U(a))
EPK_UNARY_OP(neg_float, -a)
EPK_UNARY_OP(abs_int, a < 0 ? U(0) - U(a) : U(a))
EPK_UNARY_OP(copy, a)
EPK_UNARY_OP(bit_not, ~a)
EPK_UNARY_OP(sign, T((a > 0) - (a < 0)))
EPK_UNARY_OP(sign_float, a != a ? a : T((a > 0) - (a < 0)))
EPK_UNARY_OP(reciprocal, T(1) / a)
EPK_UNARY_OP(relu_float, a < 0 ? T(0) : a)
EPK_UNARY_OP(leaky_relu, a < 0 ? a * x : a)
EPK_UNARY_OP(thresholded_relu, a > x ? a : T(0))
EPK_UNARY_OP(hard_sigmoid, [&] { T s = x * a + y; s = s > 1 ? T(1) : s; return s < 0 ? T(0) : s; }())
EPK_UNARY_OP(hard_swish, [&] { T s = a + 3; s = s > 6 ? T(6) : s; s = s < 0 ? T(0) : s; return a * (s / 6); }())
EPK_UNARY_OP(softsign, a / (1 + (a < 0 ? -a : a)))
EPK_UNARY_OP(affine, x * a + y)
EPK_UNARY_OP(square, U(a) * U(a))
EPK_UNARY_OP(cube, U(a) * U(a) * U(a))

int abs_float32(EPK_TILE) {
  const float *a = static_cast<const float *>(a_);
  float *to = static_cast<float *>(to_);
  for (int64_t i = 0; i < n; i++) to[i] = __builtin_fabsf(a[i]);
  return 0;
}
int abs_float64(EPK_TILE) {
  const double *a = static_cast<const double *>(a_);
  double *to = static_cast<double *>(to_);
  for (int64_t i = 0; i < n; i++) to[i] = __builtin_fabs(a[i]);
  return 0;
}

template <class T> int div_int(EPK_TILE) {
  const T *a = static_cast<const T *>(a_), *b = static_cast<const T *>(b_);
  T *to = static_cast<T *>(to_);
  for (int64_t i = 0; i < n; i++) {
    if (b[i] == 0) return 1;
    to[i] = b[i] == T(-1) && T(-1) < T(0) ? T(U(0) - U(a[i])) : T(a[i] / b[i]);
  }
  return 0;
}

template <class T> int mod_int(EPK_TILE) {  // how.x: the sign is the dividend's, as C has it, else the divisor's
  const T *a = static_cast<const T *>(a_), *b = static_cast<const T *>(b_);
  T *to = static_cast<T *>(to_);
  for (int64_t i = 0; i < n; i++) {
    if (b[i] == 0) return 1;
    T r = b[i] == T(-1) && T(-1) < T(0) ? T(0) : T(a[i] % b[i]);
    to[i] = how.x == 0 && r != 0 && ((r < 0) != (b[i] < 0)) ? T(r + b[i]) : r;
  }
  return 0;
}

template <class T> int mod_float(EPK_TILE) {  // how.x: the sign is the dividend's, else the divisor's
  const T *a = static_cast<const T *>(a_), *b = static_cast<const T *>(b_);
  T *to = static_cast<T *>(to_);
  for (int64_t i = 0; i < n; i++) {
    const T r = sizeof(T) == 4 ? T(__builtin_fmodf(float(a[i]), float(b[i]))) : T(__builtin_fmod(double(a[i]), double(b[i])));
    if (how.x != 0 || r != r) to[i] = r;
    else if (r != 0) to[i] = (r < 0) != (b[i] < 0) ? r + b[i] : r;
    else to[i] = T(__builtin_copysign(0.0, double(b[i])));
  }
  return 0;
}

// A shift by all bits or more, or by fewer than 0, leaves only the sign.
template <class T> int shift_left(EPK_TILE) {
  const T *a = static_cast<const T *>(a_), *b = static_cast<const T *>(b_);
  T *to = static_cast<T *>(to_);
  for (int64_t i = 0; i < n; i++) to[i] = b[i] < 0 || uint64_t(b[i]) >= sizeof(T) * 8 ? T(0) : T(U(a[i]) << b[i]);
  return 0;
}
template <class T> int shift_right(EPK_TILE) {
  const T *a = static_cast<const T *>(a_), *b = static_cast<const T *>(b_);
  T *to = static_cast<T *>(to_);
  for (int64_t i = 0; i < n; i++) to[i] = b[i] < 0 || uint64_t(b[i]) >= sizeof(T) * 8 ? T(a[i] < 0 ? -1 : 0) : T(a[i] >> b[i]);
  return 0;
}

// ---- vector functions of float32, scalar ones of float64 ----

template <vf (*f)(vf)> int vector(EPK_TILE) {
  const float *a = static_cast<const float *>(a_);
  float *to = static_cast<float *>(to_);
  int64_t i = 0;
  for (; i + VL <= n; i += VL) store(to + i, f(load(a + i)));
  if (i < n) store_n(to + i, f(load_n(a + i, n - i)), n - i);
  return 0;
}

template <vf (*f)(vf, vf)> int vector_x(EPK_TILE) {
  const float *a = static_cast<const float *>(a_);
  float *to = static_cast<float *>(to_);
  const vf x = splat(float(how.x));
  int64_t i = 0;
  for (; i + VL <= n; i += VL) store(to + i, f(load(a + i), x));
  if (i < n) store_n(to + i, f(load_n(a + i, n - i), x), n - i);
  return 0;
}

int pow_float32(EPK_TILE) {
  const float *a = static_cast<const float *>(a_), *b = static_cast<const float *>(b_);
  float *to = static_cast<float *>(to_);
  int64_t i = 0;
  for (; i + VL <= n; i += VL) store(to + i, vpow(load(a + i), load(b + i)));
  if (i < n) store_n(to + i, vpow(load_n(a + i, n - i), load_n(b + i, n - i)), n - i);
  return 0;
}

template <double (*f)(double)> int scalar(EPK_TILE) {
  const double *a = static_cast<const double *>(a_);
  double *to = static_cast<double *>(to_);
  for (int64_t i = 0; i < n; i++) to[i] = f(a[i]);
  return 0;
}

template <double (*f)(double)> int scalar_float(EPK_TILE) {
  const float *a = static_cast<const float *>(a_);
  float *to = static_cast<float *>(to_);
  for (int64_t i = 0; i < n; i++) to[i] = float(f(double(a[i])));
  return 0;
}

int pow_float64(EPK_TILE) {
  const double *a = static_cast<const double *>(a_), *b = static_cast<const double *>(b_);
  double *to = static_cast<double *>(to_);
  for (int64_t i = 0; i < n; i++) to[i] = __builtin_pow(a[i], b[i]);
  return 0;
}

inline vf vreciprocal_root(vf x) { return 1.0f / vsqrt(x); }
// ln(1 + e) and e^x - 1 without cancellation, after Kahan.
inline vf vlog1p(vf e) {
  vf u = 1.0f + e;
  vf d = u - 1.0f;
  return select((vi)(d == 0.0f), e, vlog(u) * (e / select((vi)(d == 0.0f), splat(1.0f), d)));
}
inline vf vexpm1(vf x) {
  vf u = vexp(x), d = u - 1.0f;
  vf l = vlog(select((vi)(u <= 0.0f), splat(1.0f), u));
  vf fine = d * (x / select((vi)(l == 0.0f), splat(1.0f), l));
  vf result = select((vi)(l == 0.0f), x, fine);
  return select((vi)(abs_of(x) < 1.0f), result, d);
}
inline vf vsoftplus(vf x) { return vmax(x, splat(0.0f)) + vlog1p(vexp(-abs_of(x))); }
inline vf velu(vf x, vf alpha) { return select((vi)(x < 0.0f), alpha * vexpm1(x), x); }
inline vf vcelu(vf x, vf alpha) { return select((vi)(x < 0.0f), alpha * vexpm1(x / alpha), x); }
inline vf vswish(vf x, vf alpha) { return x * vgate(alpha * x); }
inline vf vmish(vf x) {
  vf e = vexp(-abs_of(x));
  vf rest = select((vi)(x < 0.0f), e * (e + 2.0f), 1.0f + 2.0f * e);
  return x * (rest / (rest + select((vi)(x < 0.0f), splat(2.0f), 2.0f * e * e)));
}
inline vf vfloor(vf x) {
  vf r = vround(x);
  return copy_sign(r - select((vi)(r > x), splat(1.0f), splat(0.0f)), x);
}
inline vf vceil(vf x) { return -vfloor(-x); }

double d_sigmoid(double x) {
  double e = __builtin_exp(-__builtin_fabs(x));
  return (x < 0 ? e : 1.0) / (1.0 + e);
}
double d_softplus(double x) { return (x > 0 || x != x ? x : 0) + __builtin_log1p(__builtin_exp(-__builtin_fabs(x))); }
double d_gelu(double x) { return 0.5 * x * __builtin_erfc(-x * 0.70710678118654752440); }
double d_gelu_tanh(double x) { return x * d_sigmoid(1.5957691216057308 * (x + 0.044715 * x * x * x)); }
double d_mish(double x) { return x * __builtin_tanh(d_softplus(x)); }
#define EPK_LIBM(name) double d_##name(double x) { return __builtin_##name(x); }
EPK_LIBM(exp) EPK_LIBM(log) EPK_LIBM(tanh) EPK_LIBM(erf) EPK_LIBM(sin) EPK_LIBM(cos) EPK_LIBM(tan) EPK_LIBM(asin)
EPK_LIBM(acos) EPK_LIBM(atan) EPK_LIBM(sinh) EPK_LIBM(cosh) EPK_LIBM(asinh) EPK_LIBM(acosh) EPK_LIBM(atanh)
EPK_LIBM(floor) EPK_LIBM(ceil) EPK_LIBM(rint) EPK_LIBM(sqrt)
#undef EPK_LIBM

template <class T> int elu_64(EPK_TILE) {
  const T *a = static_cast<const T *>(a_);
  T *to = static_cast<T *>(to_);
  for (int64_t i = 0; i < n; i++) to[i] = a[i] < 0 ? how.x * __builtin_expm1(a[i]) : a[i];
  return 0;
}

// ---- bool, choice, tests ----

#define EPK_LOGIC(name, expression) \
  int name(EPK_TILE) { \
    uint8_t *to = static_cast<uint8_t *>(to_); \
    const uint8_t *pa = static_cast<const uint8_t *>(a_); \
    [[maybe_unused]] const uint8_t *pb = static_cast<const uint8_t *>(b_); \
    for (int64_t i = 0; i < n; i++) to[i] = uint8_t(expression); \
    return 0; \
  }
EPK_LOGIC(logic_and, (pa[i] != 0) & (pb[i] != 0))
EPK_LOGIC(logic_or, (pa[i] != 0) | (pb[i] != 0))
EPK_LOGIC(logic_xor, (pa[i] != 0) ^ (pb[i] != 0))
EPK_LOGIC(logic_not, pa[i] == 0)

template <class T> int is_nan(EPK_TILE) {
  const T *a = static_cast<const T *>(a_);
  uint8_t *to = static_cast<uint8_t *>(to_);
  for (int64_t i = 0; i < n; i++) to[i] = a[i] != a[i];
  return 0;
}
template <class T> int is_inf(EPK_TILE) {  // how.x: count negative ones, how.y: positive ones
  const T *a = static_cast<const T *>(a_);
  uint8_t *to = static_cast<uint8_t *>(to_);
  const T inf = T(__builtin_inf());
  for (int64_t i = 0; i < n; i++) to[i] = (how.x != 0 && a[i] == -inf) || (how.y != 0 && a[i] == inf);
  return 0;
}
template <class T> int choose(EPK_TILE) {  // a ? b : c, for any type of the size of T
  const uint8_t *a = static_cast<const uint8_t *>(a_);
  const T *b = static_cast<const T *>(b_), *c = static_cast<const T *>(c_);
  T *to = static_cast<T *>(to_);
  for (int64_t i = 0; i < n; i++) to[i] = a[i] ? b[i] : c[i];
  return 0;
}

// ---- conversions ----

template <class To, class From> int cast(EPK_TILE) {
  const From *a = static_cast<const From *>(a_);
  To *to = static_cast<To *>(to_);
  for (int64_t i = 0; i < n; i++) to[i] = Convert<To, From>::of(a[i]);
  return 0;
}

#if defined(__F16C__)
template <> int cast<float, half>(EPK_TILE) {
  const uint16_t *a = static_cast<const uint16_t *>(a_);
  float *to = static_cast<float *>(to_);
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) _mm256_storeu_ps(to + i, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(a + i))));
  for (; i < n; i++) to[i] = _cvtsh_ss(a[i]);
  return 0;
}
template <> int cast<half, float>(EPK_TILE) {
  const float *a = static_cast<const float *>(a_);
  uint16_t *to = static_cast<uint16_t *>(to_);
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) {
    _mm_storeu_si128((__m128i *)(to + i), _mm256_cvtps_ph(_mm256_loadu_ps(a + i), _MM_FROUND_TO_NEAREST_INT));
  }
  for (; i < n; i++) to[i] = _cvtss_sh(a[i], _MM_FROUND_TO_NEAREST_INT);
  return 0;
}
#endif

template <class To> TileFunction cast_from(int type) {
  switch (type) {
#define X(name, From) \
  case TILE_##name: return cast<To, From>;
    EPK_TILE_TYPES(X)
#undef X
  }
  return nullptr;
}

// ---- the table ----

#define EPK_INTS(function, type) \
  switch (type) { \
    case TILE_int8: return function<int8_t>; \
    case TILE_int16: return function<int16_t>; \
    case TILE_int32: return function<int32_t>; \
    case TILE_int64: return function<int64_t>; \
    case TILE_uint8: return function<uint8_t>; \
    case TILE_uint16: return function<uint16_t>; \
    case TILE_uint32: return function<uint32_t>; \
    case TILE_uint64: return function<uint64_t>; \
  }
#define EPK_FLOATS(function, type) \
  if (type == TILE_float32) return function<float>; \
  if (type == TILE_float64) return function<double>;


#define EPK_TILE_OPS(X) \
  X(add) X(sub) X(mul) X(div) X(mod) X(max) X(min) X(pow) X(prelu) X(bit_and) X(bit_or) X(bit_xor) X(bit_not) \
  X(shift_left) X(shift_right) X(equal) X(greater) X(less) X(greater_equal) X(less_equal) X(neg) X(abs) X(sign) X(copy) X(square) X(cube) \
  X(floor) X(ceil) X(round) X(sqrt) X(reciprocal) X(reciprocal_root) X(relu) X(leaky_relu) X(thresholded_relu) \
  X(hard_sigmoid) X(hard_swish) X(softsign) X(affine) X(exp) X(log) X(sin) X(cos) X(tan) X(tanh) X(erf) X(sigmoid) \
  X(asin) X(acos) X(atan) X(sinh) X(cosh) X(asinh) X(acosh) X(atanh) X(softplus) X(elu) X(celu) X(swish) X(mish) \
  X(gelu) X(gelu_tanh) X(and) X(or) X(xor) X(not) X(is_nan) X(is_inf) X(where) \
  X(cast_float32) X(cast_float64) X(cast_int8) X(cast_int16) X(cast_int32) X(cast_int64) X(cast_uint8) \
  X(cast_uint16) X(cast_uint32) X(cast_uint64) X(cast_bool) X(cast_float16) X(cast_bfloat16) \
  X(dequantise) X(quantise_int8) X(quantise_uint8)

enum TileOp {
#define X(name) OP_##name,
  EPK_TILE_OPS(X)
#undef X
  OPS
};

const char *const NAMES[] = {
#define X(name) #name,
    EPK_TILE_OPS(X)
#undef X
};

#define EPK_EITHER(op, float_function, double_function) \
  case OP_##op: return type == TILE_float32 ? float_function : type == TILE_float64 ? double_function : nullptr;

TileFunction number_function(int op, int type) {
  switch (op) {
    case OP_add: EPK_FLOATS(add, type) EPK_INTS(add, type) break;
    case OP_sub: EPK_FLOATS(sub, type) EPK_INTS(sub, type) break;
    case OP_mul: EPK_FLOATS(mul, type) EPK_INTS(mul, type) break;
    case OP_div: EPK_FLOATS(div_float, type) EPK_INTS(div_int, type) break;
    case OP_mod: EPK_FLOATS(mod_float, type) EPK_INTS(mod_int, type) break;
    case OP_shift_left: EPK_INTS(shift_left, type) break;
    case OP_shift_right: EPK_INTS(shift_right, type) break;
    case OP_max: EPK_FLOATS(max_float, type) EPK_INTS(max_int, type) break;
    case OP_min: EPK_FLOATS(min_float, type) EPK_INTS(min_int, type) break;
    case OP_prelu: EPK_FLOATS(prelu, type) EPK_INTS(prelu, type) break;
    case OP_bit_and: EPK_INTS(bit_and, type) break;
    case OP_bit_or: EPK_INTS(bit_or, type) break;
    case OP_bit_xor: EPK_INTS(bit_xor, type) break;
    case OP_bit_not: EPK_INTS(bit_not, type) break;
    case OP_equal: EPK_FLOATS(equal, type) EPK_INTS(equal, type) if (type == TILE_bool) return equal<uint8_t>; break;
    case OP_greater: EPK_FLOATS(greater, type) EPK_INTS(greater, type) break;
    case OP_less: EPK_FLOATS(less, type) EPK_INTS(less, type) break;
    case OP_greater_equal: EPK_FLOATS(greater_equal, type) EPK_INTS(greater_equal, type) break;
    case OP_less_equal: EPK_FLOATS(less_equal, type) EPK_INTS(less_equal, type) break;
    case OP_neg: EPK_FLOATS(neg_float, type) EPK_INTS(neg, type) break;
    case OP_abs:
      if (type == TILE_float32) return abs_float32;
      if (type == TILE_float64) return abs_float64;
      EPK_INTS(abs_int, type) break;
    case OP_sign: EPK_FLOATS(sign_float, type) EPK_INTS(sign, type) break;
    case OP_square: EPK_FLOATS(square, type) EPK_INTS(square, type) break;
    case OP_cube: EPK_FLOATS(cube, type) EPK_INTS(cube, type) break;
    case OP_relu: EPK_FLOATS(relu_float, type) EPK_INTS(relu_float, type) break;
    case OP_copy:
      switch (type) {
        case TILE_float64: case TILE_int64: case TILE_uint64: return copy<uint64_t>;
        case TILE_float32: case TILE_int32: case TILE_uint32: return copy<uint32_t>;
        case TILE_int16: case TILE_uint16: case TILE_float16: case TILE_bfloat16: return copy<uint16_t>;
        default: return copy<uint8_t>;
      }
  }
  return nullptr;
}

TileFunction math_function(int op, int type) {
  switch (op) {
    case OP_reciprocal: EPK_FLOATS(reciprocal, type) break;
    case OP_leaky_relu: EPK_FLOATS(leaky_relu, type) break;
    case OP_thresholded_relu: EPK_FLOATS(thresholded_relu, type) break;
    case OP_hard_sigmoid: EPK_FLOATS(hard_sigmoid, type) break;
    case OP_hard_swish: EPK_FLOATS(hard_swish, type) break;
    case OP_softsign: EPK_FLOATS(softsign, type) break;
    case OP_affine: EPK_FLOATS(affine, type) break;
    EPK_EITHER(pow, pow_float32, pow_float64)
    EPK_EITHER(floor, vector<vfloor>, scalar<d_floor>)
    EPK_EITHER(ceil, vector<vceil>, scalar<d_ceil>)
    EPK_EITHER(round, vector<vround>, scalar<d_rint>)
    EPK_EITHER(sqrt, vector<vsqrt>, scalar<d_sqrt>)
    EPK_EITHER(reciprocal_root, vector<vreciprocal_root>, nullptr)
    EPK_EITHER(exp, vector<vexp>, scalar<d_exp>)
    EPK_EITHER(log, vector<vlog>, scalar<d_log>)
    EPK_EITHER(sin, vector<vsin>, scalar<d_sin>)
    EPK_EITHER(cos, vector<vcos>, scalar<d_cos>)
    EPK_EITHER(tan, scalar_float<d_tan>, scalar<d_tan>)
    EPK_EITHER(tanh, vector<vtanh>, scalar<d_tanh>)
    EPK_EITHER(erf, vector<verf>, scalar<d_erf>)
    EPK_EITHER(sigmoid, vector<vsigmoid>, scalar<d_sigmoid>)
    EPK_EITHER(asin, scalar_float<d_asin>, scalar<d_asin>)
    EPK_EITHER(acos, scalar_float<d_acos>, scalar<d_acos>)
    EPK_EITHER(atan, scalar_float<d_atan>, scalar<d_atan>)
    EPK_EITHER(sinh, scalar_float<d_sinh>, scalar<d_sinh>)
    EPK_EITHER(cosh, scalar_float<d_cosh>, scalar<d_cosh>)
    EPK_EITHER(asinh, scalar_float<d_asinh>, scalar<d_asinh>)
    EPK_EITHER(acosh, scalar_float<d_acosh>, scalar<d_acosh>)
    EPK_EITHER(atanh, scalar_float<d_atanh>, scalar<d_atanh>)
    EPK_EITHER(softplus, vector<vsoftplus>, scalar<d_softplus>)
    EPK_EITHER(elu, vector_x<velu>, elu_64<double>)
    EPK_EITHER(celu, vector_x<vcelu>, nullptr)
    EPK_EITHER(swish, vector_x<vswish>, nullptr)
    EPK_EITHER(mish, vector<vmish>, scalar<d_mish>)
    EPK_EITHER(gelu, vector<vgelu>, scalar<d_gelu>)
    EPK_EITHER(gelu_tanh, vector<vgelu_tanh>, scalar<d_gelu_tanh>)
  }
  return nullptr;
}

TileFunction other_function(int op, int type) {
  switch (op) {
    case OP_and: return type == TILE_bool ? logic_and : nullptr;
    case OP_or: return type == TILE_bool ? logic_or : nullptr;
    case OP_xor: return type == TILE_bool ? logic_xor : nullptr;
    case OP_not: return type == TILE_bool ? logic_not : nullptr;
    case OP_is_nan: EPK_FLOATS(is_nan, type) break;
    case OP_is_inf: EPK_FLOATS(is_inf, type) break;
    case OP_where:
      switch (type) {
        case TILE_float64: case TILE_int64: case TILE_uint64: return choose<uint64_t>;
        case TILE_float32: case TILE_int32: case TILE_uint32: return choose<uint32_t>;
        case TILE_int16: case TILE_uint16: case TILE_float16: case TILE_bfloat16: return choose<uint16_t>;
        default: return choose<uint8_t>;
      }
    case OP_dequantise: return dequantise_function(type);
    case OP_quantise_int8: return type == TILE_float32 ? quantise_function(TILE_int8) : nullptr;
    case OP_quantise_uint8: return type == TILE_float32 ? quantise_function(TILE_uint8) : nullptr;
#define X(name, To) \
  case OP_cast_##name: return cast_from<To>(type);
      EPK_TILE_TYPES(X)
#undef X
  }
  return nullptr;
}

}  // namespace

int tile_ops() { return OPS; }
const char *tile_op_name(int op) { return NAMES[op]; }

TileFunction tile_function(int op, int type) {
  if (op < 0 || op >= OPS || type < 0 || type >= TILE_TYPES) return nullptr;
  if (TileFunction found = number_function(op, type)) return found;
  if (TileFunction found = math_function(op, type)) return found;
  return other_function(op, type);
}

}  // namespace EPK_NS
