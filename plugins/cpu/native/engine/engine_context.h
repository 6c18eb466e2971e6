// What the engine gives its own kernels beyond the interface for all.
#pragma once
#include "epkit_kernel.h"

namespace epk {

struct EngineContext {
  epk_context base;  // first: kernels get its address

  // The output is a part of the input, `offset` bytes from its start: no copy. 0 if it cannot be one, as Python will
  // see it: then the kernel copies.
  int (*view)(epk_context *ctx, int index, int input, int32_t ndim, const int64_t *shape, int64_t offset);
};

}  // namespace epk
