// The engine's pool by itself, as if the machine had CPUS processors: callers at once, each with jobs of its own.
//
// driver CALLERS THREADS JOBS PIECES: prints for each caller how many pieces it did itself, and how many others did for
// it. Every piece must come once, and with a number that nobody else has at the time; else the status is 1.
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <thread>
#include <vector>

#include "cpus.h"
#include "pool.h"

int epk::usable_cpus() { return CPUS; }

namespace {

constexpr int64_t GRAIN = 3;
std::atomic<int64_t> left;
std::atomic<int> ready{0};
std::atomic<bool> wrong{false};

struct Caller {
  int threads = 0;
  std::vector<int> seen;  // plain: two threads at one element are a race
  std::vector<std::atomic<bool>> busy;
  std::atomic<int64_t> own{0}, others{0};

  Caller(int threads, int64_t count) : threads(threads), seen(size_t(count)), busy(size_t(threads)) {}

  static void piece(void *arg, int64_t begin, int64_t end, int thread) {
    auto &self = *static_cast<Caller *>(arg);
    if (thread < 0 || thread >= self.threads || self.busy[size_t(thread)].exchange(true)) wrong = true;
    for (int64_t i = begin; i < end; i++) self.seen[size_t(i)]++;
    for (volatile int i = 0; i < 20000; i = i + 1) {}
    (thread == 0 ? self.own : self.others)++;
    self.busy[size_t(thread)] = false;
  }

  void run(int callers) {
    ready++;
    while (ready < callers) std::this_thread::yield();
    while (left.fetch_sub(1) > 0) {
      const epk::RunScope scope(threads, 1000000);
      epk::parallel_for(threads, int64_t(seen.size()), GRAIN, piece, this, 1000000);
      for (int &times : seen) {
        if (times != 1) wrong = true;
        times = 0;
      }
    }
  }
};

}  // namespace

int main(int count, char **arguments) {
  if (count != 5) return 2;
  const int callers = atoi(arguments[1]), threads = atoi(arguments[2]);
  left = atoi(arguments[3]);
  std::vector<Caller *> all;
  std::vector<std::thread> running;
  for (int i = 0; i < callers; i++) all.push_back(new Caller(threads, GRAIN * atoi(arguments[4]) - 1));
  for (Caller *caller : all) running.emplace_back([=] { caller->run(callers); });
  for (std::thread &thread : running) thread.join();
  for (Caller *caller : all) printf("%lld %lld\n", (long long)caller->own, (long long)caller->others);
  return wrong ? 1 : 0;
}
