#include "control.h"

#include <time.h>

#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <cstring>

#include "program.h"

namespace epk {
namespace {

constexpr int64_t REST = 100000000;  // nanoseconds after which a loop comes back to its caller
constexpr int64_t TRIPS = 64;        // between two looks at the clock

int64_t now() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return int64_t(t.tv_sec) * 1000000000 + t.tv_nsec;
}

int64_t product(const int64_t *dims, int64_t begin, int64_t end) {
  int64_t result = 1;
  for (int64_t i = begin; i < end; i++) result *= dims[i];
  return result;
}

size_t width_of(const DLTensor &tensor) { return size_t(tensor.dtype.bits + 7) / 8; }

// The axis counted from the front; ABSENT if there is none.
int normal(int64_t axis, int rank) {
  if (axis < 0) axis += rank;
  return axis < 0 || axis >= rank ? ABSENT : int(axis);
}

// Rows of `bytes` from one place to another.
void copy_rows(char *to, int64_t to_step, const char *from, int64_t from_step, int64_t rows, int64_t bytes) {
  for (int64_t row = 0; row < rows && bytes; row++) memcpy(to + row * to_step, from + row * from_step, size_t(bytes));
}

}  // namespace

int Frame::refuse(int status, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(message, sizeof message, format, arguments);
  va_end(arguments);
  return status;
}

// One step of control flow; sets the index of the next.
int Frame::steer(const Step &step, size_t &index) {
  size_t to = index + 1;
  int status = EPK_OK;
  bool dropped = false;
  switch (step.control) {
    case Control::move:
      status = hold(step.inputs.data(), step.inputs.size());
      if (!status) settle_held(step);
      dropped = true;
      break;
    case Control::branch: {
      bool holds = false;
      if (!step.inputs.empty()) status = truth(step, 0, holds);
      if (!holds) to = size_t(step.target);
      break;
    }
    case Control::begin:
      since_ = now();
      status = begin(step);
      break;
    case Control::trip: {
      Looping &state = loopings_[step.loop];
      if (!state.going || state.trip >= state.limit) to = size_t(step.target);
      else status = trip(step, state);
      break;
    }
    case Control::next: {
      Looping &state = loopings_[step.loop];
      status = next(step, state);
      to = size_t(step.target);
      dropped = true;
      if (state.trip % TRIPS == 0 && now() - since_ > REST) {
        since_ = now();
        rests_ = 1;
      }
      break;
    }
    default:
      status = finish(step, loopings_[step.loop]);
  }
  if (status) return status;
  if (!dropped)
    for (int slot : step.frees) drop(slot);
  index = to;
  return EPK_OK;
}

// ---- values under other names ----

// Counts on the sources' memory, so that the slots may be dropped.
int Frame::hold(const int *sources, size_t count) {
  for (size_t i = 0; i < count; i++) {
    if (slots[sources[i]].buffer == ABSENT) return refuse(EPK_INVALID, "a value that is carried on is no tensor");
  }
  for (size_t i = 0; i < count; i++) {
    const Slot &slot = slots[sources[i]];
    Held &held = held_[i];
    held.buffer = slot.buffer;
    held.data = slot.tensor.data;
    held.ndim = slot.tensor.ndim;
    memcpy(held.shape, slot.shape, sizeof(int64_t) * size_t(held.ndim));
    buffers[held.buffer].refs++;
  }
  return EPK_OK;
}

// Drops what the step drops; then its outputs are what is held.
void Frame::settle_held(const Step &step) {
  for (int slot : step.frees) drop(slot);
  for (size_t i = 0; i < step.outputs.size(); i++) {
    Slot &slot = slots[step.outputs[i]];
    const Held &held = held_[i];
    if (slot.buffer != ABSENT || slot.array) drop(step.outputs[i]);
    slot.buffer = held.buffer;
    slot.tensor.data = held.data;
    slot.tensor.ndim = held.ndim;
    memcpy(slot.shape, held.shape, sizeof(int64_t) * size_t(held.ndim));
  }
}

// Memory for a new value of a slot; null if there is none.
char *Frame::fresh(int number, int ndim, const int64_t *shape) {
  if (slots[number].buffer != ABSENT) drop(number);
  size_t nbytes = 0;
  if (!set_shape(slots[number].tensor, ndim, shape, &nbytes)) return nullptr;
  const int buffer = allocate(number, nbytes, number);
  if (buffer == ABSENT) {
    refused_ = refuse(EPK_OUT_OF_MEMORY, "there are no %zu bytes left", nbytes);
    slots[number].tensor.ndim = -1;
    return nullptr;
  }
  buffers[buffer].refs++;
  slots[number].buffer = buffer;
  slots[number].tensor.data = buffers[buffer].memory;
  return static_cast<char *>(slots[number].tensor.data);
}

int Frame::truth(const Step &step, size_t input, bool &value) {
  const DLTensor &tensor = slots[step.inputs[input]].tensor;
  if (tensor.ndim < 0) return refuse(EPK_INVALID, "the condition has no value");
  if (epk_size(&tensor) != 1) {
    return refuse(EPK_INVALID, "the condition must be one bool, and has %lld elements", (long long)epk_size(&tensor));
  }
  value = *static_cast<const uint8_t *>(tensor.data) != 0;
  return EPK_OK;
}

// ---- loops ----

int Frame::begin(const Step &step) {
  Looping &state = loopings_[step.loop];
  const Loop &loop = program.loops[step.loop];
  state.trip = 0;
  state.limit = INT64_MAX;
  state.going = true;
  for (Collecting &collecting : state.collecting) release(collecting);
  if (!loop.scan) {
    if (step.inputs[0] != ABSENT) {
      const DLTensor &limit = slots[step.inputs[0]].tensor;
      if (epk_size(&limit) != 1) return refuse(EPK_INVALID, "the number of trips must be one number");
      memcpy(&state.limit, limit.data, sizeof state.limit);
    }
    return step.inputs[1] == ABSENT ? EPK_OK : truth(step, 1, state.going);
  }
  for (size_t i = 0; i < loop.sliced.size(); i++) {
    const DLTensor &tensor = slots[step.inputs[i]].tensor;
    const int axis = normal(loop.sliced[i].axis, tensor.ndim);
    if (axis < 0) return refuse(EPK_INVALID, "scan input %zu of rank %d has no axis %lld", i, tensor.ndim, (long long)loop.sliced[i].axis);
    if (i == 0) state.limit = tensor.shape[axis];
    if (tensor.shape[axis] != state.limit) {
      const long long one = state.limit, other = tensor.shape[axis];
      return refuse(EPK_INVALID, "the scan inputs have different lengths: [%lld, %lld]", std::min(one, other), std::max(one, other));
    }
  }
  return EPK_OK;
}

int Frame::trip(const Step &step, Looping &state) {
  const Loop &loop = program.loops[step.loop];
  refused_ = EPK_FAILED;
  for (size_t i = 0; i < loop.sliced.size(); i++) {
    if (step.outputs[i] == ABSENT) continue;
    const int64_t place = loop.sliced[i].backwards ? state.limit - 1 - state.trip : state.trip;
    if (int status = slice(step, i, loop.sliced[i], place)) return status;
  }
  if (loop.scan) return EPK_OK;
  if (step.outputs[0] != ABSENT) {
    char *number = fresh(step.outputs[0], 0, nullptr);
    if (!number) return refused_;
    memcpy(number, &state.trip, sizeof state.trip);
  }
  if (step.outputs[1] != ABSENT) {
    char *condition = fresh(step.outputs[1], 0, nullptr);
    if (!condition) return refused_;
    *condition = 1;
  }
  return EPK_OK;
}

// A part of the input where it lies in one piece, else a copy.
int Frame::slice(const Step &step, size_t input, const Sliced &how, int64_t place) {
  const DLTensor whole = slots[step.inputs[input]].tensor;
  const int axis = normal(how.axis, whole.ndim), rank = whole.ndim - 1;
  int64_t shape[EPK_MAX_RANK];
  for (int i = 0; i < rank; i++) shape[i] = whole.shape[i < axis ? i : i + 1];
  const int64_t outer = product(shape, 0, axis), bytes = product(shape, axis, rank) * int64_t(width_of(whole));
  const char *from = static_cast<const char *>(whole.data) + place * bytes;
  if (outer != 1) {
    char *to = fresh(step.outputs[input], rank, shape);
    if (!to) return refused_;
    copy_rows(to, bytes, from, bytes * whole.shape[axis], outer, bytes);
    return EPK_OK;
  }
  Slot &slot = slots[step.outputs[input]];
  if (slot.buffer != ABSENT) drop(step.outputs[input]);
  slot.buffer = slots[step.inputs[input]].buffer;
  buffers[slot.buffer].refs++;
  slot.tensor.data = const_cast<char *>(from);
  slot.tensor.ndim = rank;
  memcpy(slot.shape, shape, sizeof(int64_t) * size_t(rank));
  return EPK_OK;
}

int Frame::next(const Step &step, Looping &state) {
  const Loop &loop = program.loops[step.loop];
  const size_t first = loop.scan ? 0 : 1;
  if (!loop.scan)
    if (int status = truth(step, 0, state.going)) return status;
  for (size_t i = 0; i < loop.collected.size(); i++) {
    if (loop.collected[i].slot == ABSENT) continue;
    if (int status = collect(step, first + size_t(loop.carried) + i, state, i)) return status;
  }
  if (int status = hold(step.inputs.data() + first, size_t(loop.carried))) return status;
  settle_held(step);
  state.trip++;
  return EPK_OK;
}

// ---- what trips give ----

int Frame::collect(const Step &step, size_t input, Looping &state, size_t which) {
  const Loop &loop = program.loops[step.loop];
  const Collected &how = loop.collected[which];
  Collecting &mine = state.collecting[which];
  const DLTensor &given = slots[step.inputs[input]].tensor;
  if (given.ndim < 0) return refuse(EPK_INVALID, "an output of the body is no tensor");
  const int axis = normal(how.axis, given.ndim + 1);
  if (axis < 0 || given.ndim >= EPK_MAX_RANK) return refuse(EPK_INVALID, "slices of rank %d cannot be stacked along axis %lld", given.ndim, (long long)how.axis);
  if (state.trip == 0) {
    mine.ndim = given.ndim;
    memcpy(mine.shape, given.shape, sizeof(int64_t) * size_t(given.ndim));
    mine.bytes = size_t(epk_size(&given)) * width_of(given);
  } else if (mine.ndim != given.ndim || memcmp(mine.shape, given.shape, sizeof(int64_t) * size_t(given.ndim)) != 0) {
    return refuse(EPK_INVALID, "the trips gave different shapes for output %d, which stacks them",
                  loop.carried + int(which));
  }
  size_t needed = 0, most = 0;
  const bool bounded = !__builtin_mul_overflow(size_t(state.limit), mine.bytes, &most) && most <= SIZE_MAX / 4;
  if (__builtin_mul_overflow(size_t(state.trip) + 1, mine.bytes, &needed) || (loop.scan && !bounded)) {
    return refuse(EPK_OUT_OF_MEMORY, "an output of so many elements that its size in bytes overflows");
  }
  if (mine.buffer == ABSENT || needed > mine.capacity) {
    size_t capacity = loop.scan ? most : std::max(2 * mine.capacity, 4 * mine.bytes);
    if (bounded) capacity = std::min(capacity, most);
    const int grown = allocate(how.slot, capacity, how.slot);
    if (grown == ABSENT) return refuse(EPK_OUT_OF_MEMORY, "there are no %zu bytes left", capacity);
    buffers[grown].refs++;
    if (needed > mine.bytes) memcpy(buffers[grown].memory, buffers[mine.buffer].memory, needed - mine.bytes);
    release(mine);
    mine.buffer = grown;
    mine.capacity = capacity;
  }
  const int64_t place = how.backwards ? state.limit - 1 - state.trip : state.trip;
  const int64_t outer = product(given.shape, 0, axis);
  const int64_t bytes = product(given.shape, axis, given.ndim) * int64_t(width_of(given));
  const int64_t between = axis == 0 ? 0 : state.limit * bytes;  // Loop stacks along axis 0
  copy_rows(static_cast<char *>(buffers[mine.buffer].memory) + place * bytes, between, static_cast<const char *>(given.data), bytes, outer, bytes);
  return EPK_OK;
}

// The slices as one value.
int Frame::finish(const Step &step, Looping &state) {
  const Loop &loop = program.loops[step.loop];
  refused_ = EPK_FAILED;
  for (size_t i = 0; i < loop.collected.size(); i++) {
    const Collected &how = loop.collected[i];
    Collecting &mine = state.collecting[i];
    if (how.slot == ABSENT) continue;
    const bool none = state.trip == 0;
    const int rank = none ? int(how.shape.size()) : mine.ndim, axis = normal(how.axis, rank + 1);
    const int64_t *dims = none ? how.shape.data() : mine.shape;
    if (axis < 0 || rank >= EPK_MAX_RANK) return refuse(EPK_INVALID, "slices of rank %d cannot be stacked along axis %lld", rank, (long long)how.axis);
    int64_t shape[EPK_MAX_RANK];
    for (int j = 0; j <= rank; j++) shape[j] = j == axis ? state.trip : dims[j < axis ? j : j - 1];
    const size_t used = size_t(state.trip) * mine.bytes;
    const bool wasteful = !none && buffers[mine.buffer].owner == Owner::heap && used < mine.capacity - mine.capacity / 4;
    if (none || wasteful) {
      char *memory = fresh(how.slot, rank + 1, shape);
      if (!memory) return refused_;
      if (used) memcpy(memory, buffers[mine.buffer].memory, used);
      release(mine);
      continue;
    }
    Slot &slot = slots[how.slot];
    size_t nbytes = 0;
    if (slot.buffer != ABSENT) drop(how.slot);
    if (!set_shape(slot.tensor, rank + 1, shape, &nbytes)) return refused_;
    slot.buffer = mine.buffer;  // with its reference
    slot.tensor.data = buffers[mine.buffer].memory;
    mine = Collecting{};
  }
  return EPK_OK;
}

void Frame::release(Collecting &collecting) {
  if (collecting.buffer != ABSENT) unref(collecting.buffer);
  collecting.buffer = ABSENT;
  collecting.capacity = 0;
}

}  // namespace epk
