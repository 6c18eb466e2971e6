// The parallel interface that kernels see. The engine owns the threads; a kernel only says what may run at once.
#pragma once
#include <cstdint>

// `run` calls `body(arg, begin, end, thread)` over [0, count) in pieces of `grain` items (the last may be
// smaller), with 0 <= thread < threads, and returns when all are done. Which thread takes a piece never changes
// the result. A null Parallel means: serial, on the calling thread.
struct Parallel {
  int threads;
  void (*run)(Parallel *self, int64_t count, int64_t grain,
              void (*body)(void *arg, int64_t begin, int64_t end, int thread), void *arg);
};
