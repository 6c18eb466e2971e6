// The threads of the process: one pool, shared by all sessions.
#pragma once
#include <cstdint>

namespace epk {

typedef void (*Body)(void *arg, int64_t begin, int64_t end, int thread);

// A run of a program with so many threads: while it lasts, workers wait for its next step without sleeping.
class RunScope {
 public:
  // expected: nanoseconds of work that there will be to share, as the run before had; workers are woken if it is much.
  RunScope(int threads, int64_t expected);
  ~RunScope();
  RunScope(const RunScope &) = delete;
  RunScope &operator=(const RunScope &) = delete;

 private:
  void *pool_ = nullptr;  // a child after fork has another
};

// Calls body over [0, count) in pieces of `grain` on up to `threads` threads, the caller's among them; returns when
// all are done. Runs that go on at once share the workers; where their callers have all CPUs, each of them works alone.
// `expected` is what it returned the last time: the nanoseconds of work, of all threads together; -1: not known.
// Little work is not shared, and nobody is woken for it.
int64_t parallel_for(int threads, int64_t count, int64_t grain, Body body, void *arg, int64_t expected);

}  // namespace epk
