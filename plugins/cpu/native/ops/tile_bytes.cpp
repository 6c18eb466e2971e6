// Quantisation as operations of fused chains: between float32 and 8 bits, one scale for the tensor.
#include "pointwise.h"

namespace EPK_NS {
namespace {

// how.x: scale; how.y: zero point. As ONNX has it: divided, rounded with halves to even, shifted, kept in range.
template <class T> int quantise_tile(const Instruction &how, void *to_, const void *a_, const void *, const void *, int64_t n) {
  const float *a = static_cast<const float *>(a_);
  uint8_t *to = static_cast<uint8_t *>(to_);
  const vf scale = splat(float(how.x)), zero = splat(float(how.y));
  const vf low = splat(T(-1) < T(0) ? -128.0f : 0.0f), high = splat(T(-1) < T(0) ? 127.0f : 255.0f);
  for (int64_t i = 0; i < n; i += VL) {
    const int64_t lanes = min_of<int64_t>(VL, n - i);
    const vf value = vround((lanes == VL ? load(a + i) : load_n(a + i, lanes)) / scale) + zero;
    const vi whole = to_int(vmin(high, vmax(value, low)));  // NaN becomes the least
    if (lanes == VL) {
      store_bytes(to + i, whole);
    } else {
      uint8_t bytes[VL];
      store_bytes(bytes, whole);
      memcpy(to + i, bytes, size_t(lanes));
    }
  }
  return 0;
}

template <class T> int dequantise_tile(const Instruction &how, void *to_, const void *a_, const void *, const void *, int64_t n) {
  const T *a = static_cast<const T *>(a_);
  float *to = static_cast<float *>(to_);
  const vf scale = splat(float(how.x)), zero = splat(float(how.y));
  int64_t i = 0;
  for (; i + VL <= n; i += VL) store(to + i, (to_float(load_bytes(a + i)) - zero) * scale);
  for (; i < n; i++) to[i] = (float(a[i]) - float(how.y)) * float(how.x);
  return 0;
}

}  // namespace

TileFunction quantise_function(int to) {
  return to == TILE_uint8 ? quantise_tile<uint8_t> : to == TILE_int8 ? quantise_tile<int8_t> : nullptr;
}
TileFunction dequantise_function(int from) {
  return from == TILE_uint8 ? dequantise_tile<uint8_t> : from == TILE_int8 ? dequantise_tile<int8_t> : nullptr;
}

}  // namespace EPK_NS
