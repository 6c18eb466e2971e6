#include "pool.h"

#include <pthread.h>
#include <sched.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>

#include "cpus.h"
#include "job.h"
#include "sanitizer.h"

namespace epk {
namespace {

constexpr int JOBS = 7;  // at once; more callers work alone

// In nanoseconds.
constexpr int64_t GAP = 50000;       // a worker sleeps after that long without work: the gap between two runs
constexpr int64_t GAP_IN_RUN = 1000000;  // while runs are under way: more work is near
constexpr int64_t PATIENCE = 20000;      // a caller waits that long for the others' last pieces before it yields
// Less work is done sooner than another thread has taken note of it, or than a sleeping one has woken.
constexpr int64_t WORTH_SHARING = ALL_TAKE_PART ? 0 : 4000;
constexpr int64_t WORTH_WAKING = ALL_TAKE_PART ? 0 : 40000;

void pause_cpu() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

int64_t now() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return int64_t(t.tv_sec) * 1000000000 + t.tv_nsec;
}

class Pool {
 public:
  void begin_run() { running_.fetch_add(1, std::memory_order_relaxed); }
  void end_run() { running_.fetch_sub(1, std::memory_order_relaxed); }

  // A ticket without a job: who sleeps comes, and looks out for the next one.
  void call() {
    if (running_.load(std::memory_order_relaxed) >= cpus_) return;
    ticket_.fetch_add(1, std::memory_order_seq_cst);
    if (sleeping_.load(std::memory_order_seq_cst) > 0) wake();
  }

  // A job that was nobody's; -1: there is none.
  int take() {
    for (int i = 0; i < JOBS; i++) {
      if (!jobs_[i].try_take()) continue;
      callers_.fetch_add(1, std::memory_order_relaxed);
      return i;
    }
    return -1;
  }

  void give(int which) {
    callers_.fetch_sub(1, std::memory_order_relaxed);
    jobs_[which].give();
  }

  // To the end of the job. Returns how many threads took part.
  int run(int which, int threads, int64_t count, int64_t grain, Body body, void *arg, bool wakes) {
    const int members = 1 + helpers(threads - 1);
    Job &job = jobs_[which];
    Gate &gate = gates_[which];
    job.set(count, grain, members, body, arg);
    if (members > 1) {
      gate.open(members - 1);
      ticket_.fetch_add(1, std::memory_order_seq_cst);
      if (wakes && sleeping_.load(std::memory_order_seq_cst) > 0) wake();
      while (ALL_TAKE_PART && gate.free_places()) sched_yield();
    }
    job.work(0, 0);
    if (members == 1) return 1;
    // Whoever has not come by now is not waited for: to wake a thread may take longer than the whole job.
    gate.close();
    // Who is inside has at most a piece to do: if that takes long, the system has given its CPU to somebody else, and
    // may give it ours.
    const int64_t begin = now();
    for (bool patient = false; !gate.is_empty();) {
      if (patient) sched_yield();
      else for (int spins = 0; spins < 16; spins++) pause_cpu();
      patient = patient || now() - begin > PATIENCE;
    }
    return members - gate.free_places();
  }

 private:
  // How many may help where so many could: beside other jobs no more than their callers leave CPUs.
  int helpers(int wanted) {
    const int callers = callers_.load(std::memory_order_relaxed);
    if (callers > 1) wanted = std::clamp(cpus_ - callers, 0, wanted);
    if (wanted > workers_.load(std::memory_order_acquire)) grow(wanted);
    return std::min(wanted, workers_.load(std::memory_order_acquire));
  }

  void wake() {
    std::lock_guard<std::mutex> lock(mutex_);
    place();
    wake_.notify_all();
  }

  // Away from the CPU of who wakes: there a woken worker may be put, and wait for the one that waits for it.
  void place() {
#if defined(__linux__)
    const int here = sched_getcpu(), workers = workers_.load(std::memory_order_relaxed);
    cpu_set_t others;
    if (here < 0 || sched_getaffinity(0, sizeof others, &others) != 0) return;
    CPU_CLR(here, &others);
    if (CPU_COUNT(&others) == 0 || (placed_ == workers && CPU_EQUAL(&others, &places_))) return;
    for (int i = 0; i < workers; i++) pthread_setaffinity_np(threads_[i], sizeof others, &others);
    places_ = others;
    placed_ = workers;
#endif
  }

  void grow(int wanted) {
    std::lock_guard<std::mutex> lock(mutex_);
    for (int number = workers_; number < wanted && number < MAX_THREADS - 1; number++) {
      try {
        std::thread thread([this, number] { loop(number + 1); });
        threads_[number] = thread.native_handle();
        thread.detach();
      } catch (...) {
        return;  // the system gives no more: fewer will do
      }
      workers_.store(number + 1, std::memory_order_release);
    }
  }

  void loop(int id) {
    uint64_t known[JOBS] = {};  // of each job the serial number under which nothing was left for this thread
    for (;;) {
      const uint64_t seen = ticket_.load(std::memory_order_acquire);
      for (int which; (which = neediest(known)) >= 0;) {
        if (const int number = gates_[which].enter(known[which])) {
          jobs_[which].work(number, id);
          gates_[which].leave();
        }
      }
      wait(seen, id);
    }
  }

  // Of the open jobs that the thread has not been at the one with the fewest helpers: so runs that go on at once have
  // equal shares of the pool. -1: there is none.
  int neediest(const uint64_t *known) {
    int found = -1, fewest = MAX_THREADS;
    for (int i = 0; i < JOBS; i++) {
      const int helpers = gates_[i].helpers(known[i]);
      if (helpers >= 0 && helpers < fewest) found = i, fewest = helpers;
    }
    return found;
  }

  // For the next ticket. Spins for a while: during runs for longer, unless other runs need the CPU.
  void wait(uint64_t seen, int id) {
    const int64_t begin = now();
    for (int64_t passed = 0;; passed = now() - begin) {
      const int running = running_.load(std::memory_order_relaxed);
      if (passed > (running > 0 && running + id <= cpus_ ? GAP_IN_RUN : GAP)) break;
      for (int spins = 0; spins < 64; spins++) {
        if (ticket_.load(std::memory_order_acquire) != seen) return;
        pause_cpu();
      }
    }
    std::unique_lock<std::mutex> lock(mutex_);
    sleeping_.fetch_add(1, std::memory_order_seq_cst);
    wake_.wait(lock, [&] { return ticket_.load(std::memory_order_seq_cst) != seen; });
    sleeping_.fetch_sub(1, std::memory_order_relaxed);
  }

  alignas(64) std::atomic<uint64_t> ticket_{0};  // another one: there may be a job
  Gate gates_[JOBS];                             // beside it, in the same cache line
  alignas(64) std::atomic<int> sleeping_{0};
  std::atomic<int> running_{0};  // runs under way
  std::atomic<int> callers_{0};  // of jobs
  std::atomic<int> workers_{0};
  const int cpus_ = usable_cpus();
  Job jobs_[JOBS];
  std::mutex mutex_;  // of what follows
  std::thread::native_handle_type threads_[MAX_THREADS];
#if defined(__linux__)
  cpu_set_t places_{};  // of the workers
  int placed_ = 0;    // so many of them
#endif
  std::condition_variable wake_;
};

// Never destroyed: its threads may outlive the statics. A child after fork has none of the threads, and begins anew.
Pool *the_pool = nullptr;
pthread_once_t once = PTHREAD_ONCE_INIT;

void make_pool() {
  the_pool = new Pool;
  pthread_atfork(nullptr, nullptr, [] { the_pool = new Pool; });
}

Pool *the() {
  pthread_once(&once, make_pool);
  return the_pool;
}

}  // namespace

RunScope::RunScope(int threads, int64_t expected) {
  if (threads < 2) return;
  Pool *const pool = the();
  pool_ = pool;
  pool->begin_run();
  if (expected >= WORTH_WAKING) pool->call();
}

RunScope::~RunScope() {
  if (pool_) static_cast<Pool *>(pool_)->end_run();
}

int64_t parallel_for(int threads, int64_t count, int64_t grain, Body body, void *arg, int64_t expected) {
  if (count <= 0) return 0;
  if (grain < 1) grain = 1;
  const int64_t pieces = (count - 1) / grain + 1, useful = std::min<int64_t>({pieces, threads, MAX_THREADS});
  const int64_t begin = now();
  Pool *const pool = useful > 1 && (expected < 0 || expected >= WORTH_SHARING) ? the() : nullptr;
  if (const int job = pool ? pool->take() : -1; job >= 0) {
    const bool wakes = expected < 0 || expected >= WORTH_WAKING;
    const int took_part = pool->run(job, int(useful), count, grain, body, arg, wakes);
    pool->give(job);
    return (now() - begin) * took_part;
  }
  for (int64_t piece = 0; piece < pieces; piece++) body(arg, piece * grain, std::min(count, (piece + 1) * grain), 0);
  return now() - begin;
}

}  // namespace epk
