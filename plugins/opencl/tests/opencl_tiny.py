"""A pytest plugin: the device is a small GPU, and every launch is held against its limits.

``pytest -p opencl_tiny FILES``
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pyopencl as cl
import pytest

from epkit_opencl import provider
from epkit_opencl.device import Limits, all_handles, limits_of, open_device

WORK_ITEMS, LOCAL_MEMORY = 64, 16 << 10
launches = 0


def small(handle: Any, options: Any) -> Limits:
    """The device's limits, or less."""
    return replace(limits_of(handle, options), work_items=WORK_ITEMS, local_memory=LOCAL_MEMORY)


def pytest_configure(config: pytest.Config) -> None:
    gpu = open_device(all_handles()[0])
    gpu.is_cpu = False
    plain = cl.enqueue_nd_range_kernel
    memory = cl.kernel_work_group_info.LOCAL_MEM_SIZE

    def enqueue(queue: Any, kernel: Any, size: Any, group: Any) -> Any:
        global launches
        launches += 1
        assert group is None or math.prod(group) <= WORK_ITEMS, kernel.function_name
        assert kernel.get_work_group_info(memory, gpu.handle) <= LOCAL_MEMORY, kernel.function_name
        return plain(queue, kernel, size, group)

    vars(cl)["enqueue_nd_range_kernel"] = enqueue
    vars(provider)["limits_of"] = small


def pytest_terminal_summary(terminalreporter: Any) -> None:
    terminalreporter.write_line(f"launches of a tiny device: {launches}")
