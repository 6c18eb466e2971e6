"""Command buffers (``cl_khr_command_buffer``): many launches that are enqueued by one call.

pyopencl does not bind the extension; its functions are asked of the driver. Only those are used whose signatures are
the same in every provisional version: launches are recorded, copies are not.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from .device import Gpu
from .recording import Launch

CAPABILITIES, QUEUE_PROPERTIES = 0x12A9, 0x12AA
SIMULTANEOUS_USE = 1 << 2
"""Of the capabilities: a buffer may be enqueued again while the device still works at it."""

FLAGS, FLAG_SIMULTANEOUS = 0x1293, 1

POINTER, UINT, INT = ctypes.c_void_p, ctypes.c_uint, ctypes.c_int
SIGNATURES: dict[str, tuple[Any, list[Any]]] = {
    "clCreateCommandBufferKHR": (POINTER, [UINT, POINTER, POINTER, POINTER]),
    "clCommandNDRangeKernelKHR": (INT, [*[POINTER] * 4, UINT, *[POINTER] * 3, UINT, *[POINTER] * 3]),
    "clFinalizeCommandBufferKHR": (INT, [POINTER]),
    "clEnqueueCommandBufferKHR": (INT, [UINT, POINTER, POINTER, UINT, POINTER, POINTER]),
    "clReleaseCommandBufferKHR": (INT, [POINTER]),
}
"""Result and parameters of each function."""


def _loader() -> Any:
    """The OpenCL library that pyopencl is linked to: looked up in its module, whose dependencies are searched too."""
    import pyopencl as cl

    return ctypes.CDLL(cl._cl.__file__)


def functions_of(gpu: Gpu) -> SimpleNamespace | None:
    """The functions by name, or None where the device has no command buffers of the kind that a replay needs: for a
    plain queue, and to be enqueued again before the last time has ended.
    """
    if "cl_khr_command_buffer" not in gpu.handle.extensions.split():
        return None
    try:
        ask = _loader().clGetDeviceInfo
        ask.restype, ask.argtypes = INT, [POINTER, UINT, ctypes.c_size_t, POINTER, POINTER]
        answers = []
        for question in (CAPABILITIES, QUEUE_PROPERTIES):
            answer = ctypes.c_uint64()
            if ask(gpu.handle.int_ptr, question, 8, ctypes.byref(answer), None):
                return None
            answers.append(answer.value)
        return _functions(gpu) if answers[0] & SIMULTANEOUS_USE and not answers[1] else None
    except (AttributeError, OSError):
        return None


def _functions(gpu: Gpu) -> SimpleNamespace:
    address = _loader().clGetExtensionFunctionAddressForPlatform
    address.restype, address.argtypes = POINTER, [POINTER, ctypes.c_char_p]
    found = {}
    for name, (result, parameters) in SIGNATURES.items():
        place = address(gpu.handle.platform.int_ptr, name.encode())
        if not place:
            raise AttributeError(f"the driver has no {name}")
        found[name] = ctypes.CFUNCTYPE(result, *parameters)(place)
    return SimpleNamespace(**found)


class CommandBuffer:
    """Launches in order, for one queue.

    Raises:
        RuntimeError: if the driver does not take them.
    """

    def __init__(self, functions: SimpleNamespace, queue: Any, launches: Sequence[Launch]) -> None:
        self.functions, self.kept = functions, list(launches)
        self._queue = (POINTER * 1)(queue.int_ptr)
        error = INT()
        flags = (ctypes.c_uint64 * 3)(FLAGS, FLAG_SIMULTANEOUS, 0)
        self.handle = functions.clCreateCommandBufferKHR(1, self._queue, flags, ctypes.byref(error))
        _check("clCreateCommandBufferKHR", error.value)
        before, count = None, 0
        for launch in launches:
            point = UINT()
            code = functions.clCommandNDRangeKernelKHR(
                self.handle, None, None, launch.kernel.int_ptr, len(launch.size), None,
                _sizes(launch.size), None if launch.group is None else _sizes(launch.group),
                count, before, ctypes.byref(point), None,
            )  # fmt: skip
            _check("clCommandNDRangeKernelKHR", code)
            before, count = (UINT * 1)(point.value), 1
        _check("clFinalizeCommandBufferKHR", functions.clFinalizeCommandBufferKHR(self.handle))

    def __call__(self, queue: Any) -> None:
        """Enqueue all of them, on the queue that they were recorded for or one of the same properties."""
        self._queue[0] = queue.int_ptr
        code = self.functions.clEnqueueCommandBufferKHR(1, self._queue, self.handle, 0, None, None)
        _check("clEnqueueCommandBufferKHR", code)

    def __del__(self) -> None:
        if getattr(self, "handle", None):
            self.functions.clReleaseCommandBufferKHR(self.handle)


def _sizes(values: Sequence[int]) -> Any:
    return (ctypes.c_size_t * len(values))(*values)


def _check(name: str, code: int) -> None:
    if code:
        raise RuntimeError(f"{name} returned {code}")
