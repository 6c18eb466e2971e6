// The threads of the process: one pool, shared by all sessions.
#pragma once
#include <cstdint>

namespace epk {

typedef void (*Body)(void *arg, int64_t begin, int64_t end, int thread);

// CPUs that this process may really use: affinity, then the cgroup's quota.
int usable_cpus();

// Calls body over [0, count) in pieces of `grain` on up to `threads` threads, the caller's among them; returns when
// all are done. If another run has the pool at the moment, the caller does it all: it costs neither of them more.
void parallel_for(int threads, int64_t count, int64_t grain, Body body, void *arg);

}  // namespace epk
