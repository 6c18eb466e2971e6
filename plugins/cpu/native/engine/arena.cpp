#include "arena.h"

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <new>

#ifdef __linux__
#include <sys/mman.h>
#endif

#include "sanitizer.h"

namespace epk {
namespace {

constexpr size_t SMALLEST = size_t(1) << 16;
constexpr size_t PAGE = 4096;
constexpr size_t HEADER = ALIGNMENT;  // before each buffer
constexpr size_t MOST_PLANNED = 4096; // buffers of a run: the time for a plan grows with their square; no more are noted

constexpr size_t LARGE = size_t(1) << 20;

size_t round_up(size_t n, size_t multiple) { return (n + multiple - 1) / multiple * multiple; }

// Large chunks go back to the system as soon as they are given back: free() would keep them in the process, beside what
// the plan takes in their place.
void *chunk_allocate(size_t nbytes) {
#ifdef __linux__
  if (nbytes >= LARGE) {
    if (nbytes > SIZE_MAX / 2) return nullptr;
    void *memory = mmap(nullptr, nbytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return memory == MAP_FAILED ? nullptr : memory;
  }
#endif
  return aligned_allocate(nbytes);
}

void chunk_free(void *memory, size_t nbytes) {
  permit(memory, nbytes);  // others may get these addresses
#ifdef __linux__
  if (nbytes >= LARGE) {
    munmap(memory, nbytes);
    return;
  }
#endif
  aligned_free(memory);
}

}  // namespace

void *aligned_allocate(size_t nbytes) {
  void *memory = nullptr;
  if (nbytes > SIZE_MAX / 2) return nullptr;
  return posix_memalign(&memory, ALIGNMENT, nbytes ? nbytes : 1) == 0 ? memory : nullptr;
}

void aligned_free(void *memory) { free(memory); }

Arena::~Arena() { release(); }

Arena::Header &Arena::header_of(void *memory) {
  char *const header = static_cast<char *>(memory) - HEADER;
  permit(header, sizeof(Header));
  return *reinterpret_cast<Header *>(header);
}

void *Arena::take(size_t nbytes) {
  if (nbytes > SIZE_MAX / 4) return nullptr;
  const size_t size = round_up(nbytes ? nbytes : 1, ALIGNMENT) + FENCE + HEADER;
  const size_t event = run_.size();
  const bool noted = event < MOST_PLANNED;  // a loop may go on for any number of trips
  if (noted) run_.push_back({size, clock_, -1});
  if (following_ && !(event < plan_.size() && plan_[event].size == size && plan_[event].start == clock_)) diverge(event);
  void *memory = following_ ? planned(event, size) : cut(size);
  if (!memory) {
    if (noted) run_.pop_back();
    return nullptr;
  }
  if (in_use_ > most_) most_ = in_use_;
  header_of(memory).event = noted ? int(event) : -1;
  if (noted) clock_++;
  forbid(static_cast<char *>(memory) - HEADER, size);
  permit(memory, nbytes);
  return memory;
}

// A buffer where the plan has it.
void *Arena::planned(size_t event, size_t size) {
  if (chunks_.empty() && !grow(planned_, ALIGNMENT)) return nullptr;
  statistics.reused++;
  in_use_ += size;
  return static_cast<char *>(chunks_[0].memory) + offsets_[event] + HEADER;
}

// A buffer cut from the free blocks.
void *Arena::cut(size_t size) {
  for (int attempt = 0; attempt < 2; attempt++) {
    int best = -1;
    for (size_t i = 0; i < free_.size(); i++) {
      const Block &block = blocks_[free_[i]];
      if (block.size >= size && (best < 0 || block.size < blocks_[free_[best]].size)) best = int(i);
    }
    if (best >= 0) {
      int index = free_[best];
      free_[best] = free_.back();
      free_.pop_back();
      split(index, size);
      Block &block = blocks_[index];
      block.used = true;
      in_use_ += block.size;
      if (attempt == 0) statistics.reused++;
      char *memory = block.start + HEADER;
      header_of(memory).block = index;
      return memory;
    }
    if (!grow(size, PAGE)) return nullptr;
  }
  return nullptr;
}

void Arena::give(void *memory) {
  const int event = header_of(memory).event;
  if (following_ && plan_[event].end != clock_) diverge(run_.size());
  if (event >= 0) run_[event].end = clock_++;
  if (following_) {
    in_use_ -= run_[event].size;
    forbid(memory, run_[event].size - HEADER);
    return;
  }
  const int index = header_of(memory).block;
  forbid(memory, blocks_[index].size - HEADER);
  in_use_ -= blocks_[index].size;
  blocks_[index].used = false;
  merge(index);
}

// From the plan to blocks: what is in use becomes used blocks of the first chunk, all else free ones.
void Arena::diverge(size_t events) {
  following_ = false;
  live_.clear();
  for (size_t i = 0; i < events; i++)
    if (run_[i].end < 0) live_.push_back(int(i));
  std::sort(live_.begin(), live_.end(), [this](int a, int b) { return offsets_[a] < offsets_[b]; });
  blocks_.clear();
  free_.clear();
  recycled_.clear();
  for (const Chunk &chunk : chunks_) {
    char *const memory = static_cast<char *>(chunk.memory);
    int previous = -1;
    const auto add = [&](size_t begin, size_t end, bool used) {
      if (begin == end) return;
      const int index = int(blocks_.size());
      blocks_.push_back(Block{memory + begin, end - begin, previous, -1, used});
      if (previous >= 0) blocks_[previous].next = index;
      if (!used) free_.push_back(index);
      previous = index;
    };
    size_t cursor = 0;
    for (int event : live_) {
      add(cursor, offsets_[event], false);
      cursor = offsets_[event] + run_[event].size;
      header_of(memory + offsets_[event] + HEADER).block = int(blocks_.size());
      add(offsets_[event], cursor, true);
    }
    add(cursor, chunk.size, false);
    live_.clear();  // they are in the first chunk
  }
}

void Arena::settle() {
  if (in_use_ != 0) return;
  statistics.least = int64_t(most_);
  const size_t held = size_t(statistics.held);
  if (!following_ && run_ == last_ && run_.size() < MOST_PLANNED && held > most_ + most_ / 64) {
    plan();
  } else if (chunks_.size() > 1 && held > most_ + most_ / 4 + SMALLEST) {
    release();
    reserve_ = most_;
  }
  if (!following_) last_.swap(run_);
  following_ = !plan_.empty() && (chunks_.empty() || chunks_[0].size >= planned_);
  run_.clear();
  clock_ = 0;
  most_ = 0;
}

// For runs like this one, and the one before.
void Arena::plan() {
  try {
    planned_ = place_all(run_, most_, offsets_);
    const size_t most = 2 * run_.size() + 64;  // so that leaving the plan never allocates
    for (std::vector<int> *list : {&free_, &recycled_, &live_}) list->reserve(most);
    blocks_.reserve(most);
    plan_ = run_;
    release();
    reserve_ = planned_;
  } catch (const std::bad_alloc &) {
    plan_.clear();
  }
}

bool Arena::grow(size_t nbytes, size_t multiple) {
  size_t size = nbytes > reserve_ ? nbytes : reserve_;
  reserve_ = 0;
  size = round_up(multiple == PAGE && size < SMALLEST ? SMALLEST : size, multiple);
  chunks_.reserve(chunks_.size() + 1);
  const int index = spare_block();
  void *chunk = allocate(size);
  if (!chunk && size > nbytes) chunk = allocate(size = nbytes);
  if (!chunk) {
    recycled_.push_back(index);
    return false;
  }
  chunks_.push_back({chunk, size});
  forbid(chunk, size);
  statistics.held += int64_t(size);
  statistics.allocations++;
  if (statistics.held > statistics.peak) statistics.peak = statistics.held;
  blocks_[index] = Block{static_cast<char *>(chunk), size, -1, -1, false};
  free_.push_back(index);
  return true;
}

void *Arena::allocate(size_t nbytes) {
  if (nbytes > SIZE_MAX / 2 || (account_.owner && !account_.reserve(account_.owner, int64_t(nbytes)))) return nullptr;
  void *chunk = chunk_allocate(nbytes);
  if (!chunk && account_.owner) account_.reserve(account_.owner, -int64_t(nbytes));
  return chunk;
}

void Arena::release() {
  for (const Chunk &chunk : chunks_) {
    chunk_free(chunk.memory, chunk.size);
    if (account_.owner) account_.reserve(account_.owner, -int64_t(chunk.size));
  }
  chunks_.clear();
  blocks_.clear();
  free_.clear();
  recycled_.clear();
  statistics.held = 0;
}

int Arena::spare_block() {
  if (!recycled_.empty()) {
    int index = recycled_.back();
    recycled_.pop_back();
    return index;
  }
  blocks_.push_back(Block{});
  free_.reserve(blocks_.capacity());  // so that giving back never allocates
  recycled_.reserve(blocks_.capacity());
  return int(blocks_.size()) - 1;
}

void Arena::split(int index, size_t nbytes) {
  if (blocks_[index].size < nbytes + 2 * ALIGNMENT) return;
  int rest = spare_block();
  Block &block = blocks_[index];
  blocks_[rest] = Block{block.start + nbytes, block.size - nbytes, index, block.next, false};
  if (block.next >= 0) blocks_[block.next].previous = rest;
  block.next = rest;
  block.size = nbytes;
  free_.push_back(rest);
}

void Arena::merge(int index) {
  int next = blocks_[index].next;
  if (next >= 0 && !blocks_[next].used) {
    drop_free(next);
    blocks_[index].size += blocks_[next].size;
    blocks_[index].next = blocks_[next].next;
    if (blocks_[index].next >= 0) blocks_[blocks_[index].next].previous = index;
    recycled_.push_back(next);
  }
  int previous = blocks_[index].previous;
  if (previous >= 0 && !blocks_[previous].used) {
    blocks_[previous].size += blocks_[index].size;
    blocks_[previous].next = blocks_[index].next;
    if (blocks_[index].next >= 0) blocks_[blocks_[index].next].previous = previous;
    recycled_.push_back(index);
    return;  // the earlier one is among the free already
  }
  free_.push_back(index);
}

void Arena::drop_free(int index) {
  for (size_t i = 0; i < free_.size(); i++) {
    if (free_[i] == index) {
      free_[i] = free_.back();
      free_.pop_back();
      return;
    }
  }
}

}  // namespace epk
