// Where buffers lie whose sizes and lifetimes are known: the planner of sdk/src/epkit/memory/planner.py, natively.
#pragma once
#include <cstddef>
#include <vector>

namespace epk {

// From the tick of a clock at which it was taken to the one at which it was given back.
struct Lifetime {
  size_t size;
  int start, end;
  bool operator==(const Lifetime &other) const { return size == other.size && start == other.start && end == other.end; }
};

// The size of an arena that holds them all, and where each lies. `least` is the most that is alive at once.
size_t place_all(const std::vector<Lifetime> &alive, size_t least, std::vector<size_t> &offsets);

}  // namespace epk
