#include "unary.h"

#include "vmath.h"

namespace EPK_NS {
namespace {

template <vf (*f)(vf)> void map(const float *x, float *out, int64_t n, Parallel *p) {
  parallel_for(p, n, 16384, [=](int64_t begin, int64_t end, int) {
    int64_t i = begin;
    for (; i + VL <= end; i += VL) store(out + i, f(load(x + i)));
    if (i < end) store_n(out + i, f(load_n(x + i, end - i)), end - i);
  });
}

}  // namespace
}  // namespace EPK_NS

using namespace EPK_NS;

extern "C" void EPK(unary_f32)(int function, const float *x, float *out, int64_t n, Parallel *p) {
  switch (function) {
    case EPK_EXP: return map<vexp>(x, out, n, p);
    case EPK_LOG: return map<vlog>(x, out, n, p);
    case EPK_TANH: return map<vtanh>(x, out, n, p);
    case EPK_SIGMOID: return map<vsigmoid>(x, out, n, p);
    case EPK_ERF: return map<verf>(x, out, n, p);
    case EPK_SIN: return map<vsin>(x, out, n, p);
    case EPK_COS: return map<vcos>(x, out, n, p);
    case EPK_GELU: return map<vgelu>(x, out, n, p);
    case EPK_GELU_TANH: return map<vgelu_tanh>(x, out, n, p);
    case EPK_SILU: return map<vsilu>(x, out, n, p);
  }
}

extern "C" void EPK(pow_f32)(const float *x, const float *y, float *out, int64_t n, Parallel *p) {
  parallel_for(p, n, 8192, [=](int64_t begin, int64_t end, int) {
    int64_t i = begin;
    for (; i + VL <= end; i += VL) store(out + i, vpow(load(x + i), load(y + i)));
    if (i < end) store_n(out + i, vpow(load_n(x + i, end - i), load_n(y + i, end - i)), end - i);
  });
}
