// Control flow within the flat list of steps: steps that choose the next step, or give a value another name.
//
//   If      branch; then-branch, move, jump; else-branch, move; end
//   Loop    move; begin; trip, body, next; move; finish
//
// A value that goes from one name to another is not copied: both slots count on one Buffer. Which steps belong together,
// and what is dropped where, the compiler has settled (control.py).
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

#include "epkit_kernel.h"

namespace epk {

constexpr int ABSENT = -1;

enum class Control : uint8_t {
  none,
  move,    // outputs become the inputs, all at once
  branch,  // to the target if the input is false, or if there is none
  begin,   // of a loop: how many trips; further inputs are there to be named in errors
  trip,    // to the target if there is no further one; else its number and condition, or its slices
  next,    // what a trip gave: the condition, what is carried on, what is collected; back to the target
  finish,  // what was collected
};

// An input of Scan, a slice of which goes into each trip.
struct Sliced {
  int64_t axis;
  bool backwards;
};

// An output of Loop or Scan to which each trip adds a slice.
struct Collected {
  int slot;                    // ABSENT: nobody wants it
  int64_t axis;
  bool backwards;
  std::vector<int64_t> shape;  // of a slice, for want of trips
};

struct Loop {
  bool scan;
  int carried;
  std::vector<Sliced> sliced;
  std::vector<Collected> collected;
};

// What a frame knows of an output under way.
struct Collecting {
  int buffer = ABSENT;
  size_t capacity = 0, bytes = 0;  // in all, of a slice
  int ndim = 0;
  int64_t shape[EPK_MAX_RANK];     // of a slice
};

// What a frame knows of a loop under way.
struct Looping {
  int64_t trip = 0, limit = 0;
  bool going = false;
  std::vector<Collecting> collecting;
};

// A value on its way from one slot to another.
struct Held {
  int buffer, ndim;
  void *data;
  int64_t shape[EPK_MAX_RANK];
};

}  // namespace epk
