#include "offsets.h"

#include <algorithm>
#include <numeric>

namespace epk {
namespace {

struct Place {
  size_t offset, size;
};

// The smallest gap between the neighbours that holds `size`, else the end.
size_t best_gap(std::vector<Place> &neighbours, size_t size) {
  std::sort(neighbours.begin(), neighbours.end(), [](const Place &a, const Place &b) { return a.offset < b.offset; });
  size_t best = 0, best_size = 0, cursor = 0;
  bool found = false;
  for (const Place &place : neighbours) {
    if (place.offset >= cursor + size && (!found || place.offset - cursor < best_size)) {
      best = cursor;
      best_size = place.offset - cursor;
      found = true;
    }
    cursor = std::max(cursor, place.offset + place.size);
  }
  return found ? best : cursor;
}

// Each at the tightest gap among those alive with it; the first in `order` first.
size_t place_in(const std::vector<int> &order, const std::vector<Lifetime> &alive, std::vector<size_t> &offsets) {
  std::vector<Place> neighbours;
  size_t needed = 0;
  for (size_t i = 0; i < order.size(); i++) {
    const Lifetime &item = alive[order[i]];
    neighbours.clear();
    for (size_t j = 0; j < i; j++) {
      const Lifetime &other = alive[order[j]];
      if (other.start < item.end && item.start < other.end) neighbours.push_back({offsets[order[j]], other.size});
    }
    offsets[order[i]] = best_gap(neighbours, item.size);
    needed = std::max(needed, offsets[order[i]] + item.size);
  }
  return needed;
}

}  // namespace

size_t place_all(const std::vector<Lifetime> &alive, size_t least, std::vector<size_t> &offsets) {
  typedef double (*Rank)(const Lifetime &);
  const Rank ranks[] = {
      [](const Lifetime &item) { return -double(item.size); },
      [](const Lifetime &item) { return -double(item.size) * double(item.end - item.start); },
      [](const Lifetime &item) { return double(item.start - item.end); },
      [](const Lifetime &item) { return double(item.start); },
  };
  std::vector<int> order(alive.size());
  std::vector<size_t> tried(alive.size());
  size_t best = 0;
  for (Rank rank : ranks) {
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return rank(alive[a]) < rank(alive[b]); });
    const size_t needed = place_in(order, alive, tried);
    if (best == 0 || needed < best) {
      best = needed;
      offsets = tried;
    }
    if (best == least) break;
  }
  return best;
}

}  // namespace epk
