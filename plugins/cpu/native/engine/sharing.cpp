// Results without memory of their own: inputs of a Concat are written into its result, and an operator that no longer
// needs its input writes over it.
//
// Where a Concat's inputs lie follows from their sizes, which the frame takes from its latest run. The first input
// that comes with the size it had then makes the memory for the whole. If another turns out to be different, the
// Concat finds that out, and copies.
#include <new>

#include "program.h"

namespace epk {
namespace {

// True if the inputs of a Concat follow each other in its result.
bool in_one_piece(const DLTensor &result, int axis) {
  if (axis < 0) axis += result.ndim;
  bool good = true;
  for (int i = 0; i < axis && i < result.ndim; i++) good &= result.shape[i] == 1;
  return good;
}

size_t bytes_of(const DLTensor &tensor) { return size_t(epk_size(&tensor)) * ((tensor.dtype.bits + 7) / 8); }

}  // namespace

char *Frame::memory_for(int number, size_t nbytes, int own, int &buffer) {
  const SlotType &type = program.slots[number];
  if (type.join != ABSENT) {
    if (char *part = part_of(type.join, type.part, nbytes, buffer)) return part;
  }
  const int made = allocate(number, nbytes, own);
  if (made == ABSENT) return nullptr;
  buffer = made;
  return static_cast<char *>(buffers[made].memory);
}

int Frame::allocate(int number, size_t nbytes, int own) {
  const bool heap = program.slots[number].escapes && nbytes >= SMALL;
  void *memory = nullptr;
  try {
    memory = heap ? aligned_allocate(nbytes) : arena.take(nbytes);
  } catch (const std::bad_alloc &) {  // the arena's own lists
  }
  if (!memory) return ABSENT;
  const int made = vacant(own);
  buffers[made] = Buffer{memory, nullptr, 0, heap ? Owner::heap : Owner::arena};
  return made;
}

char *Frame::part_of(int number, int part, size_t nbytes, int &buffer) {
  Joining &joining = joinings_[number];
  if (!joining.known || joining.sizes[part] != nbytes) return nullptr;
  size_t offset = 0, total = 0;
  for (size_t i = 0; i < joining.sizes.size(); i++) {
    if (int(i) == part) offset = total;
    total += joining.sizes[i];
  }
  if (offset % ALIGNMENT != 0) return nullptr;
  if (!joining.memory) {
    const int own = int(slots.size()) + number;  // the result may yet come to lie elsewhere
    joining.memory = memory_for(program.joins[number].output, total, own, joining.buffer);
    if (!joining.memory) return nullptr;
    buffers[joining.buffer].refs++;
  }
  buffer = joining.buffer;
  sparing_ += int64_t(nbytes);
  return joining.memory + offset;
}

// The memory of this step's result, if the inputs are all of the sizes for which it was made.
char *Frame::joined(size_t nbytes, int &buffer) {
  Joining &joining = joinings_[current_->join];
  if (!joining.memory) return nullptr;
  size_t total = 0;
  bool fits = in_one_piece(slots[current_->outputs[0]].tensor, program.joins[current_->join].axis);
  for (size_t i = 0; i < joining.sizes.size(); i++) {
    fits &= bytes_of(in_[i]) == joining.sizes[i];
    total += joining.sizes[i];
  }
  char *memory = fits && total == nbytes ? joining.memory : nullptr;
  if (memory) {
    buffer = joining.buffer;
    buffers[buffer].refs++;
  }
  release(joining);
  if (memory) buffers[buffer].refs--;  // the caller counts it
  return memory;
}

char *Frame::taken_over(int index, size_t nbytes, int &buffer) {
  const Step &step = *current_;
  const int number = step.outputs[index];
  if (step.over.empty() || nbytes < SMALL || program.slots[number].escapes || program.slots[number].join != ABSENT) return nullptr;
  for (size_t i = 0; i < step.over.size(); i += 2) {
    if (step.over[i] != index) continue;
    const Slot &source = slots[step.inputs[step.over[i + 1]]];
    const Buffer &from = buffers[source.buffer];
    if (from.owner != Owner::arena || from.refs != 1 || bytes_of(source.tensor) != nbytes) continue;
    if (reinterpret_cast<uintptr_t>(source.tensor.data) % ALIGNMENT != 0) continue;
    buffer = source.buffer;
    sparing_ += int64_t(nbytes);
    return static_cast<char *>(source.tensor.data);
  }
  return nullptr;
}

void Frame::learn(const Step &step) {
  Joining &joining = joinings_[step.join];
  joining.known = in_one_piece(slots[step.outputs[0]].tensor, program.joins[step.join].axis);
  for (size_t i = 0; i < joining.sizes.size(); i++) joining.sizes[i] = bytes_of(in_[i]);
}

void Frame::release(Joining &joining) {
  if (joining.memory) unref(joining.buffer);
  joining.memory = nullptr;
}

}  // namespace epk
