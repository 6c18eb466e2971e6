#include "arena.h"

#include <cstdlib>

namespace epk {
namespace {

constexpr size_t SMALLEST = size_t(1) << 16;
constexpr size_t HEADER = ALIGNMENT;  // before each buffer: which block it is

size_t round_up(size_t n, size_t multiple) { return (n + multiple - 1) / multiple * multiple; }

}  // namespace

void *aligned_allocate(size_t nbytes) {
  void *memory = nullptr;
  if (nbytes > SIZE_MAX / 2) return nullptr;
  return posix_memalign(&memory, ALIGNMENT, nbytes ? nbytes : 1) == 0 ? memory : nullptr;
}

void aligned_free(void *memory) { free(memory); }

Arena::~Arena() { release(); }

void *Arena::take(size_t nbytes) {
  if (nbytes > SIZE_MAX / 4) return nullptr;
  size_t size = round_up(nbytes ? nbytes : 1, ALIGNMENT) + HEADER;
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
      if (in_use_ > most_) most_ = in_use_;
      if (attempt == 0) statistics.reused++;
      *reinterpret_cast<int *>(block.start) = index;
      return block.start + HEADER;
    }
    if (!grow(size)) return nullptr;
  }
  return nullptr;
}

void Arena::give(void *memory) {
  int index = *reinterpret_cast<int *>(static_cast<char *>(memory) - HEADER);
  in_use_ -= blocks_[index].size;
  blocks_[index].used = false;
  merge(index);
}

void Arena::settle() {
  if (in_use_ != 0) return;
  size_t held = size_t(statistics.held);
  if (chunks_.size() > 1 && held > most_ + most_ / 4 + SMALLEST) {
    release();
    reserve_ = most_;
  }
  most_ = 0;
}

bool Arena::grow(size_t nbytes) {
  size_t size = nbytes > reserve_ ? nbytes : reserve_;
  reserve_ = 0;
  size = round_up(size < SMALLEST ? SMALLEST : size, 4096);
  chunks_.reserve(chunks_.size() + 1);
  const int index = spare_block();
  void *chunk = aligned_allocate(size);
  if (!chunk && size > nbytes) chunk = aligned_allocate(size = nbytes);
  if (!chunk) {
    recycled_.push_back(index);
    return false;
  }
  chunks_.push_back(chunk);
  statistics.held += int64_t(size);
  statistics.allocations++;
  if (statistics.held > statistics.peak) statistics.peak = statistics.held;
  blocks_[index] = Block{static_cast<char *>(chunk), size, -1, -1, false};
  free_.push_back(index);
  return true;
}

void Arena::release() {
  for (void *chunk : chunks_) aligned_free(chunk);
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
