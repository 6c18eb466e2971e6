// All operators of this library. To add one: write it with EPK_OPERATOR, and name it here.
#pragma once

#define EPK_OPERATORS(X) \
  X(pointwise) X(reshape) X(shape) X(gemm) X(gemm_pack)
