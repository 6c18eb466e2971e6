#include "pool.h"

#include <pthread.h>
#include <sched.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <condition_variable>
#include <cstdio>
#include <mutex>
#include <new>
#include <thread>
#include <vector>

#include "sanitizer.h"

namespace epk {
namespace {

constexpr int MAX_THREADS = 256;

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

struct Job {
  int64_t count, grain, pieces;
  Body body;
  void *arg;

  void piece(int64_t index, int thread) const {
    int64_t begin = index * grain, end = begin + grain;
    body(arg, begin, end < count ? end : count, thread);
  }
};

// A thread's own pieces, on a cache line of their own.
struct alignas(64) Share {
  std::atomic<int64_t> next;
  int64_t end;
};

constexpr uint64_t CLOSED = uint64_t(1) << 63;

class Pool {
 public:
  // Only the caller that gets the pool may start a job; others work alone.
  bool try_take() { return !taken_.exchange(true, std::memory_order_acquire); }
  void give() { taken_.store(false, std::memory_order_release); }

  void begin_run() { running_.fetch_add(1, std::memory_order_relaxed); }
  void end_run() { running_.fetch_sub(1, std::memory_order_relaxed); }

  // A ticket without a job: who sleeps comes, and looks out for the next one.
  void call() {
    if (sleeping_.load(std::memory_order_seq_cst) == 0 || !try_take()) return;
    ticket_.store(((ticket_.load(std::memory_order_relaxed) >> 16) + 1) << 16, std::memory_order_seq_cst);
    wake();
    give();
  }

  // How many threads took part.
  int run(const Job &job, int helpers, bool wakes) {
    grow(helpers);
    if (helpers > int(workers_)) helpers = int(workers_);
    job_ = &job;
    members_ = helpers + 1;
    for (int i = 0; i < members_; i++) {
      shares_[i].next.store(i * job.pieces / members_, std::memory_order_relaxed);
      shares_[i].end = (i + 1) * job.pieces / members_;
    }
    joined_.store(1, std::memory_order_relaxed);
    gate_.store(0, std::memory_order_release);
    // The ticket says which job it is, and how many of the workers are wanted.
    uint64_t ticket = ((ticket_.load(std::memory_order_relaxed) >> 16) + 1) << 16 | uint64_t(helpers);
    ticket_.store(ticket, std::memory_order_seq_cst);
    if (wakes && sleeping_.load(std::memory_order_seq_cst) > 0) wake();
    while (ALL_TAKE_PART && joined_.load(std::memory_order_relaxed) < members_) sched_yield();
    work(0);
    // Whoever has not come by now is not waited for: to wake a thread may take longer than the whole job.
    gate_.fetch_or(CLOSED, std::memory_order_acq_rel);
    // Who is inside has at most a piece to do: if that takes long, the system has given its CPU to somebody else, and
    // may give it ours.
    const int64_t begin = now();
    for (bool patient = false; gate_.load(std::memory_order_acquire) != CLOSED;) {
      if (patient) sched_yield();
      else for (int spins = 0; spins < 16; spins++) pause_cpu();
      patient = patient || now() - begin > PATIENCE;
    }
    return joined_.load(std::memory_order_relaxed);
  }

 private:
  void wake() {
    place();
    std::lock_guard<std::mutex> lock(mutex_);
    wake_.notify_all();
  }

  // Away from the CPU of who wakes: there a woken worker may be put, and wait for the one that waits for it.
  void place() {
#if defined(__linux__)
    cpu_set_t others;
    const int here = sched_getcpu();
    if (here < 0 || sched_getaffinity(0, sizeof others, &others) != 0) return;
    CPU_CLR(here, &others);
    if (CPU_COUNT(&others) == 0 || (placed_ == workers_ && CPU_EQUAL(&others, &places_))) return;
    for (int i = 0; i < workers_; i++) pthread_setaffinity_np(threads_[i], sizeof others, &others);
    places_ = others;
    placed_ = workers_;
#endif
  }

  // First what is the thread's own, which is what it had in the step before: that is in its cache. Then the others'.
  void work(int thread) {
    for (int i = 0; i < members_; i++) {
      Share &share = shares_[(thread + i) % members_];
      for (int64_t piece; (piece = share.next.fetch_add(1, std::memory_order_relaxed)) < share.end;)
        job_->piece(piece, thread);
    }
  }

  void grow(int wanted) {
    for (; workers_ < wanted && workers_ < MAX_THREADS - 1; workers_++) {
      int id = workers_ + 1;
      uint64_t seen = ticket_.load(std::memory_order_relaxed);
      try {
        std::thread thread([this, id, seen] { loop(id, seen); });
        threads_[workers_] = thread.native_handle();
        thread.detach();
      } catch (...) {
        return;  // the system gives no more: fewer will do
      }
    }
  }

  void loop(int id, uint64_t seen) {
    for (;;) {
      uint64_t ticket = wait(seen, id);
      seen = ticket;
      if (id > int(ticket & 0xffff) || !enter()) continue;
      if (id < members_) {  // it may be a later job than the ticket's
        joined_.fetch_add(1, std::memory_order_relaxed);
        work(id);
      }
      gate_.fetch_sub(1, std::memory_order_release);
    }
  }

  // False if the job is over.
  bool enter() {
    uint64_t inside = gate_.load(std::memory_order_acquire);
    while (!(inside & CLOSED)) {
      if (gate_.compare_exchange_weak(inside, inside + 1, std::memory_order_acq_rel)) return true;
    }
    return false;
  }

  // The next ticket. Spins for a while: during runs for longer, unless other runs need the CPU.
  uint64_t wait(uint64_t seen, int id) {
    const int64_t begin = now();
    for (int64_t passed = 0;; passed = now() - begin) {
      const int running = running_.load(std::memory_order_relaxed);
      if (passed > (running > 0 && running + id <= cpus_ ? GAP_IN_RUN : GAP)) break;
      for (int spins = 0; spins < 64; spins++) {
        uint64_t ticket = ticket_.load(std::memory_order_acquire);
        if (ticket != seen) return ticket;
        pause_cpu();
      }
    }
    std::unique_lock<std::mutex> lock(mutex_);
    sleeping_.fetch_add(1, std::memory_order_seq_cst);
    wake_.wait(lock, [&] { return ticket_.load(std::memory_order_seq_cst) != seen; });
    sleeping_.fetch_sub(1, std::memory_order_relaxed);
    return ticket_.load(std::memory_order_acquire);
  }

  std::atomic<bool> taken_{false};
  std::atomic<uint64_t> ticket_{0};
  std::atomic<uint64_t> gate_{CLOSED};  // how many workers are inside the job, and whether more may come
  std::atomic<int> sleeping_{0};
  std::atomic<int> running_{0};  // runs under way
  std::atomic<int> joined_{0};   // threads that took part in the job
  const int cpus_ = usable_cpus();
  Share shares_[MAX_THREADS];
  const Job *job_ = nullptr;
  int members_ = 0;  // threads of the job
  int workers_ = 0;
  std::thread::native_handle_type threads_[MAX_THREADS];
#if defined(__linux__)
  cpu_set_t places_{};  // of the workers
  int placed_ = 0;    // so many of them
#endif
  std::mutex mutex_;
  std::condition_variable wake_;
};

// Never destroyed: its threads may outlive the statics. A child after fork has none of the threads, and begins anew.
Pool *the_pool = nullptr;
pthread_once_t once = PTHREAD_ONCE_INIT;

void make_pool() {
  the_pool = new Pool;
  pthread_atfork(nullptr, nullptr, [] { the_pool = new Pool; });
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
  if (cpus < 1) return 1;
  return cpus < MAX_THREADS ? cpus : MAX_THREADS;
}

RunScope::RunScope(int threads, int64_t expected) {
  if (threads < 2) return;
  pthread_once(&once, make_pool);
  auto *pool = the_pool;
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
  const Job job{count, grain, (count - 1) / grain + 1, body, arg};
  int64_t useful = job.pieces < threads ? job.pieces : threads;
  if (useful > MAX_THREADS) useful = MAX_THREADS;
  const int64_t begin = now();
  int took_part = 0;
  if (useful > 1 && (expected < 0 || expected >= WORTH_SHARING)) {
    pthread_once(&once, make_pool);
    Pool *pool = the_pool;
    if (pool->try_take()) {
      took_part = pool->run(job, int(useful) - 1, expected < 0 || expected >= WORTH_WAKING);
      pool->give();
    }
  }
  if (took_part == 0) {
    for (int64_t piece = 0; piece < job.pieces; piece++) job.piece(piece, 0);
    took_part = 1;
  }
  return (now() - begin) * took_part;
}

}  // namespace epk
