"""The product of two matrices on the device, nothing copied: ours, a plain kernel, and CLBlast's."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from types import SimpleNamespace
from typing import Any

import numpy as np

from .measure import alternate

PLAIN = """
__kernel void plain(__global const float* a, __global const float* b, __global float* q) {
  const int i = get_global_id(1) * 8, j = get_global_id(0) * 16;
  float16 sum[8];
  for (int r = 0; r < 8; r++) sum[r] = 0;
  for (int s = 0; s < SIZE; s++) {
    const float16 y = vload16(0, b + s * SIZE + j);
#pragma unroll
    for (int r = 0; r < 8; r++) sum[r] = fma((float16)a[(i + r) * SIZE + s], y, sum[r]);
  }
  for (int r = 0; r < 8; r++) vstore16(sum[r], 0, q + (i + r) * SIZE + j);
}
"""


def products(size: int, rounds: int) -> dict[str, float]:
    """Median seconds of the product on the device, nothing copied: ours with a weight on the right, and its peers.

    Raises:
        AssertionError: if a product is wrong.
    """
    import pyopencl as cl

    from epkit_opencl.device import Options, find_devices, handle_of, limits_of, open_device
    from epkit_opencl.kernels.gemm import Side, multiply, pack
    from epkit_opencl.memory import ClStream, Lane, Tensor, new_buffer

    gpu = open_device(handle_of(find_devices(Options()).found[0]))
    stream = ClStream(gpu, limits_of(gpu.handle, Options()), Lane(gpu))
    context: Any = SimpleNamespace(stream=stream)
    random = np.random.default_rng(3)
    a, b = (random.standard_normal((size, size), np.float32) for _ in range(2))
    shape, found = a.shape, np.empty_like(a)
    left, right, out = (Tensor(new_buffer(gpu, a.nbytes), 0, shape, a.dtype) for _ in range(3))
    right.packed = {}
    for array, tensor in ((a, left), (b, right)):
        cl.enqueue_copy(stream.queue, tensor.buffer, array)

    def ours() -> None:
        panels = pack(context, Side(right, size, 1), size, size, 1)
        multiply(context, Side(left, size, 1), panels, 1, out, (1, size, size, size))
        stream.queue.finish()

    kernel = cl.Program(gpu.context, PLAIN).build(["-cl-std=CL1.2", f"-DSIZE={size}"]).plain
    kernel.set_args(left.buffer, right.buffer, out.buffer)

    def plain() -> None:
        cl.enqueue_nd_range_kernel(stream.queue, kernel, (size // 16, size // 8), None)
        stream.queue.finish()

    runs: dict[str, Callable[[], None]] = {"epkit": ours, "a plain 8 x 16 register-blocked kernel": plain}
    with suppress(ImportError):
        runs["CLBlast"] = clblast(stream.queue, left.buffer, right.buffer, out.buffer, size)
    for name, run in runs.items():
        cl.enqueue_fill_buffer(stream.queue, out.buffer, np.full(1, np.nan, np.float32), 0, found.nbytes)
        run()
        cl.enqueue_copy(stream.queue, found, out.buffer)
        np.testing.assert_allclose(found, a @ b, rtol=1e-3, atol=1e-2, err_msg=name)
    return alternate(runs, rounds)


def clblast(queue: Any, a: Any, b: Any, q: Any, size: int) -> Callable[[], None]:
    """The product of two buffers by pyclblast.

    Raises:
        ImportError: if it is not installed.
    """
    pyclblast: Any = import_module("pyclblast")
    import pyopencl.array as arrays

    x, y, z = (arrays.Array(queue, (size, size), np.float32, data=buffer) for buffer in (a, b, q))

    def run() -> None:
        pyclblast.gemm(queue, size, size, size, x, y, z, a_ld=size, b_ld=size, c_ld=size)
        queue.finish()

    return run
