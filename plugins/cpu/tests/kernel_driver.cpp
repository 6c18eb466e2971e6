// Runs one kernel of an instruction set that this machine does not have, under an emulator: floats come in on
// standard input, floats go out on standard output. Arguments: the kernel, and its sizes.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "kernels/kernels.h"

namespace {

std::vector<float> take(size_t n) {
  std::vector<float> values(n);
  if (fread(values.data(), 4, n, stdin) != n) exit(2);
  return values;
}

void give(const float *values, size_t n) { fwrite(values, 4, n, stdout); }

float *memory(int64_t bytes) { return static_cast<float *>(aligned_alloc(64, size_t(bytes + 127) / 64 * 64)); }

void gemm(const int64_t *s) {
  const int64_t m = s[0], k = s[1], n = s[2];
  const std::vector<float> a = take(m * k), b = take(k * n), bias = take(n);
  std::vector<float> out(m * n);
  float *packed = memory(EPK(gemm_packed_size_f32)(k, n));
  EPK(gemm_pack_f32)(b.data(), k, n, n, 1, packed, nullptr);
  EpkGemm g{};
  g.m = m, g.n = n, g.k = k, g.a = a.data(), g.a_row = k, g.a_column = 1, g.packed = packed;
  g.out = out.data(), g.out_row = n, g.batch = 1;
  g.epilogue.scale = 1, g.epilogue.bias = bias.data(), g.epilogue.activation = EPK_RELU;
  EPK(gemm_f32)(&g, memory(EPK(gemm_scratch_f32)(&g, 1)), nullptr);
  give(out.data(), out.size());
}

void gemm_int8(const int64_t *s) {
  const int64_t m = s[0], k = s[1], n = s[2];
  const std::vector<float> a = take(m * k), b = take(k * n);
  std::vector<uint8_t> x(a.begin(), a.end());
  std::vector<int8_t> w(b.begin(), b.end());
  std::vector<int32_t> out(m * n);
  float *packed = memory(EPK(gemm_packed_size_int8)(k, n));
  EPK(gemm_pack_int8)(w.data(), k, n, n, 1, 1, nullptr, 1, packed, nullptr);
  EpkGemmInt8 g{};
  g.m = m, g.n = n, g.k = k, g.a = x.data(), g.a_row = k, g.packed = packed;
  g.out = out.data(), g.out_row = n, g.batch = 1, g.finish.result = EPK_INT32;
  EPK(gemm_int8)(&g, memory(EPK(gemm_scratch_int8)(&g, 1)), nullptr);
  const std::vector<float> sums(out.begin(), out.end());
  give(sums.data(), sums.size());
}

// A square image, planar on both sides.
void conv(const int64_t *s) {
  const int64_t channels = s[0], filters = s[1], size = s[2], kernel = s[3], stride = s[4], pad = s[5], group = s[6];
  const int64_t o = (size + 2 * pad - kernel) / stride + 1;
  const std::vector<float> x = take(channels * size * size), w = take(filters * channels / group * kernel * kernel);
  std::vector<float> out(filters * o * o);
  EpkConv c{};
  c.n = 1, c.channels = channels, c.filters = filters, c.group = group, c.epilogue.scale = 1;
  for (int d = 0; d < 3; d++) {
    c.in[d] = d ? size : 1, c.out[d] = d ? o : 1, c.kernel[d] = d ? kernel : 1;
    c.stride[d] = d ? stride : 1, c.dilation[d] = 1, c.pad[d] = d ? pad : 0;
  }
  float *packed = memory(EPK(conv_packed_size_f32)(&c));
  EPK(conv_pack_f32)(&c, w.data(), nullptr, packed, nullptr);
  EPK(conv_f32)(&c, x.data(), packed, out.data(), memory(EPK(conv_scratch_f32)(&c, 1)), nullptr);
  give(out.data(), out.size());
}

void rows(const char *name, const int64_t *s) {
  const int64_t count = s[0], n = s[1];
  const std::vector<float> x = take(count * n);
  std::vector<float> out(count * n);
  if (strcmp(name, "softmax") == 0) EPK(softmax_f32)(x.data(), out.data(), count, n, 1, 0, nullptr);
  else if (strcmp(name, "layer_norm") == 0)
    EPK(layer_norm_f32)(x.data(), nullptr, nullptr, nullptr, nullptr, out.data(), nullptr, nullptr, nullptr, count, n,
                        1e-5f, 0, nullptr);
  else EPK(unary_f32)(int(s[2]), x.data(), out.data(), count * n, nullptr);
  give(out.data(), out.size());
}

}  // namespace

int main(int count, char **arguments) {
  int64_t sizes[8] = {};
  for (int i = 2; i < count && i < 10; i++) sizes[i - 2] = atoll(arguments[i]);
  const char *name = count > 1 ? arguments[1] : "";
  if (strcmp(name, "gemm") == 0) gemm(sizes);
  else if (strcmp(name, "gemm_int8") == 0) gemm_int8(sizes);
  else if (strcmp(name, "conv") == 0) conv(sizes);
  else rows(name, sizes);
  return 0;
}
