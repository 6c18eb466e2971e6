// Products without denormal numbers, which take an instruction a hundred times as long: they are read and written as 0.
#pragma once
#include "simd.h"

namespace EPK_NS {

// While it lives, on the thread that made it.
class FlushDenormals {
 public:
  FlushDenormals(const FlushDenormals &) = delete;
#if defined(__x86_64__)
  FlushDenormals() : before_(_mm_getcsr()) { _mm_setcsr(before_ | 0x8040); }  // denormals are zero, flush to zero
  ~FlushDenormals() { _mm_setcsr(before_); }

 private:
  unsigned before_;
#else
  FlushDenormals() {}
  ~FlushDenormals() {}
#endif
};

}  // namespace EPK_NS
