"""Convolutions with kernels of 3 x 3 on the device, nothing copied: one product, and Winograd's tiles."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

from .measure import alternate

LAYERS = {
    "ResNet-50": ((64, 64, 56), (128, 128, 28), (256, 256, 14), (512, 512, 7)),
    "YOLOv8n": ((16, 16, 160), (32, 32, 80), (64, 64, 80), (64, 64, 40), (128, 64, 40), (128, 128, 20)),
}
"""Input channels, output channels, and height, which is the width too."""


def convolutions(rounds: int) -> list[tuple[str, tuple[int, int, int], dict[str, float]]]:
    """Network, layer, and median seconds of each way with Relu at the end.

    Raises:
        AssertionError: if a way is further from one product than 1e-4 of the largest number.
    """
    import pyopencl as cl

    from epkit.kernels._window import window
    from epkit_opencl.device import Options, find_devices, handle_of, limits_of, open_device
    from epkit_opencl.kernels.convolution import go
    from epkit_opencl.kernels.gemm_source import End
    from epkit_opencl.kernels.task import Task
    from epkit_opencl.kernels.winograd_source import FOUR, TWO, Tile
    from epkit_opencl.memory import ClStream, Lane, Tensor

    gpu = open_device(handle_of(find_devices(Options()).found[0]))
    stream = ClStream(gpu, limits_of(gpu.handle, Options()), Lane(gpu))
    context: Any = SimpleNamespace(stream=stream)
    random = np.random.default_rng(3)
    flags = cl.mem_flags.READ_WRITE | cl.mem_flags.COPY_HOST_PTR

    def tensor(*shape: int) -> Tensor:
        array = random.standard_normal(shape, np.float32)
        made = Tensor(cl.Buffer(gpu.context, flags, hostbuf=array), 0, shape, array.dtype)
        made.packed = {}
        return made

    def result(task: Task) -> Any:
        array = np.empty(task.out.shape, np.float32)
        cl.enqueue_copy(stream.queue, array, task.out.buffer)
        return array

    def measured(layer: tuple[int, int, int]) -> dict[str, float]:
        inner, outer, size = layer
        axes: dict[str, Any] = {"strides": None, "dilations": None, "pads": [1] * 4, "auto_pad": "NOTSET"}
        view = window((size, size), (3, 3), **axes)
        x, out = tensor(1, inner, size, size), tensor(1, outer, size, size)
        task = Task(x, tensor(outer, inner, 3, 3), tensor(outer), out, view, 1, End("Relu"))

        def run(way: Tile | None) -> None:
            go(context, task, way)
            stream.queue.finish()

        run(None)
        want = result(task)
        for way in (TWO, FOUR):
            run(way)
            np.testing.assert_allclose(result(task), want, rtol=0, atol=1e-4 * want.max(), err_msg=str(way))
        ways = {"one product": None, "F(2 x 2)": TWO, "F(4 x 4)": FOUR}
        return alternate({name: lambda way=way: run(way) for name, way in ways.items()}, rounds)  # type: ignore[misc]

    return [(network, layer, measured(layer)) for network, layers in LAYERS.items() for layer in layers]
