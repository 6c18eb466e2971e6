// Memory of one run: buffers cut from a few chunks that are kept for the next run. Best fit, neighbours are merged.
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

namespace epk {

constexpr size_t ALIGNMENT = 64;

void *aligned_allocate(size_t nbytes);  // null: none; freed with aligned_free
void aligned_free(void *memory);

struct ArenaStatistics {
  int64_t held = 0, peak = 0, allocations = 0, reused = 0;
};

class Arena {
 public:
  Arena() = default;
  Arena(const Arena &) = delete;
  ~Arena();

  // At least nbytes, aligned; null if the system has none.
  void *take(size_t nbytes);
  void give(void *memory);
  // The end of a run, when nothing is in use: many chunks, or much more than was needed, become one at the next run.
  void settle();

  ArenaStatistics statistics;

 private:
  // A stretch of a chunk; the stretches of a chunk form a list in the order of addresses.
  struct Block {
    char *start;
    size_t size;
    int previous, next;  // in the chunk; -1: none
    bool used;
  };

  bool grow(size_t nbytes);
  void release();
  int spare_block();
  void split(int index, size_t nbytes);
  void merge(int index);
  void drop_free(int index);

  std::vector<void *> chunks_;
  std::vector<Block> blocks_;
  std::vector<int> free_;     // blocks that are not used
  std::vector<int> recycled_; // entries of blocks_ that are not in any chunk
  size_t in_use_ = 0, most_ = 0, reserve_ = 0;
};

}  // namespace epk
