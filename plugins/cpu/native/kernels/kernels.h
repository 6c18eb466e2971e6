// All math kernels, and a table of them for each instruction set: epk_kernels_<isa>, for example epk_kernels_avx512.
//
// Every .cpp of this folder is compiled once per instruction set with -DEPK_ISA=<name> and the flags of
// build_kernels.py (ISAS, FLAGS). Rules that hold for all: strides and sizes are in elements unless a name says bytes;
// scratch memory and packed weights are 64-byte aligned and belong to the caller; sizes in bytes are asked for first;
// packed weights are of one instruction set only. A null Parallel is serial.
#pragma once
#include "attention.h"
#include "conv.h"
#include "conv16.h"
#include "gemm.h"
#include "gemm16.h"
#include "int8.h"
#include "nbits.h"
#include "norm.h"
#include "pool.h"
#include "recurrent.h"
#include "resize.h"
#include "softmax.h"
#include "trees.h"
#include "unary.h"

#define EPK_KERNELS(X) \
  X(unary_f32) X(pow_f32) \
  X(gemm_packed_size_f32) X(gemm_pack_f32) X(gemm_scratch_f32) X(gemm_f32) \
  X(gemm16_packed_size) X(gemm16_pack) X(gemm16_scratch) X(gemm16) \
  X(gemm_packed_size_int8) X(gemm_pack_int8) X(gemm_scratch_int8) X(gemm_int8) \
  X(conv_packed_size_f32) X(conv_pack_f32) X(conv_scratch_f32) X(conv_f32) \
  X(conv16_packed_size) X(conv16_matrix_size) X(conv16_pack) X(conv16_scratch) X(conv16) \
  X(conv_packed_size_int8) X(conv_pack_int8) X(conv_scratch_int8) X(conv_int8) \
  X(nbits_scratch) X(nbits) X(to_blocked_f32) X(from_blocked_f32) X(quantise) X(dequantise) \
  X(softmax_f32) X(layer_norm_f32) X(group_norm_f32) X(channel_affine_f32) X(pool_f32) X(global_pool_f32) \
  X(attention_scratch_f32) X(attention_f32) X(rotary_f32) \
  X(recurrent_packed_size_f32) X(recurrent_pack_f32) X(recurrent_scratch_f32) X(recurrent_f32) \
  X(resize_taps) X(resize_table) X(resize_f32) X(trees_f32) X(trees_f64)

#ifndef EPK_KERNEL_TABLE
#define EPK_KERNEL_TABLE
struct EpkKernels {
#define EPK_MEMBER(name) decltype(&EPK(name)) name;
  EPK_KERNELS(EPK_MEMBER)
#undef EPK_MEMBER
};
#endif

extern "C" const EpkKernels EPK(kernels);
