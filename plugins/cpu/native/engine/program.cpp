#include "program.h"

#include <cstdio>
#include <cstring>
#include <new>

#include "pool.h"

namespace epk {

Frame::Frame(const Program &p)
    : program(p), slots(p.slots.size()), buffers(p.slots.size() + p.joins.size()), arena(p.account) {
  loopings_.resize(p.loops.size());
  if (!p.loops.empty()) {
    // A value that a trip carries to the next may still lie in the Buffer of a slot that is written anew. No more
    // Buffers are in use at once than there are who can hold them.
    size_t holders = buffers.size() + size_t(p.max_arity);
    for (const Loop &loop : p.loops) holders += loop.collected.size();
    spare_.reserve(holders);
    for (size_t i = 0; i < holders; i++) spare_.push_back(int(buffers.size() + i));
    buffers.resize(buffers.size() + holders);
    for (size_t i = 0; i < p.loops.size(); i++) loopings_[i].collecting.resize(p.loops[i].collected.size());
  }
  held_.resize(size_t(p.max_arity));
  garbage.reserve(slots.size() + buffers.size());  // so that dropping never allocates
  context_.own = EngineContext{{EPK_ABI_VERSION, p.threads, output, alias, scratch, parallel, fail}, view};
  context_.frame = this;
  joinings_.resize(p.joins.size());
  for (size_t i = 0; i < p.joins.size(); i++) joinings_[i].sizes.resize(p.joins[i].inputs.size());
  if (p.threads > 1) shared_.resize(p.steps.size() * SHARED);
  in_.resize(p.max_arity);
  out_.resize(p.max_arity);
  spare_shapes_.resize(size_t(p.max_arity) * EPK_MAX_RANK);
  for (size_t i = 0; i < slots.size(); i++) {
    Slot &slot = slots[i];
    slot.tensor = DLTensor{nullptr, DLDevice{1, 0}, -1, p.slots[i].dtype, slot.shape, nullptr, 0};
  }
  for (const Constant &constant : p.constants) {
    borrow(constant.slot, constant.tensor.data, constant.tensor.ndim, constant.shape.data(), constant.array);
  }
  message[0] = 0;
}

Frame::~Frame() { clear(); }

void Frame::borrow(int index, void *data, int ndim, const int64_t *shape, PyObject *array) {
  Slot &slot = slots[index];
  slot.tensor.data = data;
  slot.tensor.ndim = ndim;
  if (ndim > 0) memcpy(slot.shape, shape, sizeof(int64_t) * size_t(ndim));
  slot.buffer = vacant(index);
  slot.array = array;
  buffers[slot.buffer] = Buffer{data, nullptr, 1, Owner::borrowed};
}

int Frame::vacant(int own) {
  if (buffers[own].refs == 0) return own;
  const int found = spare_.back();
  spare_.pop_back();
  return found;
}

void Frame::drop(int index) {
  Slot &slot = slots[index];
  if (slot.array) {
    garbage.push_back(slot.array);
    slot.array = nullptr;
  }
  if (slot.buffer != ABSENT) {
    unref(slot.buffer);
    slot.buffer = ABSENT;
  }
  slot.tensor.data = nullptr;
  slot.tensor.ndim = -1;
}

void Frame::unref(int number) {
  Buffer &buffer = buffers[number];
  if (--buffer.refs > 0) return;
  if (buffer.owner == Owner::arena) arena.give(buffer.memory);
  if (buffer.owner == Owner::heap) aligned_free(buffer.memory);
  if (buffer.owner == Owner::object) garbage.push_back(buffer.object);
  buffer = Buffer{};
  if (size_t(number) >= slots.size() + joinings_.size()) spare_.push_back(number);
}

void Frame::drop_after(const Step &step) {
  for (int slot : step.frees) drop(slot);
}

void Frame::clear() {
  for (void *memory : scratch_) arena.give(memory);
  scratch_.clear();
  size_t next = 0;
  for (size_t i = 0; i < slots.size(); i++) {
    if (next < program.constants.size() && program.constants[next].slot == int(i)) {
      next++;  // constants are in the order of their slots
      continue;
    }
    if (slots[i].buffer != ABSENT || slots[i].array) drop(int(i));
  }
  for (Joining &joining : joinings_) release(joining);
  for (Looping &looping : loopings_)
    for (Collecting &collecting : looping.collecting) release(collecting);
  spared_ = sparing_;
  sparing_ = 0;
  arena.settle();
}

int Frame::run(size_t &step, bool one) {
  rests_ = 0;
  const size_t stop = program.steps.size();
  while (step < stop) {
    const Step &next = program.steps[step];
    if (next.control != Control::none) {
      if (int status = steer(next, step)) return status;
      if (rests_) return EPK_OK;
    } else {
      if (!next.kernel) return AT_PYTHON;
      if (int status = call(next)) return status;
      for (int slot : next.frees) drop(slot);
      step++;
    }
    if (one) return EPK_OK;
  }
  return EPK_OK;
}

int Frame::call(const Step &step) {
  int n_in = int(step.inputs.size()), n_out = int(step.outputs.size());
  for (int i = 0; i < n_in; i++) {
    if (step.inputs[i] == ABSENT) {
      in_[i] = DLTensor{nullptr, DLDevice{1, 0}, -1, DLDataType{0, 0, 1}, nullptr, nullptr, 0};
    } else {
      in_[i] = slots[step.inputs[i]].tensor;
      if (in_[i].ndim < 0) {  // what a Python step gave is no tensor
        snprintf(message, sizeof message, "input %d has no value", i);
        return EPK_UNSUPPORTED;
      }
    }
  }
  for (int i = 0; i < n_out; i++) {
    if (step.outputs[i] == ABSENT) {
      out_[i] = DLTensor{nullptr, DLDevice{1, 0}, -1, DLDataType{0, 0, 1}, nullptr, nullptr, 0};
    } else {
      out_[i] = slots[step.outputs[i]].tensor;
      out_[i].ndim = 0;  // wanted
    }
  }
  current_ = &step;
  shares_ = 0;
  message[0] = 0;
  refused_ = EPK_FAILED;
  int status = step.kernel(&context_.own.base, step.attributes.data(), in_.data(), n_in, out_.data(), n_out);
  for (void *memory : scratch_) arena.give(memory);
  scratch_.clear();
  if (status != EPK_OK) return status == EPK_FAILED ? refused_ : status;
  for (int i = 0; i < n_out; i++) {
    if (step.outputs[i] != ABSENT && slots[step.outputs[i]].buffer == ABSENT) {
      snprintf(message, sizeof message, "the kernel gave no output %d", i);
      return EPK_FAILED;
    }
  }
  if (step.join != ABSENT) learn(step);
  return EPK_OK;
}

bool Frame::set_shape(DLTensor &tensor, int32_t ndim, const int64_t *shape, size_t *nbytes) {
  if (ndim < 0 || ndim > EPK_MAX_RANK) {
    refused_ = EPK_UNSUPPORTED;
    snprintf(message, sizeof message, "an output of rank %d; at most %d is possible", ndim, EPK_MAX_RANK);
    return false;
  }
  int64_t size = 1;
  bool overflows = false, empty = false;
  for (int i = 0; i < ndim; i++) {
    if (shape[i] < 0) {
      refused_ = EPK_INVALID;
      snprintf(message, sizeof message, "an output with the negative dimension %lld", (long long)shape[i]);
      return false;
    }
    tensor.shape[i] = shape[i];
    // As NumPy has it, the other dimensions of an empty tensor must have a product too: strides are made of it.
    empty |= shape[i] == 0;
    overflows |= __builtin_mul_overflow(size, shape[i] ? shape[i] : 1, &size);
  }
  tensor.ndim = ndim;
  int64_t width = (tensor.dtype.bits + 7) / 8;
  if (overflows || size > INT64_MAX / 64 / (width ? width : 1)) {
    refused_ = EPK_OUT_OF_MEMORY;
    snprintf(message, sizeof message, "an output of so many elements that its size in bytes overflows");
    return false;
  }
  *nbytes = empty ? 0 : size_t(size * width);
  return true;
}

void *Frame::unnamed_output(size_t nbytes) {
  void *memory = nullptr;
  try {
    scratch_.reserve(scratch_.size() + 1);
    memory = arena.take(nbytes);
  } catch (const std::bad_alloc &) {  // the lists that keep count of memory need some themselves
  }
  if (memory) {
    scratch_.push_back(memory);
  } else {
    refused_ = EPK_OUT_OF_MEMORY;
    snprintf(message, sizeof message, "there are no %zu bytes left", nbytes);
  }
  return memory;
}

void *Frame::output(epk_context *ctx, int index, int32_t ndim, const int64_t *shape) {
  Frame &self = *of(ctx);
  int number = self.current_->outputs[index];
  DLTensor &given = self.out_[index];
  size_t nbytes = 0;
  if (number == ABSENT) {
    given.shape = &self.spare_shapes_[size_t(index) * EPK_MAX_RANK];
    if (given.dtype.bits == 0) given.dtype = DLDataType{kDLFloat, 64, 1};  // wide enough for whatever is written
    if (!self.set_shape(given, ndim, shape, &nbytes)) return nullptr;
    given.data = self.unnamed_output(nbytes);
    return given.data;
  }
  Slot &slot = self.slots[number];
  if (!self.set_shape(slot.tensor, ndim, shape, &nbytes)) return nullptr;
  int buffer = ABSENT;
  char *memory = index == 0 && self.current_->join != ABSENT ? self.joined(nbytes, buffer) : nullptr;
  if (!memory) memory = self.taken_over(index, nbytes, buffer);
  if (!memory) memory = self.memory_for(number, nbytes, number, buffer);
  if (!memory) {
    self.refused_ = EPK_OUT_OF_MEMORY;
    snprintf(self.message, sizeof self.message, "there are no %zu bytes left", nbytes);
    slot.tensor.ndim = -1;
    return nullptr;
  }
  slot.tensor.data = memory;
  slot.buffer = buffer;
  self.buffers[buffer].refs++;
  given = slot.tensor;
  return memory;
}

int Frame::alias(epk_context *ctx, int index, int input, int32_t ndim, const int64_t *shape) {
  Frame &self = *of(ctx);
  int from = self.current_->inputs[input], number = self.current_->outputs[index];
  if (number == ABSENT) return EPK_OK;
  Slot &slot = self.slots[number];
  const Slot &source = self.slots[from];
  size_t nbytes = 0;
  if (!self.set_shape(slot.tensor, ndim, shape, &nbytes)) return EPK_FAILED;
  if (epk_size(&slot.tensor) != epk_size(&source.tensor)) {
    slot.tensor.ndim = -1;
    return fail(ctx, EPK_INVALID, "a view of another number of elements than the input has");
  }
  slot.tensor.data = source.tensor.data;
  slot.buffer = source.buffer;
  self.buffers[source.buffer].refs++;
  self.out_[index] = slot.tensor;
  return EPK_OK;
}

int Frame::view(epk_context *ctx, int index, int input, int32_t ndim, const int64_t *shape, int64_t offset) {
  Frame &self = *of(ctx);
  int number = self.current_->outputs[index];
  if (number == ABSENT || self.program.slots[number].escapes) return 0;
  Slot &slot = self.slots[number];
  const Slot &source = self.slots[self.current_->inputs[input]];
  size_t nbytes = 0;
  if (!self.set_shape(slot.tensor, ndim, shape, &nbytes)) return 0;
  slot.tensor.data = static_cast<char *>(source.tensor.data) + offset;
  slot.buffer = source.buffer;
  self.buffers[source.buffer].refs++;
  self.out_[index] = slot.tensor;
  self.sparing_ += int64_t(nbytes);
  return 1;
}

void *Frame::scratch(epk_context *ctx, size_t nbytes) {
  return of(ctx)->unnamed_output(nbytes);
}

void Frame::parallel(epk_context *ctx, int64_t count, int64_t grain, epk_body body, void *arg) {
  Frame &self = *of(ctx);
  Shared once, *known = &once;
  if (self.shares_ < SHARED && ctx->threads > 1) {
    known = &self.shared_[size_t(self.current_ - self.program.steps.data()) * SHARED + size_t(self.shares_++)];
  }
  const bool same = known->count == count && known->grain == grain;
  known->work = parallel_for(ctx->threads, count, grain, body, arg, same ? known->work : -1);
  known->count = count, known->grain = grain;
  self.shared_work_ += known->work;
}

int Frame::fail(epk_context *ctx, int status, const char *text) {
  Frame &self = *of(ctx);
  snprintf(self.message, sizeof self.message, "%s", text);
  return status;
}

}  // namespace epk
