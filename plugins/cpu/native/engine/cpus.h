// How many CPUs this process may really use.
#pragma once

namespace epk {

constexpr int MAX_THREADS = 256;  // of the pool

// By affinity, and by the quota of its control group; 1 to MAX_THREADS.
int usable_cpus();

}  // namespace epk
