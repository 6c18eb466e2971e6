#include "isa.h"

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
#endif

}  // namespace

const Isa ISAS[] = {
#if defined(EPK_HAS_avx512)
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
