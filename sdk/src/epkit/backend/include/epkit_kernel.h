/* Native kernels of epkit: the binary interface, version 1.
 *
 * A kernel is one C function. It reads its inputs, says the shape of each output, gets memory for it, fills it,
 * and returns EPK_OK. It needs nothing but this file: no library of epkit is linked.
 *
 *     #include "epkit_kernel.h"
 *
 *     EPK_EXPORT int negate(epk_context *ctx, const void *attributes, const DLTensor *in, int n_in,
 *                           DLTensor *out, int n_out) {
 *         float *y = ctx->output(ctx, 0, in[0].ndim, in[0].shape);
 *         if (y == NULL) return EPK_FAILED;
 *         const float *x = in[0].data;
 *         for (int64_t i = 0, n = epk_size(&in[0]); i < n; i++) y[i] = -x[i];
 *         return EPK_OK;
 *     }
 */
#ifndef EPKIT_KERNEL_H
#define EPKIT_KERNEL_H

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#ifdef __cplusplus
extern "C" {
#endif

#define EPK_ABI_VERSION 1
#define EPK_MAX_RANK 16

#if defined(_WIN32)
#define EPK_EXPORT __declspec(dllexport)
#else
#define EPK_EXPORT __attribute__((visibility("default")))
#endif

/* ---- tensors: the structures of DLPack (https://dmlc.github.io/dlpack), unless its header came first ---- */

#ifndef DLPACK_VERSION
#ifndef DLPACK_MAJOR_VERSION

enum { kDLInt = 0, kDLUInt = 1, kDLFloat = 2, kDLBfloat = 4, kDLComplex = 5, kDLBool = 6 };

typedef struct {
    int32_t device_type; /* 1: the host */
    int32_t device_id;
} DLDevice;

typedef struct {
    uint8_t code;
    uint8_t bits;
    uint16_t lanes;
} DLDataType;

typedef struct {
    void *data;
    DLDevice device;
    int32_t ndim;
    DLDataType dtype;
    int64_t *shape;
    int64_t *strides; /* NULL: dense, last dimension first; the host gives no others */
    uint64_t byte_offset; /* 0 */
} DLTensor;

#endif
#endif

/* ---- status ---- */

enum {
    EPK_OK = 0,
    EPK_FAILED = 1,        /* epk_fail or ctx->output has said why */
    EPK_INVALID = 2,       /* the inputs do not fit the operator */
    EPK_OUT_OF_MEMORY = 3, /* sizes that overflow count too */
    EPK_UNSUPPORTED = 4    /* right, but not for this kernel */
};

/* ---- the context: valid during the call, from the thread that was called ---- */

typedef void (*epk_body)(void *arg, int64_t begin, int64_t end, int thread);

typedef struct epk_context epk_context;

struct epk_context {
    uint32_t abi_version; /* EPK_ABI_VERSION of the host; later ones append members only */
    int32_t threads;      /* how many threads `parallel` may use; `thread` is below this */

    /* Memory for output `index`, 64-byte aligned, of the element type that outputs[index].dtype has at the time
     * of the call (the host has filled it in). Sets data, ndim and shape of outputs[index]. Call it once for each
     * output. NULL: no memory, return EPK_FAILED. Where there are no elements, the pointer is not NULL. */
    void *(*output)(epk_context *ctx, int index, int32_t ndim, const int64_t *shape);

    /* The output is the input under another shape of as many elements: no copy. EPK_OK or EPK_FAILED. */
    int (*alias)(epk_context *ctx, int index, int input, int32_t ndim, const int64_t *shape);

    /* 64-byte aligned memory until the kernel returns; NULL: none, return EPK_FAILED. */
    void *(*scratch)(epk_context *ctx, size_t nbytes);

    /* Calls body(arg, begin, end, thread) for [0, count) in pieces of `grain` (the last may be smaller), on several
     * threads; returns when all are done. Which thread takes a piece is left open. */
    void (*parallel)(epk_context *ctx, int64_t count, int64_t grain, epk_body body, void *arg);

    /* Says what went wrong (the text is copied); returns `status`. See epk_fail below. */
    int (*fail)(epk_context *ctx, int status, const char *message);
};

/* `attributes` points to what the declaration in Python packed, aligned for any type. Inputs that are absent have
 * data NULL and ndim -1; outputs that nobody wants have ndim -1 before the call, and may be left out. */
typedef int (*epk_kernel)(epk_context *ctx, const void *attributes, const DLTensor *inputs, int n_inputs,
                          DLTensor *outputs, int n_outputs);

/* The number of elements; -1 if it overflows. */
static inline int64_t epk_size(const DLTensor *tensor) {
    int64_t size = 1;
    for (int32_t i = 0; i < tensor->ndim; i++) {
        int64_t dim = tensor->shape[i];
        if (dim == 0) return 0;
        if (dim < 0 || size > INT64_MAX / dim) return -1;
        size *= dim;
    }
    return size;
}

/* ctx->fail with a text made as by printf. */
#if defined(__GNUC__)
__attribute__((format(printf, 3, 4)))
#endif
static inline int epk_fail(epk_context *ctx, int status, const char *format, ...) {
    char text[400];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    return ctx->fail(ctx, status, text);
}

#ifdef __cplusplus
}
#endif
#endif
