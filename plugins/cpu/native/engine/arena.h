// Memory of one run: buffers cut from a few chunks that are kept for the next run. Best fit, neighbours are merged.
// When two runs have asked for the same, the next ones follow a plan: each buffer lies where it was found to fit best.
// A run that asks for something else leaves the plan at that point, and goes on as the first did, in the same memory.
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

#include "offsets.h"

namespace epk {

constexpr size_t ALIGNMENT = 64;

void *aligned_allocate(size_t nbytes);  // null: none; freed with aligned_free
void aligned_free(void *memory);

struct ArenaStatistics {
  int64_t held = 0, peak = 0, allocations = 0, reused = 0;
  int64_t least = 0;  // the most that was in use at once in the latest run: it could not do with less
};

// Who says how much may be held: asked before memory is taken, told (a negative number) of what is given back.
struct Account {
  bool (*reserve)(void *owner, int64_t nbytes) = nullptr;
  void *owner = nullptr;
};

class Arena {
 public:
  explicit Arena(const Account &account) : account_(account) {}
  Arena(const Arena &) = delete;
  ~Arena();

  // At least nbytes, aligned; null if the system has none.
  void *take(size_t nbytes);
  void give(void *memory);
  // The end of a run, when nothing is in use: where much more was held than was needed, the next run does with less.
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

  // Before each buffer.
  struct Header {
    int block, event;
  };

  static Header &header_of(void *memory);
  void *allocate(size_t nbytes);
  void *cut(size_t size);
  void *planned(size_t event, size_t size);
  void diverge(size_t events);
  void plan();
  bool grow(size_t nbytes, size_t multiple);
  void release();
  int spare_block();
  void split(int index, size_t nbytes);
  void merge(int index);
  void drop_free(int index);

  struct Chunk {
    void *memory;
    size_t size;
  };

  const Account &account_;
  std::vector<Chunk> chunks_;
  std::vector<Block> blocks_;
  std::vector<int> free_;     // blocks that are not used
  std::vector<int> recycled_; // entries of blocks_ that are not in any chunk
  size_t in_use_ = 0, most_ = 0, reserve_ = 0;

  int clock_ = 0;                     // takes and gives of this run
  std::vector<Lifetime> run_, last_;  // what this run and the last one took, in order; end -1: still in use
  std::vector<Lifetime> plan_;        // the run that is planned for; empty: none
  std::vector<size_t> offsets_;
  size_t planned_ = 0;                // bytes
  bool following_ = false;            // this run has done as planned so far
  std::vector<int> live_;
};

}  // namespace epk
