#include "cpus.h"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>

namespace epk {
namespace {

int64_t read_number(const char *path, int64_t *second = nullptr) {
  FILE *file = fopen(path, "r");
  if (!file) return -1;
  long long first = -1, next = -1;
  int found = fscanf(file, "%lld %lld", &first, &next);
  fclose(file);
  if (found < 1) return -1;
  if (second) *second = next;
  return first;
}

// CPUs granted by cgroup v2 or v1, rounded up; 0 where there is no quota.
int quota_cpus() {
  int64_t period = -1;
  int64_t quota = read_number("/sys/fs/cgroup/cpu.max", &period);
  if (quota <= 0) {
    quota = read_number("/sys/fs/cgroup/cpu/cpu.cfs_quota_us");
    period = read_number("/sys/fs/cgroup/cpu/cpu.cfs_period_us");
  }
  if (quota <= 0 || period <= 0) return 0;
  return int((quota + period - 1) / period);
}

}  // namespace

int usable_cpus() {
  int cpus = int(sysconf(_SC_NPROCESSORS_ONLN));
#if defined(__linux__)
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) cpus = CPU_COUNT(&set);
  int quota = quota_cpus();
  if (quota > 0 && quota < cpus) cpus = quota;
#endif
  return std::clamp(cpus, 1, MAX_THREADS);
}

}  // namespace epk
