#include "isa.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace epk {
namespace {

[[maybe_unused]] bool always() { return true; }

#if defined(__x86_64__)
[[maybe_unused]] bool has_avx2() {
  __builtin_cpu_init();
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

[[maybe_unused]] bool has_avx512() {
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512vnni") &&
         __builtin_cpu_supports("avx512bf16");
}

// AVX512-FP16: leaf 7, EDX bit 23 (a compiler's name for it is younger than ours).
[[maybe_unused]] bool has_avx512fp16() {
  unsigned a, b, c, d;
  return has_avx512() && __get_cpuid_count(7, 0, &a, &b, &c, &d) && (d >> 23 & 1);
}
#endif

}  // namespace

bool fast_bf16_dot() {
#if defined(__x86_64__)
  return has_avx512() && __builtin_cpu_is("amd");
#else
  return false;
#endif
}

const Isa ISAS[] = {
#if defined(EPK_HAS_avx512)
    {"avx512fp16", epk_operators_avx512, has_avx512fp16},  // products of halves are asked for by the caller
    {"avx512", epk_operators_avx512, has_avx512},
#endif
#if defined(EPK_HAS_avx2)
    {"avx2", epk_operators_avx2, has_avx2},
#endif
#if defined(EPK_HAS_neon)
    {"neon", epk_operators_neon, always},
#endif
#if defined(EPK_HAS_baseline)
    {"baseline", epk_operators_baseline, always},
#endif
    {nullptr, nullptr, nullptr},
};

}  // namespace epk
