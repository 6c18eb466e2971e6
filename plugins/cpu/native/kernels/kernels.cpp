#include "kernels.h"

extern "C" const EpkKernels EPK(kernels) = {
#define EPK_MEMBER(name) &EPK(name),
    EPK_KERNELS(EPK_MEMBER)
#undef EPK_MEMBER
};
