// A job that threads share: its caller, and helpers who come while there is something left to do.
#pragma once
#include <atomic>
#include <cstdint>

#include "cpus.h"
#include "pool.h"

namespace epk {

class Job {
 public:
  // A caller has it for itself, from here to `give`.
  bool try_take() { return !taken_.load(std::memory_order_relaxed) && !taken_.exchange(true, std::memory_order_acquire); }
  void give() { taken_.store(false, std::memory_order_release); }

  // From now on so many helpers may come.
  void open(int64_t count, int64_t grain, int helpers, Body body, void *arg) {
    count_ = count, grain_ = grain, body_ = body, arg_ = arg, members_ = helpers + 1;
    const int64_t pieces = (count - 1) / grain + 1;
    for (int i = 0; i < members_; i++) {
      shares_[i].next.store(i * pieces / members_, std::memory_order_relaxed);
      shares_[i].end = (i + 1) * pieces / members_;
    }
    gate_.store(uint64_t(helpers), std::memory_order_release);
  }

  // How many helpers are inside; -1 if no more may come.
  int helpers() const {
    const uint64_t gate = gate_.load(std::memory_order_relaxed);
    return may_enter(gate) ? inside(gate) : -1;
  }

  // The helper's number, below the caller's count of threads; 0 if it came too late.
  int enter() {
    uint64_t gate = gate_.load(std::memory_order_relaxed);
    while (may_enter(gate)) {
      if (gate_.compare_exchange_weak(gate, gate + ONE_INSIDE - 1, std::memory_order_acquire)) return inside(gate) + 1;
    }
    return 0;
  }

  // To the end: who finds nothing left closes the gate. Of the shares first the one that the thread had in the step
  // before: that is in its cache.
  void work(int number, int share) {
    if (share >= members_) share = number;
    for (int i = 0; i < members_; i++) {
      Share &each = shares_[(share + i) % members_];
      for (int64_t piece; (piece = each.next.fetch_add(1, std::memory_order_relaxed)) < each.end;) {
        const int64_t begin = piece * grain_, end = begin + grain_;
        body_(arg_, begin, end < count_ ? end : count_, number);
      }
    }
    gate_.fetch_or(CLOSED, std::memory_order_relaxed);
  }

  void leave() { gate_.fetch_sub(ONE_INSIDE, std::memory_order_release); }
  bool is_done() const { return inside(gate_.load(std::memory_order_acquire)) == 0; }
  // The caller, and who may help.
  int members() const { return members_; }
  // How many threads took part.
  int threads() const { return members_ - int(gate_.load(std::memory_order_relaxed) & PLACES); }

 private:
  // The pieces that a thread begins with, on a cache line of their own.
  struct alignas(64) Share {
    std::atomic<int64_t> next;
    int64_t end;
  };

  // In one word, so that who enters knows that it is still the same job: free places, helpers inside, closed or not.
  static constexpr uint64_t PLACES = 0xffff, ONE_INSIDE = 0x10000, CLOSED = uint64_t(1) << 63;
  static bool may_enter(uint64_t gate) { return !(gate & CLOSED) && (gate & PLACES); }
  static int inside(uint64_t gate) { return int(gate >> 16 & 0xffff); }

  alignas(64) std::atomic<uint64_t> gate_{CLOSED};
  std::atomic<bool> taken_{false};
  int64_t count_ = 0, grain_ = 1;
  Body body_ = nullptr;
  void *arg_ = nullptr;
  int members_ = 1;
  Share shares_[MAX_THREADS];
};

}  // namespace epk
