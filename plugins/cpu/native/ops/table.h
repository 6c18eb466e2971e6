// All operators of this library. To add one: write it with EPK_OPERATOR, and name it here.
#pragma once

#define EPK_OPERATORS(X) \
  X(pointwise) X(reshape) X(shape) X(gemm) X(gemm_pack) \
  X(transpose) X(expand) X(slice) X(split) X(concat) X(pad) X(tile) X(depth_space) X(range) X(constant_of_shape) \
  X(trilu) X(gather) X(gather_elements) X(gather_nd) X(scatter_nd) X(scatter_elements) X(reduce) X(arg_extreme) X(cum_sum) X(top_k) \
  X(conv_pack) X(conv) X(pool) X(global_pool) X(to_blocked) X(from_blocked) X(softmax) X(layer_norm) X(group_norm) \
  X(channel_affine) X(attention) X(multi_head) X(grouped_attention) X(rotary) X(bias_softmax) \
  X(local_response) X(lp_normalise) X(non_zero) X(compress) X(one_hot) X(reverse_sequence) X(non_max_suppression) \
  X(grid_sample) X(einsum) X(recurrent_pack) X(recurrent) X(peak) \
  X(quantise_linear) X(dequantise_linear) X(dynamic_quantise) X(gemm_int8_pack) X(gemm_int8) \
  X(conv_int8_pack) X(conv_int8) X(matmul_nbits) X(resize) X(trees) \
  X(halves) X(softmax_halves)
