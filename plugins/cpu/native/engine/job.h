// A job that threads share: its caller, and helpers who come while there is something left to do.
#pragma once
#include <atomic>
#include <cstdint>

#include "cpus.h"
#include "pool.h"

namespace epk {

// Who may help, and who does. One word, so that who enters knows that it is still the same job: free places, helpers
// inside, the job's serial number here, closed or not.
class Gate {
 public:
  void open(int places) {
    word_.store((serial(word_.load(std::memory_order_relaxed)) + 1) << 32 | uint64_t(places), std::memory_order_release);
  }
  // Nobody else comes in.
  void close() { word_.fetch_or(CLOSED, std::memory_order_relaxed); }

  // How many helpers are inside; -1 if nobody else may come, or it is the job of that serial number.
  int helpers(uint64_t known) const {
    const uint64_t word = word_.load(std::memory_order_relaxed);
    return may_enter(word) && serial(word) != known ? inside(word) : -1;
  }

  // The helper's number, from 1 on, and the job's serial number; 0 if it came too late.
  int enter(uint64_t &known) {
    uint64_t word = word_.load(std::memory_order_relaxed);
    while (may_enter(word)) {
      if (!word_.compare_exchange_weak(word, word + ONE_INSIDE - 1, std::memory_order_acquire)) continue;
      known = serial(word);
      return inside(word) + 1;
    }
    return 0;
  }
  void leave() { word_.fetch_sub(ONE_INSIDE, std::memory_order_release); }

  bool is_empty() const { return inside(word_.load(std::memory_order_acquire)) == 0; }
  int free_places() const { return int(word_.load(std::memory_order_relaxed) & PLACES); }

 private:
  static constexpr uint64_t PLACES = 0xffff, ONE_INSIDE = 0x10000, CLOSED = uint64_t(1) << 63;
  static bool may_enter(uint64_t word) { return !(word & CLOSED) && (word & PLACES); }
  static uint64_t serial(uint64_t word) { return (word & ~CLOSED) >> 32; }
  static int inside(uint64_t word) { return int(word >> 16 & 0xffff); }

  std::atomic<uint64_t> word_{CLOSED};
};

class Job {
 public:
  // A caller has it for itself, from here to `give`.
  bool try_take() { return !taken_.load(std::memory_order_relaxed) && !taken_.exchange(true, std::memory_order_acquire); }
  void give() { taken_.store(false, std::memory_order_release); }

  void set(int64_t count, int64_t grain, int members, Body body, void *arg) {
    count_ = count, grain_ = grain, members_ = members, body_ = body, arg_ = arg;
    const int64_t pieces = (count - 1) / grain + 1;
    for (int i = 0; i < members; i++) {
      shares_[i].next.store(i * pieces / members, std::memory_order_relaxed);
      shares_[i].end = (i + 1) * pieces / members;
    }
  }

  // Until there is nothing left. Of the shares first the one that the thread had in the step before: that is in its
  // cache.
  void work(int number, int share) {
    if (share >= members_) share = number;
    for (int i = 0; i < members_; i++) {
      Share &each = shares_[(share + i) % members_];
      for (int64_t piece; (piece = each.next.fetch_add(1, std::memory_order_relaxed)) < each.end;) {
        const int64_t begin = piece * grain_, end = begin + grain_;
        body_(arg_, begin, end < count_ ? end : count_, number);
      }
    }
  }

 private:
  // The pieces that a thread begins with, on a cache line of their own.
  struct alignas(64) Share {
    std::atomic<int64_t> next;
    int64_t end;
  };

  alignas(64) std::atomic<bool> taken_{false};  // apart from what helpers read
  alignas(64) int64_t count_ = 0;
  int64_t grain_ = 1;
  int members_ = 1;  // the caller, and who may help
  Body body_ = nullptr;
  void *arg_ = nullptr;
  Share shares_[MAX_THREADS];
};

}  // namespace epk
